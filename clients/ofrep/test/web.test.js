// OpenFeature's web SDK with its OFREP provider, as they are published, in a browser and across
// origins: it gets all flags at once, and hears of changes by Server-Sent Events.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";
import { chromium } from "playwright-core";

import { Service, WAIT_MS, until } from "../../shared/service.mjs";

const PROMPT = "greeting";
const KEYS = Array.from({ length: 1000 }, (_, number) => `user-${number}`);
/** How many keys the page is asked for at a time: few, so that a step of the rollout seldom comes between. */
const AT_A_TIME = 50;
const undo = [];
let service;
let page;

before(async () => {
  service = await Service.create();
  undo.push(() => service.remove());
  const origin = await servePage();
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"],
  });
  undo.push(() => browser.close());
  page = await browser.newPage();
  page.setDefaultTimeout(WAIT_MS);
  await page.goto(origin);
});

after(async () => {
  for (const step of undo.reverse()) await step();
});

async function servePage() {
  const bundle = await build({
    entryPoints: [fileURLToPath(new URL("../web/page.js", import.meta.url))],
    bundle: true,
    format: "esm",
    write: false,
  });
  const script = bundle.outputFiles[0].text;
  const server = createServer((request, response) => {
    if (request.url === "/page.js") {
      response.writeHead(200, { "content-type": "text/javascript" }).end(script);
    } else {
      response.writeHead(200, { "content-type": "text/html" }).end('<script type="module" src="page.js"></script>');
    }
  }).listen(0, "localhost");
  await once(server, "listening");
  undo.push(async () => {
    server.closeAllConnections();
    server.close();
  });
  return `http://localhost:${server.address().port}/`;
}

const details = () => page.evaluate((flag) => window.details(flag), PROMPT);

test("a page follows a rollout and its rollback without asking", { timeout: 6 * WAIT_MS }, async () => {
  await service.serve(PROMPT, 1);
  const faults = [];
  page.on("pageerror", (error) => faults.push(error));
  const refetches = [];
  page.on("response", (response) => {
    if (response.url().includes("flagConfigEtag")) refetches.push(response.status());
  });
  const context = { targetingKey: "user-1", preview: true };
  await page.evaluate(([url, context]) => window.start(url, context), [service.url, context]);
  assert.deepEqual([(await details()).value, (await details()).reason], [1, "STATIC"]);
  // The stream begins with an event, whose answer is that nothing has changed.
  await until("the stream has begun", () => refetches.length > 0);
  assert.equal(refetches[0], 304);

  const rollout = await service.rollOut(PROMPT, 2);
  await until("the page has version 2", async () => (await details()).value === 2);
  assert.equal((await details()).flagMetadata.arm, "preview");
  assert.ok(refetches.includes(200), `${refetches}`);

  for (let left = KEYS; left.length > 0; ) {
    const keys = left.slice(0, AT_A_TIME);
    const theirs = await page.evaluate(([flag, keys]) => window.detailsOf(flag, keys), [PROMPT, keys]);
    const ours = await Promise.all(keys.map((key) => service.version(PROMPT, key)));
    // Those between whose answers the rollout has made a step are asked again.
    const again = keys.filter((_, at) => theirs[at].flagMetadata.revision !== Number(ours[at].revision));
    keys.forEach((key, at) => {
      if (!again.includes(key)) assert.equal(theirs[at].value, ours[at].version, key);
    });
    left = [...again, ...left.slice(AT_A_TIME)];
  }
  await page.evaluate((context) => window.setContext(context), context);
  assert.equal((await details()).value, 2);

  await service.rollBack(rollout);
  await until("the page has version 1 again", async () => (await details()).value === 1);
  const changes = await page.evaluate(() => window.changes.splice(0));
  assert.ok(changes.length >= 2 && changes.flat().includes(PROMPT), JSON.stringify(changes));

  // The browser opens the stream anew by itself. It begins with an event, so that the page is told
  // of a change that was made before.
  for (const [signal, old, next] of [
    ["SIGTERM", 1, 3],
    ["SIGKILL", 3, 4],
  ]) {
    const heard = changes.length;
    await service.stop(signal);
    assert.equal((await details()).value, old, "it serves on what it has");
    await service.start();
    await service.serve(PROMPT, next);
    await until(`the page has version ${next}`, async () => (await details()).value === next);
    changes.push(...(await page.evaluate(() => window.changes.splice(0))));
    assert.ok(changes.slice(heard).flat().includes(PROMPT), JSON.stringify(changes));
  }
  assert.deepEqual(faults, []);
});
