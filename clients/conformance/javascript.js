// The clients of JavaScript, as published: flagd's provider in OpenFeature's SDK, and the evaluator alone.

import { fileURLToPath } from "node:url";

import { credentials, loadPackageDefinition } from "@grpc/grpc-js";
import { load } from "@grpc/proto-loader";
import { FlagdCore } from "@openfeature/flagd-core";
import { FlagdProvider } from "@openfeature/flagd-provider";
import { OpenFeature, ProviderEvents } from "@openfeature/server-sdk";

const EVENTS = {
  ready: ProviderEvents.Ready,
  stale: ProviderEvents.Stale,
  error: ProviderEvents.Error,
  change: ProviderEvents.ConfigurationChanged,
};
const KINDS = { Boolean: "Boolean", String: "String", Integer: "Number", Float: "Number", Object: "Object" };
const PROTO = fileURLToPath(new URL("../../proto", import.meta.url));

/** The provider, in the mode `rpc` or `in-process`. */
export class Provider {
  #mode;
  #opened = 0;
  #client;
  #handlers = [];

  constructor(mode) {
    this.#mode = mode;
  }

  /** Connects; waits until it is ready where it is `available`. */
  async open(port, options, available) {
    // One that is closed while it has no connection tries on, and tells what it hears: to its own domain.
    const domain = String((this.#opened += 1));
    this.#client = OpenFeature.getClient(domain);
    const provider = new FlagdProvider({ host: "127.0.0.1", port, resolverType: this.#mode, ...options });
    if (!available) {
      OpenFeature.setProvider(domain, provider);
      return;
    }
    const told = this.#mode === "rpc" && this.#toldOfAll();
    await OpenFeature.setProviderAndWait(domain, provider);
    await told;
  }

  /** A stream of events begins with all flags, as if each had changed; that is none of a scenario's changes. */
  #toldOfAll() {
    return new Promise((resolve) => {
      const handler = () => {
        this.#client.removeHandler(EVENTS.change, handler);
        resolve();
      };
      this.#client.addHandler(EVENTS.change, handler);
    });
  }

  listen(event, heard) {
    const handler = (details) => heard(event, details?.flagsChanged ?? []);
    this.#handlers.push([EVENTS[event], handler]);
    this.#client.addHandler(EVENTS[event], handler);
  }

  evaluate(type, key, fallback, context) {
    return this.#client[`get${KINDS[type]}Details`](key, fallback, context);
  }

  async close() {
    for (const [event, handler] of this.#handlers.splice(0)) this.#client.removeHandler(event, handler);
    await OpenFeature.clearProviders();
  }

  end() {}
}

/** The evaluator within the provider, with the configuration that the service gives when asked for it. */
export class Evaluator {
  #core;

  async open(port) {
    const definition = await load("flagd/sync/v1/sync.proto", { includeDirs: [PROTO] });
    const { FlagSyncService } = loadPackageDefinition(definition).flagd.sync.v1;
    const service = new FlagSyncService(`127.0.0.1:${port}`, credentials.createInsecure());
    const deadline = Date.now() + 10_000;
    const { flagConfiguration } = await new Promise((resolve, reject) => {
      service.FetchAllFlags({}, { deadline }, (error, response) => (error ? reject(error) : resolve(response)));
    });
    service.close();
    this.#core = new FlagdCore();
    this.#core.setConfigurations(flagConfiguration);
  }

  evaluate(type, key, fallback, context) {
    const silent = { error() {}, warn() {}, info() {}, debug() {} };
    return this.#core.resolve(KINDS[type].toLowerCase(), key, fallback, context, silent);
  }

  async close() {}

  end() {}
}
