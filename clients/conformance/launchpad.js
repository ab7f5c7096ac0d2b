// The testbed's launchpad, with Delos Deploy in the place of flagd: it starts, stops and restarts the
// service on one port with storage that outlives it, and has it serve the testbed's flags as far as
// they can be prompts.

import { spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const BINARY =
  process.env.DELOS_BIN ?? fileURLToPath(new URL("../../target/debug/delos-deploy", import.meta.url));

const IMMEDIATE = { type: "DEPLOYMENT_TYPE_IMMEDIATE" };
/** Underway for as long as anybody looks. */
const CANARY = { type: "DEPLOYMENT_TYPE_CANARY", initial_percentage: 50, interval_seconds: 3600 };

/** What is deployed, in this order. What the scenarios say of a flag is beside it. */
const DEPLOYMENTS = [
  { prompt: "integer-flag", version: 10 },
  // Of this one they say only in which flag sets it is.
  { prompt: "float-flag", version: 1 },
  // "foo" and "bar", of which none looks at.
  { prompt: "changing-flag", version: 1 },
  { prompt: "empty-targeting-flag", version: 1 },
  // The targeting comes to nothing, and so the default is 2: a rollout of 1, where nobody is named.
  { prompt: "targeting-null-variant-flag", version: 2 },
  { prompt: "targeting-null-variant-flag", version: 1, strategy: CANARY },
  { prompt: "targeting-null-flag", version: 2 },
  { prompt: "targeting-null-flag", version: 1, strategy: CANARY },
  // No default: what is rolled out as a prompt's first version has nothing beside it.
  { prompt: "null-default-flag", version: 1, strategy: CANARY },
  { prompt: "undefined-default-flag", version: 10, strategy: CANARY },
  { prompt: "no-default-flag-null-targeting-variant", version: 1, strategy: CANARY },
  { prompt: "no-default-flag-undefined-targeting-variant", version: 1, strategy: CANARY },
  { prompt: "selector-flag", version: 1, environment: "selector-set" },
];

export class Launchpad {
  #child;
  #directory;
  #restarting = Promise.resolve();
  #changed = 0;

  /** The service's port, once it has been started; the same from then on. */
  port;

  /** Starts the service unless it runs, the first time with the testbed's flags. */
  async start() {
    await this.#restarting;
    if (this.#child) return;
    if (this.port) return this.#spawn(this.port);
    this.#directory = await mkdtemp(join(tmpdir(), "delos-conformance-"));
    this.port = await this.#onFreePort();
    for (const { prompt, version, strategy = IMMEDIATE, environment = "production" } of DEPLOYMENTS) {
      await this.#deploy(prompt, version, strategy, environment);
    }
  }

  async stop() {
    await this.#restarting;
    await this.#terminate();
  }

  /** Stops the service, and starts it again so much later; returns as soon as it has stopped. */
  async restart(seconds) {
    await this.stop();
    const later = new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    this.#restarting = later.then(() => this.#spawn(this.port));
    // Whoever needs the service waits for this, and is told.
    this.#restarting.catch(() => {});
  }

  /** Gives `changing-flag` the other one of its two values. */
  async change() {
    this.#changed += 1;
    await this.#deploy("changing-flag", (this.#changed % 2) + 1, IMMEDIATE, "production");
  }

  async close() {
    await this.stop();
    if (this.#directory) await rm(this.#directory, { recursive: true });
  }

  /** Starts below the ports that outgoing connections get, one of which could be given this one while it is down. */
  async #onFreePort() {
    for (;;) {
      const port = randomInt(20_000, 32_000);
      try {
        await this.#spawn(port);
        return port;
      } catch (error) {
        if (!error.isTaken) throw error;
      }
    }
  }

  async #spawn(port) {
    const child = spawn(BINARY, {
      env: {
        PATH: process.env.PATH,
        DELOS_GRPC_PORT: String(port),
        DELOS_STORAGE_BACKEND: "sqlite",
        DELOS_SQLITE_PATH: join(this.#directory, "delos.db"),
        DELOS_TRACING_ENABLED: "false",
        DELOS_DRAIN_SECONDS: "0",
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const end = () => child.kill("SIGKILL");
    process.once("exit", end);
    child.once("close", () => process.off("exit", end));
    let said = "";
    child.stderr.on("data", (text) => (said += text));
    await new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code) => {
        const isTaken = /in use/i.test(said);
        reject(Object.assign(new Error(`the service ended with ${code}: ${said}`), { isTaken }));
      });
      createInterface({ input: child.stdout }).on("line", (line) => {
        said += `${line}\n`;
        if (JSON.parse(line).message === "serving") resolve();
      });
    });
    this.#child = child;
  }

  /** As an operator stops it, and not as the testbed, which kills: the streams are told. */
  async #terminate() {
    const child = this.#child;
    if (!child) return;
    this.#child = undefined;
    const ended = new Promise((resolve) => child.once("close", resolve));
    child.kill("SIGTERM");
    await ended;
  }

  async #deploy(prompt_id, to_version, strategy, environment) {
    const response = await fetch(`http://127.0.0.1:${this.port}/v1/deployments`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt_id, environment, to_version, strategy, skip_approval: true }),
    });
    if (!response.ok) throw new Error(`${prompt_id}: ${response.status} ${await response.text()}`);
  }
}
