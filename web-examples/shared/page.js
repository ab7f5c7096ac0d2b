// What both pages show and do. How they speak to the service is in `rest/rest.js` and in
// `grpc-web/grpc-web.ts`; this file knows nothing of either.

import { ApiError } from "./api.js";

/** @import { Api, Deployment, OpenApi, Progress, Strategy } from "./api.js" */

/** Milliseconds between an answer and the next question. */
const POLL_MS = 300;
/** The same, while the service does not answer. */
const RETRY_MS = 2000;

/** Statuses that a deployment never leaves. COMPLETED is none of them: it can be rolled back. */
const FINAL = new Set(["GATES_FAILED", "ROLLED_BACK", "CANCELLED", "FAILED"]);
const CAN_ROLL_BACK = new Set(["IN_PROGRESS", "COMPLETED"]);
const CAN_CANCEL = new Set(["PENDING_APPROVAL", "PENDING_GATES", "IN_PROGRESS"]);

/**
 * Brings the page to life.
 * @param {OpenApi} openApi
 */
export function run(openApi) {
  const form = /** @type {HTMLFormElement} */ (element("form"));
  const buttons = {
    serve: button("serve"),
    rollOut: button("roll-out"),
    rollBack: button("roll-back"),
    cancel: button("cancel"),
  };

  /** The deployment on show. @type {{ api: Api, id: string } | undefined} */
  let shown;
  let status = "";
  /** An action waits for its answer. */
  let busy = false;
  let following = new AbortController();

  const api = new URLSearchParams(location.search).get("api");
  if (api) field("api").value = api;

  form.addEventListener("input", label);
  form.addEventListener("submit", (event) => event.preventDefault());
  buttons.serve.addEventListener("click", () => act(() => create({ type: "IMMEDIATE" })));
  buttons.rollOut.addEventListener("click", () =>
    act(() =>
      create({
        type: "GRADUAL",
        initialPercentage: number("initial_percentage"),
        increment: number("increment"),
        intervalSeconds: number("interval_seconds"),
      }),
    ),
  );
  buttons.rollBack.addEventListener("click", () => act(rollBack));
  buttons.cancel.addEventListener("click", () => act(cancel));
  label();
  enable();

  /** @param {Strategy} strategy */
  async function create(strategy) {
    const baseUrl = field("api").value.trim().replace(/\/+$/, "");
    if (!/^https?:\/\//.test(baseUrl) || !URL.canParse(baseUrl)) {
      throw new ApiError({
        title: "No address",
        detail: `“${baseUrl}” is not the address of a service; one looks like http://localhost:9005.`,
      });
    }
    const client = openApi(baseUrl, field("x-delos-actor").value.trim());
    const deployment = await client.create({
      promptId: field("prompt_id").value.trim(),
      environment: field("environment").value.trim(),
      toVersion: number("to_version"),
      strategy,
    });
    shown = { api: client, id: deployment.id };
    write("note", "");
    follow();
  }

  async function rollBack() {
    if (!shown) return;
    const reverse = await shown.api.rollBack(shown.id, "rolled back on the example page");
    write(
      "note",
      reverse
        ? `Deployment ${reverse.id} restored version ${reverse.toVersion}.`
        : "There was no version before it: the environment serves nothing now.",
    );
    follow();
  }

  async function cancel() {
    if (!shown) return;
    await shown.api.cancel(shown.id, "cancelled on the example page");
    follow();
  }

  /**
   * Does what a button asks for, one at a time, and shows what went wrong.
   * @param {() => Promise<void>} action
   */
  async function act(action) {
    if (busy) return;
    busy = true;
    enable();
    showError(undefined);
    try {
      await action();
    } catch (error) {
      showError(error);
    } finally {
      busy = false;
      enable();
    }
  }

  /** Shows where the deployment stands, again and again until it stands still. */
  async function follow() {
    following.abort();
    following = new AbortController();
    const { signal } = following;
    if (!shown) return;
    const { api, id } = shown;
    let lost = false;
    while (true) {
      try {
        // In this order, so that the sentence is never older than the status it explains.
        const progress = await api.status(id, signal);
        const deployment = await api.get(id, signal);
        if (signal.aborted) return;
        if (lost) showError(undefined);
        lost = false;
        status = progress.status;
        show(deployment, progress);
        enable();
        if (FINAL.has(status)) return;
      } catch (error) {
        if (signal.aborted) return;
        showError(error);
        lost = true;
      }
      await new Promise((resolve) => setTimeout(resolve, lost ? RETRY_MS : POLL_MS));
      if (signal.aborted) return;
    }
  }

  function enable() {
    buttons.serve.disabled = busy;
    buttons.rollOut.disabled = busy;
    buttons.rollBack.disabled = busy || !CAN_ROLL_BACK.has(status);
    buttons.cancel.disabled = busy || !CAN_CANCEL.has(status);
  }

  /** Says on the buttons what they would do. */
  function label() {
    const version = field("to_version").value;
    buttons.serve.textContent = `Serve version ${version} at once`;
    buttons.rollOut.textContent = `Roll out version ${version} step by step`;
  }
}

