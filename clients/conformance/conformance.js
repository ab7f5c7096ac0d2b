// Runs the scenarios that apply with each published client, and says which do not apply and why.

import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { inspect } from "node:util";

import { OUTSIDE, REASONS } from "./scope.js";
import { fetched, scenarios } from "./testbed.js";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const LANGUAGES = ["javascript", "python"];
/** The modes of flagd's provider that ask the service, and the evaluator alone with what the service gives. */
const MODES = ["rpc", "in-process", "evaluator"];

/** The modes that a scenario is of. */
function modes({ feature, tags }) {
  if (feature.startsWith("evaluator/")) return ["evaluator"];
  return [...MODES, "file"].filter((mode) => tags.includes(`@${mode}`));
}

function is(wanted, actual = "") {
  return wanted === undefined || (wanted instanceof RegExp ? wanted.test(actual) : wanted === actual);
}

function matches(entry, { feature, name, row }, mode) {
  const cells = Object.entries(entry.row ?? {});
  return (
    is(entry.feature, feature) &&
    is(entry.name, name) &&
    (entry.mode ? entry.mode === mode : mode !== "file") &&
    cells.every(([column, wanted]) => column in row && is(wanted, row[column]))
  );
}

/** What runs in each mode, and how many scenarios are outside by reason. Fails where the list is not right. */
function sorted(all) {
  const inside = Object.fromEntries(MODES.map((mode) => [mode, []]));
  const outside = new Map(Object.keys(REASONS).map((reason) => [reason, 0]));
  const matched = new Set();
  const wrong = [];
  for (const scenario of all) {
    const where = `${scenario.feature}: ${scenario.name} (line ${scenario.line})`;
    if (modes(scenario).length === 0) wrong.push(`${where} is of no mode that is known`);
    for (const mode of modes(scenario)) {
      const entries = OUTSIDE.filter((entry) => matches(entry, scenario, mode));
      entries.forEach((entry) => matched.add(entry));
      if (entries.length > 1) wrong.push(`${where} is matched by several entries, for ${mode}`);
      else if (entries.length === 1) outside.set(entries[0].reason, outside.get(entries[0].reason) + 1);
      else inside[mode].push(scenario);
    }
  }
  for (const entry of OUTSIDE) {
    if (!matched.has(entry)) wrong.push(`there is no scenario for ${inspect(entry)}`);
  }
  for (const [reason, count] of outside) if (count === 0) wrong.push(`the reason '${reason}' is nowhere given`);
  if (wrong.length > 0) throw new Error(`scope.js is not right:\n${wrong.join("\n")}`);
  return { inside, outside };
}

/** Runs scenarios with a client; resolves to what became of each. */
async function run(language, mode, scenarios) {
  const directory = await mkdtemp(join(tmpdir(), "delos-conformance-"));
  const messages = join(directory, "messages.ndjson");
  const begun = Date.now();
  // `--exit`, because the provider of JavaScript that has never got through tries on when it is closed.
  const child = spawn(
    process.execPath,
    [
      "node_modules/@cucumber/cucumber/bin/cucumber.js",
      ...["--exit", "--import", "steps.js", "--format", "summary", "--format", `message:${messages}`],
      ...["--world-parameters", JSON.stringify({ language, mode })],
      ...scenarios.map(({ path, line }) => `${relative(HERE, path)}:${line}`),
    ],
    { cwd: HERE, stdio: ["ignore", "pipe", "pipe"] },
  );
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (output += text));
  const code = await new Promise((resolve, reject) => child.once("error", reject).once("close", resolve));
  const passed = count(await readFile(messages, "utf8"));
  await rm(directory, { recursive: true });
  return { language, mode, planned: scenarios.length, passed, code, output, seconds: (Date.now() - begun) / 1000 };
}

/** How many scenarios have passed every step, by cucumber's messages. */
function count(messages) {
  const failed = new Set();
  const finished = new Set();
  for (const line of messages.split("\n").filter(Boolean)) {
    const { testStepFinished, testCaseFinished } = JSON.parse(line);
    if (testStepFinished && testStepFinished.testStepResult.status !== "PASSED") {
      failed.add(testStepFinished.testCaseStartedId);
    }
    if (testCaseFinished) finished.add(testCaseFinished.testCaseStartedId);
  }
  return [...finished].filter((id) => !failed.has(id)).length;
}

const { inside, outside } = sorted(await scenarios(await fetched()));

const clients = LANGUAGES.flatMap((language) => MODES.map((mode) => run(language, mode, inside[mode])));
const results = await Promise.all(clients);

let failed = 0;
let passed = 0;
for (const result of results) {
  const { language, mode, planned, seconds } = result;
  const isRight = result.code === 0 && planned > 0 && result.passed === planned;
  if (!isRight) console.log(result.output);
  console.log(`${language.padEnd(10)} ${mode.padEnd(10)} ${result.passed} of ${planned} passed, ${seconds.toFixed(1)} s`);
  passed += result.passed;
  failed += Math.max(planned - result.passed, isRight ? 0 : 1);
}
console.log("\nDo not apply, by the reason why (a row of an outline in one mode counts as one):");
for (const [reason, count] of outside) console.log(`${String(count).padStart(5)}  ${REASONS[reason]}`);
console.log(`\n${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
