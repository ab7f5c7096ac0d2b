//! A caller who does not give up: it sends a request again, to any replica and under the same key,
//! until it is told what became of it.

use std::{error::Error as _, time::Duration};

use delos_deploy::wire::pb::{
    GetDeploymentRequest, ResolveVersionRequest, deploy_service_client::DeployServiceClient,
    telemetry_service_client::TelemetryServiceClient, traffic_service_client::TrafficServiceClient,
};
use rand::{RngExt as _, rngs::StdRng};
use tokio::time::{Instant, timeout};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

use super::history::{Answer, Call, Done, History, Op};
use crate::{Failure, cluster::Cluster, plan::Share};

/// How long an answer is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(4);
/// How long a request is sent again and again.
const PATIENCE: Duration = Duration::from_secs(180);
/// Pause between two attempts.
const PAUSE_MS: std::ops::Range<u64> = 20..250;
/// After how long a request may be dropped.
const DROPPED_MS: std::ops::Range<u64> = 0..25;

/// A caller, with a connection to each replica.
pub(crate) struct Caller {
    number: usize,
    channels: Vec<Channel>,
    history: History,
    rng: StdRng,
    share: Share,
    /// How many requests it has dropped before they were answered.
    pub(crate) dropped: u64,
}

impl Caller {
    /// The caller with this number.
    pub(crate) fn new(
        number: usize,
        cluster: &Cluster,
        history: History,
        rng: StdRng,
        share: Share,
    ) -> Result<Self, Failure> {
        let channel = |member: &crate::cluster::Member| -> Result<Channel, Failure> {
            let endpoint = Endpoint::from_shared(format!("http://{}", member.callers.address))?;
            Ok(endpoint
                .connect_timeout(Duration::from_secs(1))
                .connect_lazy())
        };
        Ok(Self {
            number,
            channels: cluster
                .members
                .iter()
                .map(channel)
                .collect::<Result<_, _>>()?,
            history,
            rng,
            share,
            dropped: 0,
        })
    }

    /// Where the caller decides something by chance.
    pub(crate) fn rng(&mut self) -> &mut StdRng {
        &mut self.rng
    }

    fn any(&mut self) -> Channel {
        let number = self.rng.random_range(0..self.channels.len());
        self.channels[number].clone()
    }

    /// Has something done, and puts on record what became of it.
    pub(crate) async fn call(&mut self, call: Call) -> Answer {
        let began = self.history.now();
        let (answer, sent) = self.until_answered(&call).await;
        self.history.add(Op {
            client: self.number,
            call,
            began,
            ended: self.history.now(),
            sent,
            answer: answer.clone(),
        });
        answer
    }