/**
 * @param {Deployment} deployment
 * @param {Progress} progress
 */
function show(deployment, { status, percentage, nextStepAt }) {
  element("progress").hidden = false;
  element("progress").dataset.status = status;
  write("what", `${deployment.promptId} in ${deployment.environment}`);
  write("from", deployment.fromVersion ? `version ${deployment.fromVersion}` : "nothing");
  write("to", `version ${deployment.toVersion}`);
  const bar = /** @type {HTMLProgressElement} */ (element("bar"));
  if (bar.value !== percentage) bar.value = percentage;
  write("percentage", `${percentage} %`);
  write("status", status.replaceAll("_", " ").toLowerCase());
  write("message", deployment.statusMessage);
  write("next", nextStepAt ? `${nextStepAt.toLocaleTimeString()} (${countdown(nextStepAt)})` : "none");
  write("id", deployment.id);
}

/** @param {Date} at */
function countdown(at) {
  const seconds = Math.ceil((at.getTime() - Date.now()) / 1000);
  return seconds > 0 ? `in ${seconds} s` : "due";
}

/**
 * Shows an error, and marks the fields that it names; undefined takes both away.
 * @param {unknown} error
 */
function showError(error) {
  for (const input of document.querySelectorAll("input")) input.removeAttribute("aria-invalid");
  element("error").hidden = error === undefined;
  if (error === undefined) {
    element("error-fields").replaceChildren();
    return;
  }
  const { title, message, fields, reason, requestId } =
    error instanceof ApiError ? error : new ApiError({ title: "Unexpected", detail: String(error) });
  write("error-title", title);
  write("error-detail", fields.length > 0 ? "" : message);
  const items = fields.map(({ field: name, description }) => {
    // `strategy.increment` is the field "increment" of the form.
    const input = document.getElementById(name.split(".").at(-1) ?? "");
    if (input instanceof HTMLInputElement) input.setAttribute("aria-invalid", "true");
    const item = document.createElement("li");
    const code = document.createElement("code");
    code.textContent = name;
    item.append(code, ` ${description}`);
    return item;
  });
  element("error-fields").replaceChildren(...items);
  write("error-reason", [reason, requestId].filter(Boolean).join(" · "));
}

/**
 * Writes text (never markup), and only where it changes, so that a screen reader says it once.
 * @param {string} id
 * @param {string} text
 */
function write(id, text) {
  const target = element(id);
  if (target.textContent !== text) target.textContent = text;
}

/** @param {string} id */
function element(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element “${id}”`);
  return found;
}

/** @param {string} id */
const field = (id) => /** @type {HTMLInputElement} */ (element(id));
/** @param {string} id */
const button = (id) => /** @type {HTMLButtonElement} */ (element(id));

/**
 * A number of the form, as the protocol can carry it; whether it is a good one, the service says.
 * @param {string} id
 */
function number(id) {
  const value = Number(field(id).value);
  if (Number.isInteger(value) && Math.abs(value) < 2 ** 31) return value;
  throw new ApiError({
    title: "Not sent",
    detail: "A number is out of bounds.",
    fields: [{ field: id, description: `is ${value}, not a whole number of at most 32 bits` }],
  });
}
