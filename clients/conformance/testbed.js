// flagd-testbed, as it is published within a crate: fetched once, checked, and unpacked.

import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { access, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { AstBuilder, GherkinClassicTokenMatcher, Parser, compile } from "@cucumber/gherkin";
import { IdGenerator } from "@cucumber/messages";

const CRATE = "open-feature-flagd-0.3.0";
const URL_OF_IT = `https://static.crates.io/crates/open-feature-flagd/${CRATE}.crate`;
const SHA256 = "c35123d6b138c7e222a046ea1db93b516db487d6aab35579645e1168fb2a44f8";
const CACHE = fileURLToPath(new URL("../../.cache", import.meta.url));

/** The testbed's folder. */
export async function fetched() {
  const folder = join(CACHE, `${CRATE}-${SHA256.slice(0, 8)}`);
  const testbed = join(folder, CRATE, "flagd-testbed");
  if (await exists(testbed)) return testbed;
  const response = await fetch(URL_OF_IT, { signal: AbortSignal.timeout(120_000) });
  if (!response.ok) throw new Error(`${URL_OF_IT}: ${response.status}`);
  const archive = Buffer.from(await response.arrayBuffer());
  const digest = createHash("sha256").update(archive).digest("hex");
  if (digest !== SHA256) throw new Error(`${URL_OF_IT} has the SHA-256 ${digest}`);
  // Under its name only once it is whole.
  await mkdir(CACHE, { recursive: true });
  const unfinished = await mkdtemp(`${folder}-`);
  const file = join(unfinished, "crate.tar.gz");
  await writeFile(file, archive);
  await promisify(execFile)("tar", ["-xzf", file, "-C", unfinished, `${CRATE}/flagd-testbed`]);
  await rm(file);
  await rename(unfinished, folder);
  return testbed;
}

/**
 * Every scenario of the testbed, each row of an outline for itself: the feature's path without its
 * ending, the scenario's name, the row's cells by column, the tags, and where it is.
 */
export async function scenarios(testbed) {
  const found = [];
  for (const folder of ["evaluator/gherkin", "gherkin"]) {
    for (const name of (await readdir(join(testbed, folder))).sort()) {
      if (!name.endsWith(".feature")) continue;
      const path = join(testbed, folder, name);
      const feature = `${folder}/${name}`.replace(/(^|\/)gherkin\/|\.feature$/g, "$1");
      found.push(...parsed(await readFile(path, "utf8"), path).map((scenario) => ({ feature, ...scenario })));
    }
  }
  return found;
}

function parsed(text, path) {
  const newId = IdGenerator.incrementing();
  const document = new Parser(new AstBuilder(newId), new GherkinClassicTokenMatcher()).parse(text);
  const nodes = new Map();
  for (const { scenario } of document.feature.children) {
    if (!scenario) continue;
    nodes.set(scenario.id, scenario);
    for (const { tableHeader, tableBody } of scenario.examples) {
      for (const row of tableBody) {
        nodes.set(row.id, { ...row, columns: tableHeader.cells.map(({ value }) => value) });
      }
    }
  }
  return compile(document, path, newId).map(({ astNodeIds, tags }) => {
    const [scenario, row] = astNodeIds.map((id) => nodes.get(id));
    return {
      name: scenario.name,
      row: row ? Object.fromEntries(row.cells.map(({ value }, at) => [row.columns[at], value])) : {},
      tags: tags.map((tag) => tag.name),
      path,
      line: (row ?? scenario).location.line,
    };
  });
}

async function exists(path) {
  try {
    await access(path);
    return true;
  } catch {
    return false;
  }
}
