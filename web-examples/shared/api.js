// What the page asks of a client of the service. `rest/rest.js` and `grpc-web/grpc-web.ts` are
// two clients; each turns what its protocol says into these shapes.

/**
 * How traffic shifts. What is left out takes the service's default.
 * @typedef {object} Strategy
 * @property {"IMMEDIATE" | "GRADUAL"} type
 * @property {number} [initialPercentage] percent of traffic of the first step
 * @property {number} [increment] percent of traffic that each further step adds
 * @property {number} [intervalSeconds] seconds between two steps
 */

/**
 * @typedef {object} NewDeployment
 * @property {string} promptId
 * @property {string} environment
 * @property {number} toVersion
 * @property {Strategy} strategy
 */

/**
 * @typedef {object} Deployment
 * @property {string} id
 * @property {string} promptId
 * @property {string} environment
 * @property {number} fromVersion 0 where nothing was served before
 * @property {number} toVersion
 * @property {string} statusMessage why it is in its status, in a sentence
 */

/**
 * @typedef {object} Progress
 * @property {string} status such as `IN_PROGRESS`
 * @property {number} percentage percent of traffic that the new version receives
 * @property {Date | undefined} nextStepAt
 */

/**
 * @typedef {object} Api
 * @property {(deployment: NewDeployment) => Promise<Deployment>} create
 * @property {(id: string, signal: AbortSignal) => Promise<Deployment>} get
 * @property {(id: string, signal: AbortSignal) => Promise<Progress>} status
 * @property {(id: string, reason: string) => Promise<Deployment | undefined>} rollBack
 *   resolves to the deployment that restored the version before, where there was one
 * @property {(id: string, reason: string) => Promise<void>} cancel
 */

/**
 * Makes a client. `baseUrl` has no slash at its end; `actor` is who acts, for the record.
 * @typedef {(baseUrl: string, actor: string) => Api} OpenApi
 */

/** A request that failed, in words for people. */
export class ApiError extends Error {
  /**
   * @param {object} problem
   * @param {string} problem.title the kind of failure, such as `400 Bad Request`
   * @param {string} problem.detail what is wrong and what to do; shown where `fields` don't say it
   * @param {string} [problem.reason] stable name of the reason, for programs
   * @param {string} [problem.requestId] where to look in the service's log
   * @param {{ field: string, description: string }[]} [problem.fields] each wrong field of the request
   */
  constructor({ title, detail, reason = "", requestId = "", fields = [] }) {
    super(detail);
    this.title = title;
    this.reason = reason;
    this.requestId = requestId;
    this.fields = fields;
  }

  /**
   * The service gave no answer that the browser lets the page see.
   * @param {string} baseUrl
   */
  static unreachable(baseUrl) {
    return new ApiError({
      title: "No answer",
      detail: `Nothing answers at ${baseUrl}, or it does not allow requests from ${location.origin} (CORS).`,
    });
  }
}

/**
 * Text as the value of a header, in UTF-8: `fetch` takes one character for each byte.
 * @param {string} text
 */
export function headerText(text) {
  return String.fromCharCode(...new TextEncoder().encode(text));
}

/** Milliseconds after which a request is given up. */
export const TIMEOUT_MS = 10_000;
