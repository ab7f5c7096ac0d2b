// Which scenarios of the testbed do not apply, and why. All others run.
//
// Each entry is of scenarios by the feature, the scenario's name, the cells of a row by column (a
// text or a pattern) and the mode, as far as it says so. One that matches nothing, or what another
// matches too, fails the run.

export const REASONS = {
  type: "a flag that is no number: a prompt's value is its version (in the mode rpc also as text)",
  number: "a number that is no version: 0, 0.5",
  object: "an object other than {prompt, version}",
  variant: "another name of the variant: that of version 10 is v10",
  fractional: "another split than a rollout's, which is of two versions, salted with the deployment's id",
  rule: "targeting otherwise than by a split: the service has no other rule",
  error: "a rule with an error in it, which the service does not write",
  disabled: "a flag that is DISABLED: there are none, and what is not served is FLAG_NOT_FOUND",
  absent: "no version for whoever asks, as the other mode has it: rpc says FLAG_NOT_FOUND, in-process DEFAULT",
  metadata: "metadata by the flag's author, or none: the service has its own on each flag",
  context: "attributes that the server adds to the context: the service adds none",
  transport: "TLS, a Unix socket, or Envoy in between: the service has one plaintext port",
  access: "a server that refuses access: the service does not",
  provider: "the provider's reading of its options: no server takes part",
  file: "a provider that reads a file: no server takes part",
};

/** @type {{feature: string, name?: string, row?: Record<string, string | RegExp>, mode?: string, reason: keyof REASONS}[]} */
export const OUTSIDE = [
  { feature: /./, mode: "file", reason: "file" },

  { feature: "config", mode: "rpc", reason: "provider" },
  { feature: "config", mode: "in-process", reason: "provider" },

  { feature: "connection", name: "Connection", row: { name: "stable" }, reason: "type" },
  { feature: "connection", name: "Connection", row: { name: /ssl|socket/ }, reason: "transport" },
  { feature: "connection", name: "Provider reconnection", row: { name: "ssl" }, reason: "transport" },
  { feature: "connection", name: "Provider forbidden", reason: "access" },
  { feature: "connection", name: /onnection via TargetUri/, reason: "transport" },

  { feature: "contextEnrichment", reason: "context" },
  { feature: "sync-payload", name: /Use enriched context/, reason: "context" },
  { feature: "sync-payload", name: "Resolve value independent of context", reason: "type" },

  { feature: /disabled$/, reason: "disabled" },

  { feature: "evaluation", name: "Resolve values", row: { type: /Boolean|String/ }, reason: "type" },
  { feature: "evaluation", name: "Resolve values", row: { type: "Float" }, reason: "number" },
  { feature: "evaluation", name: "Resolves zero value", row: { type: /Boolean|String/ }, reason: "type" },
  { feature: "evaluation", name: "Resolves zero value", row: { type: /Integer|Float/ }, reason: "number" },
  { feature: "evaluation", name: /Resolves zero value with targeting/, reason: "rule" },
  { feature: "evaluation", name: /Resolves flag with no default/, row: { resolved_value: "CEO" }, reason: "rule" },
  {
    feature: "evaluation",
    name: "Resolves flag with no defaultValue correctly",
    row: { reason: "ERROR" },
    mode: "in-process",
    reason: "absent",
  },
  {
    feature: "evaluation",
    name: "Resolves flag with no default variant correctly",
    row: { reason: "DEFAULT" },
    mode: "rpc",
    reason: "absent",
  },

  { feature: /metadata$/, reason: "metadata" },

  { feature: "rpc-caching", name: /Resolves/, row: { type: /Boolean|String/ }, reason: "type" },
  { feature: "rpc-caching", name: /Resolves/, row: { type: "Integer" }, reason: "variant" },
  { feature: "rpc-caching", name: /Resolves/, row: { type: "Float" }, reason: "number" },
  { feature: "rpc-caching", name: /Resolves/, row: { type: "Object" }, reason: "object" },
  { feature: "rpc-caching", name: "Stale and Error stage", reason: "type" },

  // Of these types in-process an ERROR would say nothing of the selector.
  { feature: "selector", name: "Flags not found", row: { type: /Boolean|String/ }, reason: "type" },
  { feature: "selector", name: "Resolve values", reason: "type" },

  { feature: "targeting", name: /^Evaluator /, reason: "rule" },
  { feature: "targeting", name: "Ref to nonexistent evaluator yields parse error", reason: "error" },
  { feature: "targeting", name: /^Fractional |^Second fractional /, reason: "fractional" },
  { feature: "targeting", name: /^Valid well-formed UTF-8 String/, reason: "fractional" },
  { feature: "targeting", name: /^Substring |^Semantic |^sem_ver .*(handling|coercion|ignored)/, reason: "rule" },
  { feature: "targeting", name: /^Time-based |^Targeting by /, reason: "rule" },
  { feature: "targeting", name: /^Custom operator errors|^fractional |^starts_with |^sem_ver returns /, reason: "error" },
  {
    feature: "targeting",
    name: "Errors and edge cases",
    row: { key: /^(error|missing-variant)-targeting-flag$/ },
    reason: "error",
  },
  {
    feature: "targeting",
    name: "Errors and edge cases",
    row: { key: "non-string-variant-targeting-flag" },
    reason: "rule",
  },

  { feature: "evaluator/errors", name: "Type mismatch", reason: "type" },
  { feature: "evaluator/evaluation", row: { type: /Boolean|String/ }, reason: "type" },
  { feature: "evaluator/evaluation", row: { type: "Float" }, reason: "number" },
  { feature: "evaluator/evaluation", row: { type: "Object" }, reason: "object" },
  { feature: "evaluator/evaluator-refs", name: /^Evaluator /, reason: "rule" },
  { feature: "evaluator/evaluator-refs", name: /^Ref to nonexistent /, reason: "error" },
  { feature: "evaluator/fractional", name: /^Fractional |^Second fractional /, reason: "fractional" },
  { feature: "evaluator/fractional", name: /^fractional /, reason: "error" },
  { feature: "evaluator/no-default-variant", row: { resolved_value: "CEO" }, reason: "rule" },
  { feature: "evaluator/semver", name: /^(?!sem_ver)/, reason: "rule" },
  { feature: "evaluator/semver", name: /^sem_ver /, reason: "error" },
  { feature: "evaluator/string", name: /^Substring /, reason: "rule" },
  { feature: "evaluator/string", name: /^starts_with /, reason: "error" },
  { feature: "evaluator/targeting", reason: "rule" },
  { feature: "evaluator/zero-values", name: /statically/, row: { type: /Boolean|String/ }, reason: "type" },
  { feature: "evaluator/zero-values", name: /statically/, row: { type: /Integer|Float/ }, reason: "number" },
  { feature: "evaluator/zero-values", name: /statically/, row: { type: "Object" }, reason: "object" },
  { feature: "evaluator/zero-values", name: /targeting/, reason: "rule" },
];
