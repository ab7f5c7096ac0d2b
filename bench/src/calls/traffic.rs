//! ResolveVersion, over gRPC and over REST.

use delos_deploy::wire::pb::{
    Arm, ResolveVersionRequest, ResolveVersionResponse,
    traffic_service_client::TrafficServiceClient,
};
use tonic::transport::Channel;

use super::{Ask, told};
use crate::{
    Failure,
    load::{grpc, http},
};

/// The prompt whose rollout stands at ten percent.
pub(crate) const PROMPT: &str = "support-answer";
/// Its environment: the one that OFREP means where none is named.
pub(crate) const ENVIRONMENT: &str = "production";
/// How many targeting keys ask.
const KEYS: usize = 1000;

/// A client over one connection.
pub(crate) type Client = TrafficServiceClient<Channel>;

/// Connects.
pub(crate) async fn connect(port: u16) -> Result<Client, Failure> {
    Ok(Client::new(grpc::connect(port).await?))
}

/// Who asks.
pub(crate) fn targeting_keys() -> impl Iterator<Item = String> {
    (0..KEYS).map(|number| format!("user-{number}"))
}

impl Ask for Client {
    type Question = ResolveVersionRequest;
    type Answer = ResolveVersionResponse;

    async fn ask(
        &mut self,
        question: &ResolveVersionRequest,
    ) -> Result<ResolveVersionResponse, Failure> {
        let answer = self.resolve_version(question.clone()).await;
        let answer = answer.map_err(|status| told("ResolveVersion", &status))?;
        Ok(answer.into_inner())
    }
}

/// The question over gRPC.
pub(crate) fn question(prompt_id: &str, targeting_key: &str) -> ResolveVersionRequest {
    ResolveVersionRequest {
        prompt_id: prompt_id.into(),
        environment: ENVIRONMENT.into(),
        targeting_key: targeting_key.into(),
        preview: false,
    }
}

/// The question over REST.
pub(crate) fn rest_question(targeting_key: &str) -> Vec<u8> {
    let target = format!(
        "/v1/environments/{ENVIRONMENT}/prompts/{PROMPT}/version?targeting_key={targeting_key}"
    );
    http::request("GET", &target, "", "")
}

/// What the bare servers answer: what the service answers to most.
pub(crate) fn example() -> ResolveVersionResponse {
    let deployment_id = "01a20fb2-eba8-7620-81ec-a98593c1d4b4";
    let attributes = [
        ("gen_ai.prompt.name", PROMPT),
        ("gen_ai.prompt.version", "1"),
        ("delos.environment", ENVIRONMENT),
        ("delos.deployment.id", deployment_id),
        ("delos.deployment.arm", "stable"),
    ];
    ResolveVersionResponse {
        version: 1,
        arm: Arm::Stable.into(),
        deployment_id: deployment_id.into(),
        revision: 2,
        attributes: attributes
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        stale_seconds: 0,
    }
}
