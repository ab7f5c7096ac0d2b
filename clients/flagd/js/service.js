// The service under test, as a process of its own, and its REST API.

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const BINARY =
  process.env.DELOS_BIN ?? fileURLToPath(new URL("../../../target/debug/delos-deploy", import.meta.url));

/** Starts the service on a free port with storage in memory; `stop` ends it. */
export async function start() {
  const env = { PATH: process.env.PATH, DELOS_GRPC_PORT: "0", DELOS_TRACING_ENABLED: "false", DELOS_DRAIN_SECONDS: "0" };
  const child = spawn(BINARY, { env, stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise((resolve) => child.once("close", resolve));
  const lines = createInterface({ input: child.stdout });
  const address = await new Promise((resolve, reject) => {
    child.once("error", reject);
    ended.then((code) => reject(new Error(`the service ended with ${code}`)));
    lines.on("line", (line) => {
      const { message, address } = JSON.parse(line);
      if (message === "serving") resolve(address);
    });
  });
  const port = Number(address.split(":").at(-1));
  const call = async (method, path, body) => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, {
      method,
      headers: body ? { "content-type": "application/json" } : {},
      body: body && JSON.stringify(body),
    });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return response.json();
  };
  return {
    port,
    /** Creates a deployment that begins at once. */
    async deploy(prompt, version, strategy) {
      const body = { prompt_id: prompt, environment: "production", to_version: version, strategy, skip_approval: true };
      return (await call("POST", "/v1/deployments", body)).deployment;
    },
    rollBack: (deployment) => call("POST", `/v1/deployments/${deployment.id}/rollback`),
    /** What ResolveVersion answers. */
    resolve: (prompt, key) =>
      call("GET", `/v1/environments/production/prompts/${prompt}/version?targeting_key=${encodeURIComponent(key)}`),
    /** The percentage that the new version has now. */
    async percentage(prompt) {
      const split = await call("GET", `/v1/environments/production/prompts/${prompt}/traffic`);
      return split.traffic.candidate_percentage;
    },
    async stop() {
      child.kill("SIGTERM");
      await ended;
    },
  };
}