    async fn until_answered(&mut self, call: &Call) -> (Answer, u32) {
        let patience = Instant::now() + PATIENCE;
        let mut sent = 0;
        loop {
            let answer = if self.rng.random_bool(self.share.at_once) {
                sent += 3;
                self.at_once(call).await
            } else {
                sent += 1;
                let is_dropped = self.rng.random_bool(self.share.dropped);
                let limit = if is_dropped {
                    self.dropped += 1;
                    Duration::from_millis(self.rng.random_range(DROPPED_MS))
                } else {
                    ANSWER_MAX
                };
                attempt(self.any(), call, limit).await
            };
            match answer {
                Answer::Unknown(_) if Instant::now() < patience => {
                    let pause = self.rng.random_range(PAUSE_MS);
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
                Answer::Done(_) | Answer::Refused(..) | Answer::Wrong(_) | Answer::Unknown(_) => {
                    return (answer, sent);
                }
            }
        }
    }

    /// The same three times at once, to any replicas: what is answered must agree.
    async fn at_once(&mut self, call: &Call) -> Answer {
        let [first, second, third] = [self.any(), self.any(), self.any()];
        let (first, second, third) = tokio::join!(
            attempt(first, call, ANSWER_MAX),
            attempt(second, call, ANSWER_MAX),
            attempt(third, call, ANSWER_MAX),
        );
        let answers = [first, second, third];
        let wrong = answers
            .iter()
            .find(|answer| matches!(answer, Answer::Wrong(_)));
        if let Some(wrong) = wrong {
            return wrong.clone();
        }
        let mut done = answers
            .iter()
            .filter(|answer| matches!(answer, Answer::Done(_)));
        let Some(first) = done.next() else {
            let known = answers
                .iter()
                .find(|answer| !matches!(answer, Answer::Unknown(_)));
            return known.unwrap_or(&answers[0]).clone();
        };
        let agree = matches!(call, Call::Report(_)) || done.all(|other| other == first);
        if agree {
            first.clone()
        } else {
            Answer::Wrong(format!(
                "three at once were answered differently: {answers:?}"
            ))
        }
    }

    /// The status of a deployment, where a replica says so.
    pub(crate) async fn is_settled(&mut self, id: &str) -> Option<bool> {
        let mut client = DeployServiceClient::new(self.any());
        let request = client.get_deployment(GetDeploymentRequest { id: id.into() });
        let answer = timeout(ANSWER_MAX, request).await.ok()?.ok()?;
        Some(answer.into_inner().deployment?.completed_at.is_some())
    }

    /// The version that a unit is served, where a replica says so.
    pub(crate) async fn served(&mut self, prompt_id: &str, unit: &str) -> Option<i32> {
        let mut client = TrafficServiceClient::new(self.any());
        let request = client.resolve_version(ResolveVersionRequest {
            prompt_id: prompt_id.into(),
            environment: super::ENVIRONMENT.into(),
            targeting_key: unit.into(),
            preview: false,
        });
        let answer = timeout(ANSWER_MAX, request).await.ok()?.ok()?;
        Some(answer.into_inner().version)
    }
}

/// Sends a request once, and waits for its answer up to `limit`.
async fn attempt(channel: Channel, call: &Call, limit: Duration) -> Answer {
    match timeout(limit, send(channel, call)).await {
        Err(_) => Answer::Unknown("no answer in time".into()),
        Ok(Ok(done)) => Answer::Done(done),
        Ok(Err(status)) => of_status(&status),
    }
}

fn of_status(status: &Status) -> Answer {
    let why = format!("{:?}: {}", status.code(), status.message());
    // What has a source was not answered: the connection broke.
    if status.source().is_some() {
        return Answer::Unknown(why);
    }
    match status.code() {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::ResourceExhausted
        | Code::Aborted => Answer::Unknown(why),
        Code::FailedPrecondition | Code::NotFound => {
            Answer::Refused(status.code(), status.message().to_owned())
        }
        Code::Ok
        | Code::Unknown
        | Code::InvalidArgument
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => Answer::Wrong(why),
    }
}

async fn send(channel: Channel, call: &Call) -> Result<Done, Status> {
    let mut deploy = DeployServiceClient::new(channel.clone());
    let deployment = |deployment: Option<_>| -> Result<_, Status> {
        let deployment: delos_deploy::wire::pb::Deployment =
            deployment.ok_or_else(|| Status::internal("no deployment in the answer"))?;
        Ok(Box::new(deployment))
    };
    Ok(match call {
        Call::Create(request) => {
            let answer = deploy.create_deployment(signed(request, call)?).await?;
            Done::Deployment(deployment(answer.into_inner().deployment)?, None)
        }
        Call::CreateGate(request) => {
            let answer = deploy.create_quality_gate(signed(request, call)?).await?;
            let gate = answer.into_inner().quality_gate.unwrap_or_default();
            Done::Gate(gate.id)
        }
        Call::Approve(request) => {
            let answer = deploy.approve_deployment(signed(request, call)?).await?;
            Done::Deployment(deployment(answer.into_inner().deployment)?, None)
        }
        Call::RollBack(request) => {
            let answer = deploy.rollback_deployment(signed(request, call)?).await?;
            let answer = answer.into_inner();
            let back = answer.rollback_deployment.map(Box::new);
            Done::Deployment(deployment(answer.deployment)?, back)
        }
        Call::Cancel(request) => {
            let answer = deploy.cancel_deployment(signed(request, call)?).await?;
            Done::Deployment(deployment(answer.into_inner().deployment)?, None)
        }
        Call::Report(request) => {
            let mut telemetry = TelemetryServiceClient::new(channel);
            let answer = telemetry.report_outcomes(request.clone()).await?;
            Done::Reported(answer.into_inner())
        }
    })
}

/// The request with its key as the id of the request, so that its effects can be told in the audit.
fn signed<T: Clone>(request: &T, call: &Call) -> Result<Request<T>, Status> {
    let mut request = Request::new(request.clone());
    let id: MetadataValue<Ascii> = call
        .key()
        .parse()
        .map_err(|_| Status::internal("a key that is no metadata"))?;
    request.metadata_mut().insert("x-request-id", id);
    Ok(request)
}
