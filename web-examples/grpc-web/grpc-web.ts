// Delos Deploy over gRPC-web: a typed client, generated from the service's own schema.

import { timestampDate } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";

import { ApiError, TIMEOUT_MS, headerText } from "../shared/api.js";
import type { Api, Deployment as DeploymentView } from "../shared/api.js";
import { run } from "../shared/page.js";
import {
  DeployService,
  DeploymentStatus,
  DeploymentType,
  type Deployment,
} from "./gen/deploy/v1/deploy_pb";
import { BadRequestSchema, ErrorInfoSchema } from "./gen/google/rpc/error_details_pb";

function openApi(baseUrl: string, actor: string): Api {
  /** Says who acts, in the metadata of every call. */
  const sayWho: Interceptor = (next) => (request) => {
    if (actor) request.header.set("x-delos-actor", headerText(actor));
    return next(request);
  };

  const client = createClient(
    DeployService,
    createGrpcWebTransport({
      baseUrl,
      interceptors: [sayWho],
      defaultTimeoutMs: TIMEOUT_MS,
    }),
  );

  /** The answer of a call, its failure turned into words. */
  const answerOf = <T>(call: Promise<T>): Promise<T> =>
    call.catch((error) => {
      throw toApiError(ConnectError.from(error), baseUrl);
    });

  return {
    async create({ promptId, environment, toVersion, strategy }) {
      const { deployment } = await answerOf(
        client.createDeployment({
          promptId,
          environment,
          toVersion,
          strategy: { ...strategy, type: DeploymentType[strategy.type] },
          skipApproval: true,
        }),
      );
      return toView(deployment!);
    },

    async get(id, signal) {
      const { deployment } = await answerOf(client.getDeployment({ id }, { signal }));
      return toView(deployment!);
    },

    async status(id, signal) {
      const { status, rollout } = await answerOf(client.getDeploymentStatus({ id }, { signal }));
      return {
        status: DeploymentStatus[status] ?? `status ${status}`,
        percentage: rollout?.currentPercentage ?? 0,
        nextStepAt: rollout?.nextIncrementAt && timestampDate(rollout.nextIncrementAt),
      };
    },

    async rollBack(id, reason) {
      const { rollbackDeployment } = await answerOf(client.rollbackDeployment({ id, reason }));
      return rollbackDeployment && toView(rollbackDeployment);
    },

    async cancel(id, reason) {
      await answerOf(client.cancelDeployment({ id, reason }));
    },
  };
}

function toView(deployment: Deployment): DeploymentView {
  const { id, promptId, environment, fromVersion, toVersion, statusMessage } = deployment;
  return { id, promptId, environment, fromVersion, toVersion, statusMessage };
}

/** A gRPC error says more in its details (google.rpc) than in its code and its message. */
function toApiError(error: ConnectError, baseUrl: string): ApiError {
  // What `fetch` throws where it gets no answer.
  if (error.cause instanceof TypeError) return ApiError.unreachable(baseUrl);
  const [info] = error.findDetails(ErrorInfoSchema);
  return new ApiError({
    title: Code[error.code],
    detail: error.rawMessage,
    reason: info?.reason,
    requestId: error.metadata.get("x-request-id") ?? "",
    fields: error.findDetails(BadRequestSchema).flatMap((details) => details.fieldViolations),
  });
}

run(openApi);
