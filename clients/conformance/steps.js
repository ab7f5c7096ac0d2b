// What the steps of the testbed's features mean here.

import assert from "node:assert/strict";

import { After, AfterAll, BeforeAll, Given, Then, When, setDefaultTimeout, setWorldConstructor } from "@cucumber/cucumber";

import { Launchpad } from "./launchpad.js";

/** Longer than any provider takes to find the service again. */
const PATIENCE = 30_000;
setDefaultTimeout(2 * PATIENCE);

/**
 * The scenarios take the connection away for one second, which is not to be an error, and for eight,
 * which is. It is tried again before the one second is over: not until then does the provider of
 * Python see that it is lost.
 */
const OPTIONS = { deadlineMs: 5000, retryBackoffMs: 500, retryBackoffMaxMs: 500, retryGracePeriod: 5 };

/** The sources of the testbed's flag sets, as selectors by the id that is within them. */
const SELECTORS = { "rawflags/selector-flags.json": "flagSetId=selector-set" };

const VALUES = {
  Boolean: (text) => text === "true",
  String: (text) => text,
  Integer: Number,
  Float: Number,
  CacheType: (text) => text,
};

function selector(source) {
  return SELECTORS[source] ?? assert.fail(`there is no flag set of ${source}`);
}

const launchpad = new Launchpad();
let client;

BeforeAll(async function () {
  const { language, mode } = this.parameters;
  if (language === "python") {
    const { Python } = await import("./python.js");
    client = new Python(mode);
  } else {
    const { Evaluator, Provider } = await import("./javascript.js");
    client = mode === "evaluator" ? new Evaluator() : new Provider(mode);
  }
});

AfterAll(async () => {
  client.end();
  await launchpad.close();
});

class Scenario {
  options = { ...OPTIONS };
  context = {};
  /** What has been heard, in order, and how much of it the steps have been through. */
  heard = [];
  seen = 0;

  /** The next event of that kind, after those that steps have been through. */
  async next(event, patience = PATIENCE) {
    const end = Date.now() + patience;
    for (;;) {
      const at = this.heard.findIndex((heard, at) => at >= this.seen && heard.event === event);
      if (at >= 0) {
        this.seen = at + 1;
        return this.heard[at];
      }
      const rest = end - Date.now();
      assert.ok(rest > 0, `no ${event} event within ${patience} ms, but ${this.heard.map(({ event }) => event)}`);
      await new Promise((resolve) => {
        this.wake = resolve;
        setTimeout(resolve, rest);
      });
    }
  }
}
setWorldConstructor(Scenario);

After(async () => {
  await client.close();
});

Given("an option {string} of type {string} with value {string}", function (name, type, value) {
  this.options[name] = name === "selector" ? selector(value) : VALUES[type](value);
});

Given(/^(?:a stable flagd provider|an evaluator)$/, async function () {
  await launchpad.start();
  await client.open(launchpad.port, this.options, true);
});

Given("a unavailable flagd provider", async function () {
  await launchpad.start();
  await launchpad.stop();
  await client.open(launchpad.port, this.options, false);
});

Given(/^a (\w+)-flag with key "(.*)" and a (?:default|fallback) value "(.*)"$/, function (type, key, fallback) {
  this.flag = { type, key, fallback: VALUES[type](fallback) };
});

Given("a context containing a key {string}, with type {string} and with value {string}", function (key, type, value) {
  this.context[key] = VALUES[type](value);
});

Given(/^a (ready|error|stale|change) event handler$/, async function (event) {
  await client.listen(event, (event, flags) => {
    this.heard.push({ event, flags });
    this.wake?.();
  });
});

When("the flag was evaluated with details", async function () {
  const { type, key, fallback } = this.flag;
  this.details = await client.evaluate(type, key, fallback, this.context);
});

When("the flag was modified", async () => {
  await launchpad.change();
});

When("the connection is lost for {int}s", async (seconds) => {
  await launchpad.restart(seconds);
});

When(/^a (ready|error|stale|change) event was fired$/, async function (event) {
  this.event = await this.next(event);
});

Then(/^the (ready|error|stale) event handler should have been executed$/, async function (event) {
  await this.next(event);
});

Then(/^the (ready|error|stale) event handler should have been executed within (\d+)ms$/, async function (event, patience) {
  await this.next(event, Number(patience));
});

Then(/^the (ready|error|stale) event handler should not have been executed$/, function (event) {
  assert.ok(!this.heard.some((heard) => heard.event === event));
});

Then("the flag should be part of the event payload", function () {
  assert.ok(this.event.flags.includes(this.flag.key), String(this.event.flags));
});

Then("the resolved details value should be {string}", function (value) {
  assert.equal(this.details.value, VALUES[this.flag.type](value));
});

Then("the reason should be {string}", function (reason) {
  assert.equal(this.details.reason, reason);
});

Then("the error-code should be {string}", function (code) {
  assert.equal(this.details.errorCode ?? "", code);
});
