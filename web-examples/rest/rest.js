// Delos Deploy over REST: `fetch` and JSON, no build step.

import { ApiError, TIMEOUT_MS, headerText } from "../shared/api.js";
import { run } from "../shared/page.js";

/** @type {import("../shared/api.js").OpenApi} */
function openApi(baseUrl, actor) {
  /**
   * Sends a request and returns the JSON of its answer.
   * @param {"GET" | "POST"} method
   * @param {string} path
   * @param {{ body?: object, signal?: AbortSignal }} [options]
   */
  async function call(method, path, { body, signal } = {}) {
    const timeout = AbortSignal.timeout(TIMEOUT_MS);
    /** @type {Record<string, string>} */
    const headers = { accept: "application/json" };
    if (actor) headers["x-delos-actor"] = headerText(actor);
    if (body) headers["content-type"] = "application/json";
    let response;
    try {
      response = await fetch(baseUrl + path, {
        method,
        headers,
        body: body && JSON.stringify(body),
        signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
      });
    } catch (error) {
      signal?.throwIfAborted();
      if (timeout.aborted) throw timedOut();
      throw error instanceof TypeError ? ApiError.unreachable(baseUrl) : error;
    }
    const answer = await readJson(response);
    if (!response.ok) throw toApiError(response, answer);
    if (!answer) {
      throw new ApiError({ title: "Not the service", detail: `${baseUrl} answers, but not with JSON.` });
    }
    return answer;
  }

  return {
    async create({ promptId, environment, toVersion, strategy }) {
      const answer = await call("POST", "/v1/deployments", {
        body: {
          prompt_id: promptId,
          environment,
          to_version: toVersion,
          strategy: {
            type: `DEPLOYMENT_TYPE_${strategy.type}`,
            initial_percentage: strategy.initialPercentage,
            increment: strategy.increment,
            interval_seconds: strategy.intervalSeconds,
          },
          skip_approval: true,
        },
      });
      return toDeployment(answer.deployment);
    },

    async get(id, signal) {
      const answer = await call("GET", `/v1/deployments/${encodeURIComponent(id)}`, { signal });
      return toDeployment(answer.deployment);
    },

    async status(id, signal) {
      const answer = await call("GET", `/v1/deployments/${encodeURIComponent(id)}/status`, { signal });
      const next = answer.rollout?.next_increment_at;
      return {
        status: answer.status.replace("DEPLOYMENT_STATUS_", ""),
        percentage: answer.rollout?.current_percentage ?? 0,
        nextStepAt: next ? new Date(next) : undefined,
      };
    },

    async rollBack(id, reason) {
      const answer = await call("POST", `/v1/deployments/${encodeURIComponent(id)}/rollback`, {
        body: { reason },
      });
      return answer.rollback_deployment ? toDeployment(answer.rollback_deployment) : undefined;
    },

    async cancel(id, reason) {
      await call("POST", `/v1/deployments/${encodeURIComponent(id)}/cancel`, { body: { reason } });
    },
  };
}

/**
 * @param {any} deployment
 * @returns {import("../shared/api.js").Deployment}
 */
function toDeployment(deployment) {
  return {
    id: deployment.id,
    promptId: deployment.prompt_id,
    environment: deployment.environment,
    fromVersion: deployment.from_version,
    toVersion: deployment.to_version,
    statusMessage: deployment.status_message,
  };
}

/**
 * An error of the service is a problem (RFC 9457); one of a proxy in between may be anything.
 * @param {Response} response
 * @param {any} problem
 */
function toApiError(response, problem) {
  const status = `${response.status} ${response.statusText}`.trim();
  return new ApiError({
    title: problem?.title ? `${status}: ${problem.title}` : status,
    detail: problem?.detail ?? "The answer says no more than that.",
    reason: problem?.reason,
    requestId: problem?.request_id,
    // @ts-expect-error: JSON has no type
    fields: problem?.errors?.map(({ field, detail }) => ({ field, description: detail })),
  });
}

function timedOut() {
  return new ApiError({ title: "No answer", detail: `No answer within ${TIMEOUT_MS / 1000} seconds.` });
}

/**
 * The JSON of an answer (`application/json` or `application/problem+json`), undefined where it is not JSON.
 * @param {Response} response
 */
async function readJson(response) {
  const type = response.headers.get("content-type") ?? "";
  if (!/^application\/([a-z.]+\+)?json\b/.test(type)) return undefined;
  try {
    return await response.json();
  } catch {
    return undefined;
  }
}

run(openApi);
