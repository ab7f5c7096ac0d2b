// The provider as published, in both of its modes: who gets the new version, who hears of a change,
// and who serves on when the service is stopped and started again.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { FlagdProvider } from "@openfeature/flagd-provider";
import { OpenFeature, ProviderEvents } from "@openfeature/server-sdk";

import { Service, until } from "../../shared/service.mjs";

const KEYS = Array.from({ length: 1000 }, (_, number) => `user-${number}`);

let service;
before(async () => {
  service = await Service.create();
});
after(async () => {
  await OpenFeature.close();
  await service?.remove();
});

/** Rolls out version 2 of a prompt of the test's own; the client is told of each change. */
async function rollOut(resolverType, prompt) {
  await service.serve(prompt, 1);
  const options = { host: "127.0.0.1", port: service.port, resolverType, deadlineMs: 10_000, retryBackoffMaxMs: 200 };
  await OpenFeature.setProviderAndWait(prompt, new FlagdProvider(options));
  const client = OpenFeature.getClient(prompt);
  const changes = [];
  client.addHandler(ProviderEvents.ConfigurationChanged, ({ flagsChanged }) => changes.push(flagsChanged));
  const deployment = await service.rollOut(prompt, 2);
  const version = async (key) => {
    const details = await client.getNumberDetails(prompt, 0, { targetingKey: key });
    assert.equal(details.errorCode, undefined, details.errorMessage);
    return details;
  };
  await until("the client hears of the rollout", () => changes.flat().includes(prompt));
  return { prompt, client, changes, deployment, version };
}

/** Makes a change, which the client is to hear of and to serve. */
async function changes({ prompt, changes, version }, key, expected, change) {
  const heard = changes.length;
  await change();
  await until("the client hears of the change", () => changes.slice(heard).flat().includes(prompt));
  await until("the client serves the change", async () => (await version(key)).value === expected);
  assert.equal((await version(key)).variant, `v${expected}`);
}

const rollsBack = (rollout, key) => changes(rollout, key, 1, () => service.rollBack(rollout.deployment));

/** What the client and the service say of a key, of one and the same split. */
async function both(rollout, key) {
  for (;;) {
    const theirs = await rollout.version(key);
    const ours = await service.version(rollout.prompt, key);
    // Between two answers the rollout may have made a step.
    if (Number(ours.revision) === theirs.flagMetadata.revision) return { theirs, ours };
  }
}

test("rpc: every key gets what ResolveVersion answers", async () => {
  const rollout = await rollOut("rpc", "greeting-rpc");
  const served = { 1: [], 2: [] };
  for (const key of KEYS) {
    const { theirs, ours } = await both(rollout, key);
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
  const rollout = await rollOut("in-process", "greeting-in-process");
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
  await until("the share grows", async () => (await service.percentage(rollout.prompt)) >= high + 2);
  await until("the client follows", async () => (await served()).size > early.size);
  const later = await served();
  assert.ok([...early].every((key) => later.has(key)));
  assert.equal(await rollout.client.getNumberValue(rollout.prompt, 0), 1, "no key, no risk");
  await rollsBack(rollout, [...early][0]);
});

for (const mode of ["rpc", "in-process"]) {
  test(`${mode}: the service is stopped, started again, and changes`, async () => {
    const rollout = await rollOut(mode, `restarted-${mode}`);
    const { prompt, client, version } = rollout;
    const early = [];
    for (const key of KEYS.slice(0, 100)) if ((await version(key)).value === 2) early.push(key);
    const value = () => client.getNumberValue(prompt, 0, { targetingKey: early[0] });
    let connected = 0;
    client.addHandler(ProviderEvents.Ready, () => connected++);

    await service.stop("SIGTERM");
    assert.equal(await value(), mode === "rpc" ? 0 : 2, "rpc: the default; in-process: what it has");
    const before = connected;
    await service.start();
    await until("the client has connected again", () => connected > before);
    for (const key of early) assert.equal((await version(key)).value, 2, key);
    await rollsBack(rollout, early[0]);

    // A value that the client has kept is not served on, although nothing tells of this change: the
    // client has let go of it when the stream broke off.
    await version(early[0]);
    assert.equal((await version(early[0])).reason, mode === "rpc" ? "CACHED" : "STATIC");
    await service.stop("SIGKILL");
    await service.start();
    await service.serve(prompt, 3);
    await until("the client serves version 3", async () => (await value()) === 3);
  });
}
