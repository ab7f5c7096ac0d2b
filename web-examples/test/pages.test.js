// Both pages do the same over two protocols, so both are held to the same tests, in a browser,
// against the service itself and across origins.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import { Page, WAIT_MS, silentUrl, stage, until } from "./harness.js";

const theatre = stage();

before(() => theatre.start());
after(() => theatre.stop());

/** What the service says over REST, asked from outside the browser. */
async function rest(path, body) {
  const response = await fetch(`${theatre.api}/v1${path}`, {
    method: body ? "POST" : "GET",
    headers: { "content-type": "application/json" },
    body: body && JSON.stringify(body),
  });
  const answer = await response.json();
  assert.ok(response.ok, `${path}: ${JSON.stringify(answer)}`);
  return answer;
}

for (const name of ["grpc-web", "rest"]) {
  describe(name, { timeout: 6 * WAIT_MS }, () => {
    const open = (t, api) =>
      Page.open(theatre, name, api).then((page) => {
        t.after(() => page.close());
        return page;
      });

    test("a rollout moves the bar step by step until it is rolled back", async (t) => {
      const page = await open(t);
      const prompt = `${name}-roll-back`;
      await page.fill({ "Your name": "Zoë", Prompt: prompt, Version: 1 });
      await page.press("Serve version 1 at once");
      await page.shows("COMPLETED", 100);
      const first = await page.id();

      await page.fill({ Version: 2, "Each further step, %": 40, "Seconds between steps": 1 });
      const seen = await page.recordBar();
      await page.press("Roll out version 2 step by step");
      await until("the bar moved twice", WAIT_MS, async () => (await seen()).length >= 2);
      const id = await page.id();
      assert.notEqual(id, first);
      await page.picture(`${name}-rollout`);
      await page.press("Roll back");
      await page.shows("ROLLED BACK", 0, /rolled back on the example page/);
      await page.picture(`${name}-rolled-back`);

      const steps = await seen();
      assert.equal(steps.at(-1), 0);
      const upwards = steps.slice(0, -1);
      assert.deepEqual(upwards, [10, 50, 90, 100].filter((step) => upwards.includes(step)), `the bar went ${steps}`);

      const { deployment } = await rest(`/deployments/${id}`);
      assert.equal(deployment.status, "DEPLOYMENT_STATUS_ROLLED_BACK");
      assert.equal(deployment.created_by, "Zoë");
      assert.deepEqual([deployment.from_version, deployment.to_version], [1, 2]);
      const { type, initial_percentage, increment, interval_seconds } = deployment.strategy;
      assert.deepEqual([type, initial_percentage, increment, interval_seconds], ["DEPLOYMENT_TYPE_GRADUAL", 10, 40, 1]);

      const { deployments } = await rest(`/deployments?prompt_id=${prompt}&environment=production`);
      assert.equal(deployments.length, 3);
      const reverse = deployments.find(({ metadata }) => metadata.rollback_from === id);
      assert.ok(reverse, "no deployment records the way back");
      assert.equal(reverse.status, "DEPLOYMENT_STATUS_COMPLETED");
      assert.deepEqual([reverse.from_version, reverse.to_version], [2, 1]);
      await page.page.getByText(`Deployment ${reverse.id} restored version 1.`).waitFor();
    });

    test("a rollout completes, and the page sees it rolled back by somebody else", async (t) => {
      const page = await open(t);
      await page.fill({ Prompt: `${name}-complete`, Version: 1 });
      await page.press("Serve version 1 at once");
      await page.shows("COMPLETED", 100);

      await page.fill({ Version: 2, "Each further step, %": 90, "Seconds between steps": 1 });
      await page.press("Roll out version 2 step by step");
      await page.shows("IN PROGRESS", 10);
      assert.match(await page.page.locator("#next").textContent(), /:\d\d.*\((in 1 s|due)\)/);
      await page.shows("COMPLETED", 100);
      assert.equal(await page.page.locator("#next").textContent(), "none");
      await page.picture(`${name}-completed`);

      // What others write is text, whatever it looks like.
      const reason = "<img src=x onerror=alert(1)> was worse";
      await rest(`/deployments/${await page.id()}/rollback`, { reason });
      await page.shows("ROLLED BACK", 0, /<img src=x onerror=alert\(1\)> was worse/);
      assert.equal(await page.page.locator("main img").count(), 0);
      assert.ok(await page.page.getByRole("button", { name: "Roll back" }).isDisabled());
    });

    test("a rollout can be cancelled", async (t) => {
      const page = await open(t);
      await page.fill({ Prompt: `${name}-cancel`, Version: 1 });
      await page.press("Serve version 1 at once");
      await page.shows("COMPLETED", 100);
      assert.ok(await page.page.getByRole("button", { name: "Cancel" }).isDisabled());

      await page.fill({ Version: 2, "Seconds between steps": 60 });
      await page.press("Roll out version 2 step by step");
      await page.shows("IN PROGRESS", 10);
      await page.press("Cancel");
      await page.shows("CANCELLED", 0, /cancelled on the example page/);
      const { deployment } = await rest(`/deployments/${await page.id()}`);
      assert.equal(deployment.status, "DEPLOYMENT_STATUS_CANCELLED");
    });

    test("a request that is wrong is answered with each wrong field", async (t) => {
      const page = await open(t);
      await page.fill({ "Your name": "system", Version: 1 });
      await page.press("Serve version 1 at once");
      assert.match(await page.error(), /x-delos-actor .*'system'/);

      await page.fill({ "Your name": "", Version: 0, "Each further step, %": 101 });
      await page.press("Roll out version 0 step by step");
      await page.page.getByText("to_version").waitFor();
      const error = await page.error();
      await page.picture(`${name}-error`);
      for (const field of ["to_version", "strategy.increment"]) {
        assert.match(error, new RegExp(`^${field} (?!undefined).+$`, "m"));
      }
      for (const label of ["Version", "Each further step, %"]) {
        const invalid = await page.page.getByLabel(label, { exact: true }).getAttribute("aria-invalid");
        assert.equal(invalid, "true", label);
      }
      for (const label of ["Your name", "Prompt"]) {
        const invalid = await page.page.getByLabel(label, { exact: true }).getAttribute("aria-invalid");
        assert.equal(invalid, null, label);
      }

      // The next attempt begins with a clean page.
      await page.fill({ Prompt: `${name}-second-try`, Version: 1 });
      await page.press("Serve version 1 at once");
      await page.shows("COMPLETED", 100);
      assert.equal(await page.errorShown(), "");
    });

    test("a number that the protocol can't carry is not sent", async (t) => {
      const page = await open(t);
      await page.fill({ Version: "1.5" });
      await page.press("Serve version 1.5 at once");
      assert.match(await page.error(), /to_version is 1\.5/);
    });

    test("a refusal is shown with its reason", async (t) => {
      const page = await open(t);
      const prompt = `${name}-refusal`;
      await page.fill({ Prompt: prompt, Version: 1 });
      await page.press("Serve version 1 at once");
      await page.shows("COMPLETED", 100);
      await rest("/deployments", { prompt_id: prompt, environment: "production", to_version: 2, skip_approval: true });

      // Version 1 is not what is served any more.
      await page.press("Roll back");
      const error = await page.error();
      assert.match(error, /version 2/);
      assert.match(error, /^DEPLOYMENT_[A-Z_]+ · \S+$/m);
      await page.shows("COMPLETED", 100);
    });

    test("a service that does not answer is named", async (t) => {
      const api = await silentUrl();
      const page = await open(t, api);
      await page.press("Serve version 1 at once");
      assert.match(await page.error(), new RegExp(`Nothing answers at ${api}`));
    });
  });
}
