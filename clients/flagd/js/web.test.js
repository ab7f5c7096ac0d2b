// The provider of browsers as published. It speaks the Connect protocol, which Node can speak too.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { FlagdWebProvider } from "@openfeature/flagd-web-provider";
import { OpenFeature, ProviderEvents } from "@openfeature/web-sdk";

import { Service, until } from "../../shared/service.mjs";

let service;
before(async () => {
  service = await Service.create();
});
after(async () => {
  await OpenFeature.close();
  await service?.remove();
});

test("web: the user of the page gets what ResolveVersion answers, and hears of a change", async () => {
  await service.serve("greeting", 1);
  const canary = { type: "DEPLOYMENT_TYPE_CANARY", initial_percentage: 50, interval_seconds: 600 };
  const deployment = await service.deploy("greeting", 2, canary);
  const options = { host: "127.0.0.1", port: service.port, tls: false, maxDelay: 100 };
  const provider = new FlagdWebProvider(options);
  await OpenFeature.setContext({ targetingKey: "user-0" });
  await OpenFeature.setProviderAndWait(provider);
  const client = OpenFeature.getClient();
  const served = new Map();
  for (let number = 0; number < 1000; number++) {
    const key = `user-${number}`;
    await OpenFeature.setContext({ targetingKey: key });
    const theirs = client.getNumberDetails("greeting", 0);
    assert.deepEqual([theirs.value, theirs.reason], [(await service.version("greeting", key)).version, "SPLIT"], key);
    served.set(theirs.value, key);
  }
  assert.deepEqual([...served.keys()].sort(), [1, 2]);

  await OpenFeature.setContext({ targetingKey: served.get(2) });
  assert.equal(client.getNumberValue("greeting", 0), 2);
  const heard = new Promise((resolve) => client.addHandler(ProviderEvents.ConfigurationChanged, resolve));
  await service.rollBack(deployment);
  await heard;
  const details = client.getNumberDetails("greeting", 0);
  assert.deepEqual([details.value, details.reason], [1, "STATIC"]);

  for (const [signal, old, next] of [
    ["SIGTERM", 1, 3],
    ["SIGKILL", 3, 4],
  ]) {
    await service.stop(signal);
    assert.equal(client.getNumberValue("greeting", 0), old, "it serves on what it has");
    await service.start();
    await service.serve("greeting", next);
    await until(`the page has version ${next}`, () => client.getNumberValue("greeting", 0) === next);
  }
});
