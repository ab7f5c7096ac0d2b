// What the tests stand on: the service itself, the pages on an origin of their own, a browser.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { access, mkdir } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

import { serve } from "../serve.js";

const BINARY = process.env.DELOS_BIN ?? fileURLToPath(new URL("../../target/debug/delos-deploy", import.meta.url));
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** Longest wait for anything that a test expects to happen. */
export const WAIT_MS = 20_000;
const READY_WAIT_MS = 60_000;

/** Starts all three. `stop` ends whatever was started, and is safe to call at any time. */
export function stage() {
  const undo = [];
  const stage = { api: "", pages: "", browser: undefined, start, stop };

  async function start() {
    try {
      const service = await startService();
      undo.push(service.stop);
      stage.api = service.url;

      const server = await serve(0);
      undo.push(async () => {
        server.closeAllConnections();
        server.close();
      });
      stage.pages = `http://localhost:${server.address().port}`;

      stage.browser = await chromium.launch({
        executablePath: CHROMIUM,
        headless: true,
        args: [
          "--headless=new",
          "--no-sandbox",
          "--disable-gpu",
          "--disable-quic",
          "--no-first-run",
          "--disable-background-networking",
          "--disable-component-update",
          "--disable-sync",
        ],
      });
      undo.push(() => stage.browser.close());
    } catch (error) {
      await stop();
      throw error;
    }
  }

  async function stop() {
    for (const step of undo.splice(0).reverse()) await step();
  }

  return stage;
}

async function startService() {
  await access(BINARY).catch(() => assert.fail(`no service to test at ${BINARY}; build it or set DELOS_BIN`));
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
  let log = "";
  child.stdout.on("data", (text) => (log += text));
  child.stderr.on("data", (text) => (log += text));
  let failure;
  child.on("error", (error) => (failure = error));

  // Also where the tests end without their teardown.
  const kill = () => child.kill("SIGKILL");
  const leave = () => process.exit(1);
  process.on("exit", kill);
  process.on("SIGINT", leave).on("SIGTERM", leave);

  const stop = async () => {
    if (child.pid && child.exitCode === null && child.signalCode === null) {
      kill();
      await once(child, "exit");
    }
    process.off("exit", kill).off("SIGINT", leave).off("SIGTERM", leave);
  };

  const url = `http://127.0.0.1:${port}`;
  try {
    await until("the service is ready", READY_WAIT_MS, async () => {
      if (failure) throw failure;
      assert.equal(child.exitCode, null, `the service ended before it was ready:\n${log}`);
      const answer = await fetch(`${url}/readyz`).catch(() => undefined);
      return answer?.status === 200;
    });
  } catch (error) {
    await stop();
    error.message += `\n${log}`;
    throw error;
  }
  return { url, stop };
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** Asks again until `condition` holds, at most `wait` milliseconds. */
export async function until(what, wait, condition) {
  const end = Date.now() + wait;
  while (!(await condition())) {
    assert.ok(Date.now() < end, `not within ${wait / 1000} s: ${what}`);
    await delay(50);
  }
}

/** A port at which nothing listens. */
export async function silentUrl() {
  return `http://127.0.0.1:${await freePort()}`;
}

/** One of the example pages, open in a browser, with the words of its user. */
export class Page {
  constructor(page) {
    this.page = page;
    this.faults = [];
    page.on("pageerror", (error) => this.faults.push(error));
    page.setDefaultTimeout(WAIT_MS);
  }

  /** Opens page `name` ("rest", "grpc-web") against the service at `api`. */
  static async open(stage, name, api = stage.api) {
    const context = await stage.browser.newContext({ viewport: { width: 1000, height: 760 } });
    const page = new Page(await context.newPage());
    await page.page.goto(`${stage.pages}/${name}/?api=${encodeURIComponent(api)}`);
    return page;
  }

  async fill(fields) {
    for (const [label, value] of Object.entries(fields)) {
      await this.page.getByLabel(label, { exact: true }).fill(String(value));
    }
  }

  /** Presses a button as soon as it can be pressed. */
  async press(name) {
    await this.page.getByRole("button", { name, exact: true }).click();
  }

  /** Waits until the page shows `status`, the bar at `percentage`, and the sentence that says why. */
  async shows(status, percentage, sentence = /./) {
    const bar = this.page.getByRole("progressbar");
    let seen;
    await until(`${status} at ${percentage} %`, WAIT_MS, async () => {
      if ((await bar.count()) === 0) return false;
      seen = {
        status: (await this.page.locator("#status").textContent()).toUpperCase(),
        percentage: await bar.evaluate((bar) => bar.value),
        label: await this.page.locator("#percentage").textContent(),
        sentence: await this.page.locator("#message").textContent(),
      };
      return (
        seen.status === status &&
        seen.percentage === percentage &&
        seen.label === `${percentage} %` &&
        sentence.test(seen.sentence)
      );
    }).catch(async (error) => {
      error.message += `; the page shows ${JSON.stringify(seen)}, its error ${JSON.stringify(await this.errorShown())}`;
      throw error;
    });
  }

  /** Records the values of the bar from now on; returns the way to read them. */
  async recordBar() {
    await this.page.evaluate(() => {
      const bar = document.querySelector("progress");
      window.seen = [];
      new MutationObserver(() => window.seen.push(bar.value)).observe(bar, { attributeFilter: ["value"] });
    });
    return () => this.page.evaluate(() => window.seen);
  }

  async errorShown() {
    const alert = this.page.getByRole("alert");
    return (await alert.isVisible()) ? alert.innerText() : "";
  }

  /** Waits for an error to be shown and returns its text. */
  async error() {
    await this.page.getByRole("alert").waitFor();
    return this.errorShown();
  }

  /** The id of the deployment that is shown. */
  id() {
    return this.page.locator("#id").textContent();
  }

  /** Keeps a picture in the folder $SCREENSHOTS, where that is set. */
  async picture(name) {
    const folder = process.env.SCREENSHOTS;
    if (!folder) return;
    await mkdir(folder, { recursive: true });
    await this.page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
  }

  async close() {
    await this.page.context().close();
    assert.deepEqual(this.faults, [], "the page has thrown");
  }
}
