// What the tests drive in the browser: the web SDK with its OFREP provider.

import { OFREPWebProvider } from "@openfeature/ofrep-web-provider";
import { OpenFeature, ProviderEvents } from "@openfeature/web-sdk";

window.changes = [];

window.start = async (baseUrl, context) => {
  await OpenFeature.setContext(context);
  OpenFeature.addHandler(ProviderEvents.ConfigurationChanged, ({ flagsChanged }) => window.changes.push(flagsChanged));
  await OpenFeature.setProviderAndWait(new OFREPWebProvider({ baseUrl, cacheMode: "disabled" }));
};

window.details = (flag) => OpenFeature.getClient().getNumberDetails(flag, 0);

window.setContext = (context) => OpenFeature.setContext(context);

/** What each key gets, in turn: a page has one context at a time. */
window.detailsOf = async (flag, keys) => {
  const found = [];
  for (const targetingKey of keys) {
    await OpenFeature.setContext({ targetingKey });
    found.push(window.details(flag));
  }
  return found;
};
