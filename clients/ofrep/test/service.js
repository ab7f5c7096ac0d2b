// The service itself, as a process of its own, and what the tests ask it over REST.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const BINARY = process.env.DELOS_BIN || fileURLToPath(new URL("../../../target/debug/delos-deploy", import.meta.url));

/** Longest wait for anything that a test expects to happen. */
export const WAIT_MS = 20_000;
const READY_WAIT_MS = 60_000;

/** Asks again until `condition` holds, at most `wait` milliseconds. */
export async function until(what, wait, condition) {
  const end = Date.now() + wait;
  while (!(await condition())) {
    assert.ok(Date.now() < end, `not within ${wait / 1000} s: ${what}`);
    await delay(20);
  }
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

export class Service {
  /** Starts the service with an empty storage, and waits until it is ready. */
  static async start() {
    const port = await freePort();
    const child = spawn(BINARY, [], {
      env: {
        PATH: process.env.PATH,
        DELOS_GRPC_PORT: String(port),
        DELOS_STORAGE_BACKEND: "memory",
        DELOS_TRACING_ENABLED: "false",
        DELOS_LOG_FORMAT: "text",
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const service = new Service(child, `http://127.0.0.1:${port}`);
    try {
      await until("the service is ready", READY_WAIT_MS, async () => {
        if (service.failure) throw service.failure;
        assert.equal(child.exitCode, null, `the service ended before it was ready:\n${service.log}`);
        const answer = await fetch(`${service.url}/readyz`).catch(() => undefined);
        return answer?.status === 200;
      });
    } catch (error) {
      await service.stop();
      throw error;
    }
    return service;
  }

  constructor(child, url) {
    this.child = child;
    this.url = url;
    this.log = "";
    child.stdout.on("data", (text) => (this.log += text));
    child.stderr.on("data", (text) => (this.log += text));
    child.on("error", (error) => (this.failure = error));
    // Also where the tests end without their teardown.
    this.kill = () => child.kill("SIGKILL");
    process.on("exit", this.kill);
  }

  async stop() {
    process.off("exit", this.kill);
    if (this.child.pid && this.child.exitCode === null && this.child.signalCode === null) {
      this.kill();
      await once(this.child, "exit");
    }
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

  /** Serves version 1 of a prompt to everybody. */
  async serve(prompt) {
    await this.#deploy(prompt, 1, { type: "DEPLOYMENT_TYPE_IMMEDIATE" });
  }

  /** Begins to roll out version 2: 30 % of the keys, one percent more each second. */
  async rollOut(prompt) {
    const strategy = { type: "DEPLOYMENT_TYPE_GRADUAL", initial_percentage: 30, increment: 1, interval_seconds: 1 };
    return this.#deploy(prompt, 2, strategy);
  }

  async #deploy(prompt, version, strategy) {
    const body = { prompt_id: prompt, environment: "production", to_version: version, strategy, skip_approval: true };
    return (await this.rest("/deployments", body)).deployment;
  }

  async rollBack(deployment) {
    await this.rest(`/deployments/${deployment.id}/rollback`, { reason: "the test asks for it" });
  }

  /** The service's own answer, over REST. */
  version(prompt, key) {
    const query = new URLSearchParams({ targeting_key: key });
    return this.rest(`/environments/production/prompts/${prompt}/version?${query}`);
  }
}
