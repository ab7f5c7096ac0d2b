// The service under test: a process of its own, which can be stopped and started again on the same
// port and storage, and its REST API.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const BINARY = process.env.DELOS_BIN || fileURLToPath(new URL("../../target/debug/delos-deploy", import.meta.url));

/** Longest wait for anything that a test expects to happen. */
export const WAIT_MS = 20_000;
const READY_WAIT_MS = 60_000;

/** Asks again until `holds`, at most `wait` milliseconds. */
export async function until(what, holds, wait = WAIT_MS) {
  const end = Date.now() + wait;
  while (!(await holds())) {
    assert.ok(Date.now() < end, `not within ${wait / 1000} s: ${what}`);
    await delay(20);
  }
}

/**
 * A free port below those that systems give to outgoing connections: none of these may take it
 * while the service is stopped, not even the one of a client that tries to connect to it.
 */
async function freePort() {
  for (;;) {
    const port = randomInt(20_000, 32_000);
    const server = createServer().listen(port, "127.0.0.1");
    const [event] = await Promise.race([
      once(server, "listening").then(() => ["listening"]),
      once(server, "error").then(() => ["error"]),
    ]);
    if (event === "error") continue;
    server.close();
    await once(server, "close");
    return port;
  }
}

export class Service {
  #directory;
  #child;
  #ended;
  #log = "";

  /** Starts the service with an empty storage, and waits until it is ready. */
  static async create() {
    const service = new Service(await freePort(), await mkdtemp(join(tmpdir(), "delos-deploy-")));
    await service.start();
    return service;
  }

  constructor(port, directory) {
    this.port = port;
    this.url = `http://127.0.0.1:${port}`;
    this.#directory = directory;
    // Also where the tests end without their teardown.
    process.on("exit", () => this.#child?.kill("SIGKILL"));
  }

  /** Starts it, the first time or again, and waits until it is ready. */
  async start() {
    const env = {
      PATH: process.env.PATH,
      DELOS_GRPC_PORT: String(this.port),
      DELOS_STORAGE_BACKEND: "sqlite",
      DELOS_SQLITE_PATH: join(this.#directory, "delos-deploy.db"),
      DELOS_DRAIN_SECONDS: "0",
      DELOS_TRACING_ENABLED: "false",
      DELOS_LOG_FORMAT: "text",
    };
    const child = spawn(BINARY, [], { env, stdio: ["ignore", "pipe", "pipe"] });
    this.#child = child;
    child.stdout.on("data", (text) => (this.#log += text));
    child.stderr.on("data", (text) => (this.#log += text));
    let failure;
    this.#ended = new Promise((resolve) => {
      child.once("exit", (code, signal) => resolve(code ?? signal));
      child.once("error", (error) => resolve((failure = error)));
    });
    await until(
      "the service is ready",
      async () => {
        if (failure) throw failure;
        assert.equal(child.exitCode, null, `the service ended before it was ready:\n${this.#log}`);
        const answer = await fetch(`${this.url}/readyz`).catch(() => undefined);
        return answer?.status === 200;
      },
      READY_WAIT_MS,
    );
  }

  /** Stops it; its storage stays. */
  async stop(signal) {
    this.#child.kill(signal);
    assert.equal(await this.#ended, signal === "SIGTERM" ? 0 : signal, this.#log);
  }

  /** Ends it, and removes its storage. */
  async remove() {
    this.#child.kill("SIGKILL");
    await this.#ended;
    await rm(this.#directory, { recursive: true });
  }

  async rest(path, body) {
    const response = await fetch(`${this.url}/v1${path}`, {
      method: body ? "POST" : "GET",
      headers: body ? { "content-type": "application/json" } : {},
      body: body && JSON.stringify(body),
    });
    const answer = await response.json();
    assert.ok(response.ok, `${path}: ${JSON.stringify(answer)}`);
    return answer;
  }

  /** Creates a deployment that begins at once. */
  async deploy(prompt, version, strategy) {
    const body = { prompt_id: prompt, environment: "production", to_version: version, strategy, skip_approval: true };
    return (await this.rest("/deployments", body)).deployment;
  }

  /** Serves a version of a prompt to everybody. */
  serve(prompt, version) {
    return this.deploy(prompt, version, { type: "DEPLOYMENT_TYPE_IMMEDIATE" });
  }

  /** Begins to roll out a version: 30 % of the keys, one percent more each second. */
  rollOut(prompt, version) {
    const strategy = { type: "DEPLOYMENT_TYPE_GRADUAL", initial_percentage: 30, increment: 1, interval_seconds: 1 };
    return this.deploy(prompt, version, strategy);
  }

  async rollBack(deployment) {
    await this.rest(`/deployments/${deployment.id}/rollback`, { reason: "the test asks for it" });
  }

  /** The service's own answer: what ResolveVersion says. */
  version(prompt, key) {
    const query = new URLSearchParams({ targeting_key: key });
    return this.rest(`/environments/production/prompts/${prompt}/version?${query}`);
  }

  /** The percentage that the new version has now. */
  async percentage(prompt) {
    return (await this.rest(`/environments/production/prompts/${prompt}/traffic`)).traffic.candidate_percentage;
  }
}
