// The provider as published, in both of its modes: who gets the new version, and who hears of a change.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { FlagdProvider } from "@openfeature/flagd-provider";
import { OpenFeature, ProviderEvents } from "@openfeature/server-sdk";

import { start } from "./service.js";

const KEYS = Array.from({ length: 1000 }, (_, number) => `user-${number}`);
/** Slow enough that the rollout is underway for as long as it is looked at. */
const GRADUAL = { type: "DEPLOYMENT_TYPE_GRADUAL", initial_percentage: 30, increment: 1, interval_seconds: 1 };

let service;
before(async () => {
  service = await start();
});
after(async () => {
  await OpenFeature.close();
  await service?.stop();
});

/** Rolls out version 2 of a prompt of the test's own; the client is told of each change. */
async function rollOut(resolverType) {
  const prompt = `greeting-${resolverType}`;
  await service.deploy(prompt, 1, { type: "DEPLOYMENT_TYPE_IMMEDIATE" });
  const provider = new FlagdProvider({ host: "127.0.0.1", port: service.port, resolverType, deadlineMs: 10_000 });
  await OpenFeature.setProviderAndWait(resolverType, provider);
  const client = OpenFeature.getClient(resolverType);
  const changes = [];
  client.addHandler(ProviderEvents.ConfigurationChanged, ({ flagsChanged }) => changes.push(flagsChanged));
  const deployment = await service.deploy(prompt, 2, GRADUAL);
  const version = async (key) => {
    const details = await client.getNumberDetails(prompt, 0, { targetingKey: key });
    assert.equal(details.errorCode, undefined, details.errorMessage);
    return details;
  };
  await until(() => changes.flat().includes(prompt));
  return { prompt, client, changes, deployment, version };
}

async function until(holds) {
  for (let patience = 0; patience < 1000; patience++) {
    if (await holds()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.fail("what is waited for does not come");
}

async function rollsBack({ prompt, changes, deployment, version }, key) {
  const heard = changes.length;
  await service.rollBack(deployment);
  await until(async () => changes.slice(heard).flat().includes(prompt) && (await version(key)).value === 1);
  const details = await version(key);
  assert.equal(details.variant, "v1");
}

test("rpc: every key gets what ResolveVersion answers", async () => {
  const rollout = await rollOut("rpc");
  const served = { 1: [], 2: [] };
  for (const key of KEYS) {
    let ours, theirs;
    // Between two answers the rollout may have made a step.
    do {
      theirs = await rollout.version(key);
      ours = await service.resolve(rollout.prompt, key);
    } while (Number(ours.revision) !== theirs.flagMetadata.revision);
    assert.equal(theirs.value, ours.version, key);
    assert.equal(theirs.reason, "SPLIT");
    served[theirs.value].push(key);
  }
  assert.ok(served[2].length > 200 && served[1].length > 200, `${served[2].length} get the new version`);
  assert.equal((await rollout.client.getObjectValue(rollout.prompt, {})).prompt, rollout.prompt);
  assert.equal(await rollout.client.getStringValue(rollout.prompt, ""), "1");
  const wrong = await rollout.client.getBooleanDetails(rollout.prompt, true);
  assert.deepEqual([wrong.value, wrong.errorCode], [true, "TYPE_MISMATCH"]);
  const unknown = await rollout.client.getNumberDetails("unknown", 7);
  assert.deepEqual([unknown.value, unknown.errorCode], [7, "FLAG_NOT_FOUND"]);
  await rollsBack(rollout, served[2][0]);
});

// This provider's hash is of another generation than the service's: other keys, but as many, and
// who has the new version keeps it.
test("in-process: the new version's share, to the same keys, and growing", async () => {
  const rollout = await rollOut("in-process");
  const served = async () => {
    const keys = new Set();
    for (const key of KEYS) if ((await rollout.version(key)).value === 2) keys.add(key);
    return keys;
  };
  const low = await service.percentage(rollout.prompt);
  const early = await served();
  const high = await service.percentage(rollout.prompt);
  // Four standard deviations.
  const tolerance = 4 * Math.sqrt(0.25 / KEYS.length) * 100;
  const share = (early.size / KEYS.length) * 100;
  assert.ok(low - tolerance < share && share < high + tolerance, `${share} % at ${low} to ${high} %`);
  await until(async () => (await service.percentage(rollout.prompt)) >= high + 2);
  await until(async () => (await served()).size > early.size);
  const later = await served();
  assert.ok([...early].every((key) => later.has(key)));
  assert.equal(await rollout.client.getNumberValue(rollout.prompt, 0), 1, "no key, no risk");
  await rollsBack(rollout, [...early][0]);
});
