// OpenFeature's server SDK with its OFREP provider, as they are published. It asks anew with each
// evaluation and has no change events: what it answers is how a change shows.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { OFREPProvider } from "@openfeature/ofrep-provider";
import { ErrorCode, OpenFeature } from "@openfeature/server-sdk";

import { Service, WAIT_MS } from "../../shared/service.mjs";

const PROMPT = "greeting";
const KEYS = Array.from({ length: 1000 }, (_, number) => `user-${number}`);
/** How many keys are asked for at a time. */
const AT_A_TIME = 20;

let service;
let client;

before(async () => {
  service = await Service.create();
  await OpenFeature.setProviderAndWait(new OFREPProvider({ baseUrl: service.url }));
  client = OpenFeature.getClient();
});

after(async () => {
  await OpenFeature.close();
  await service?.remove();
});

/** What the SDK and the service say of a key, of one and the same split. */
async function both(targetingKey) {
  for (let attempt = 0; attempt < 10; attempt++) {
    const ours = await client.getNumberDetails(PROMPT, 0, { targetingKey, plan: "pro" });
    const theirs = await service.version(PROMPT, targetingKey);
    // A step of the rollout may have come between.
    if (ours.flagMetadata.revision === Number(theirs.revision)) return { ours, theirs };
  }
  assert.fail(`${targetingKey}: the split changes too fast`);
}

/** Calls `ask` with every key, some at a time. */
async function each(keys, ask) {
  const left = [...keys];
  const worker = async () => {
    while (left.length > 0) await ask(left.pop());
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, worker));
}

test("a version is a number that the SDK agrees on with the service", { timeout: 6 * WAIT_MS }, async () => {
  await service.serve(PROMPT, 1);
  const alone = await client.getNumberDetails(PROMPT, 0, { targetingKey: "user-1" });
  assert.deepEqual([alone.value, alone.variant, alone.reason], [1, "v1", "STATIC"]);

  const rollout = await service.rollOut(PROMPT, 2);
  const early = [];
  await each(KEYS, async (key) => {
    const { ours, theirs } = await both(key);
    assert.equal(ours.value, theirs.version, key);
    assert.equal(ours.variant, `v${theirs.version}`);
    assert.equal(ours.reason, "SPLIT");
    assert.equal(ours.flagMetadata.deploymentId, theirs.deployment_id);
    assert.equal(ours.flagMetadata.environment, "production");
    assert.equal(ours.flagMetadata.promptId, PROMPT);
    assert.equal(ours.flagMetadata.arm, theirs.version === 2 ? "candidate" : "stable");
    if (ours.value === 2) early.push(key);
  });
  // 30 % or more, less four standard deviations.
  assert.ok(early.length > 240 && early.length < 1000, `${early.length} keys have version 2`);
  const serves = (version) =>
    each(early, async (key) => {
      assert.equal(await client.getNumberValue(PROMPT, 0, { targetingKey: key }), version, key);
    });
  await serves(2);

  assert.equal(await client.getNumberValue(PROMPT, 0), 1, "without a key, the stable version");
  const preview = await client.getNumberDetails(PROMPT, 0, { preview: true });
  assert.deepEqual([preview.value, preview.flagMetadata.arm], [2, "preview"]);

  await service.rollBack(rollout);
  await serves(1);
});

test("what can't be evaluated is the caller's default, with the reason why", async () => {
  const unknown = await client.getNumberDetails("farewell", 7, { targetingKey: "user-1" });
  assert.deepEqual([unknown.value, unknown.errorCode], [7, ErrorCode.FLAG_NOT_FOUND]);
  const slash = await client.getNumberDetails("prompt/greeting v1", 7);
  assert.deepEqual([slash.value, slash.errorCode], [7, ErrorCode.FLAG_NOT_FOUND]);
  const context = await client.getNumberDetails(PROMPT, 7, { environment: "no name" });
  assert.deepEqual([context.value, context.errorCode], [7, ErrorCode.INVALID_CONTEXT]);
  const type = await client.getStringDetails(PROMPT, "none", { targetingKey: "user-1" });
  assert.deepEqual([type.value, type.errorCode], ["none", ErrorCode.TYPE_MISMATCH]);
});

test("the environment is of the base path", async () => {
  const domain = "staging";
  const baseUrl = `${service.url}/environments/staging`;
  await OpenFeature.setProviderAndWait(domain, new OFREPProvider({ baseUrl }));
  const staging = await OpenFeature.getClient(domain).getNumberDetails(PROMPT, 7, { targetingKey: "user-1" });
  assert.deepEqual([staging.value, staging.errorCode], [7, ErrorCode.FLAG_NOT_FOUND]);
});

test("the service is stopped, started again, and changes", { timeout: 6 * WAIT_MS }, async () => {
  const prompt = "restarted";
  const value = (key) => client.getNumberValue(prompt, 0, { targetingKey: key });
  await service.serve(prompt, 1);
  const rollout = await service.rollOut(prompt, 2);
  const early = [];
  await each(KEYS.slice(0, 100), async (key) => {
    if ((await value(key)) === 2) early.push(key);
  });
  assert.ok(early.length > 0);

  await service.stop("SIGTERM");
  assert.equal(await value(early[0]), 0, "nobody answers: the default");
  await service.start();
  await each(early, async (key) => assert.equal(await value(key), 2, key));
  await service.rollBack(rollout);
  await each(early, async (key) => assert.equal(await value(key), 1, key));

  await service.stop("SIGKILL");
  await service.start();
  assert.equal(await value(early[0]), 1);
  await service.serve(prompt, 3);
  assert.equal(await value(early[0]), 3);
});
