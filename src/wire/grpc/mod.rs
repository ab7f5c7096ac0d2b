//! gRPC (and, through a layer, gRPC-web): convert, ask the service, convert back.

use prost::Message;
use tonic::{Request, Response, Status};

mod telemetry;
mod traffic;

pub(super) use traffic::KEEP_ALIVE;

use super::{
    caller::caller,
    convert,
    error::status,
    health::Readiness,
    once::{self, Keyed},
    pb::{self, audit_service_server::AuditService, deploy_service_server::DeployService},
};
use crate::{
    domain::{audit::Caller, deployment::Deployment, gate::Gate},
    service::{Once, Reply, RolledBack, Service},
};

/// Every service of ours.
#[derive(Debug, Clone)]
pub(super) struct Grpc {
    pub(super) service: Service,
    pub(super) readiness: Readiness,
}

/// The message, who sent it, and what makes it count once.
fn open<M, T, A>(request: Request<M>) -> Result<(M, Caller, Option<Once<T>>), Status>
where
    M: Keyed,
    T: Clone,
    A: From<T> + Message,
{
    let (metadata, extensions, message) = request.into_parts();
    let refused = |error: crate::service::Error| status(&error);
    let caller = caller(metadata.as_ref(), &extensions).map_err(refused)?;
    let key = once::header(metadata.as_ref()).map_err(refused)?;
    let once = once::once::<M, T, A>(&message, key.as_deref(), &caller).map_err(refused)?;
    Ok((message, caller, once))
}

fn replied<T, A: From<T> + Message + Default>(
    reply: Result<Reply<T>, crate::service::Error>,
) -> Result<Response<A>, Status> {
    let answer = reply.and_then(once::answer);
    answer.map(Response::new).map_err(|error| status(&error))
}

fn done<T, E: From<T>>(value: Result<T, crate::service::Error>) -> Result<Response<E>, Status> {
    value
        .map(|value| Response::new(value.into()))
        .map_err(|error| status(&error))
}

#[tonic::async_trait]
impl DeployService for Grpc {
    async fn create_deployment(
        &self,
        request: Request<pb::CreateDeploymentRequest>,
    ) -> Result<Response<pb::CreateDeploymentResponse>, Status> {
        let (message, caller, once) = open::<_, Deployment, pb::CreateDeploymentResponse>(request)?;
        let command = convert::deployment_request(message);
        replied(self.service.create(command, &caller, once).await)
    }

    async fn get_deployment(
        &self,
        request: Request<pb::GetDeploymentRequest>,
    ) -> Result<Response<pb::GetDeploymentResponse>, Status> {
        done(self.service.deployment(&request.get_ref().id).await)
    }

    async fn list_deployments(
        &self,
        request: Request<pb::ListDeploymentsRequest>,
    ) -> Result<Response<pb::ListDeploymentsResponse>, Status> {
        let query = convert::deployment_query(request.into_inner());
        done(self.service.deployments(&query).await)
    }

    async fn approve_deployment(
        &self,
        request: Request<pb::ApproveDeploymentRequest>,
    ) -> Result<Response<pb::ApproveDeploymentResponse>, Status> {
        let (message, caller, once) =
            open::<_, Deployment, pb::ApproveDeploymentResponse>(request)?;
        replied(
            self.service
                .approve(&message.id, &message.comment, &caller, once)
                .await,
        )
    }

    async fn report_gate_condition(
        &self,
        request: Request<pb::ReportGateConditionRequest>,
    ) -> Result<Response<pb::ReportGateConditionResponse>, Status> {
        let (message, caller, once) =
            open::<_, Deployment, pb::ReportGateConditionResponse>(request)?;
        let id = message.id.clone();
        let report = convert::condition_report(message);
        replied(
            self.service
                .report_condition(&id, &report, &caller, once)
                .await,
        )
    }

    async fn rollback_deployment(
        &self,
        request: Request<pb::RollbackDeploymentRequest>,
    ) -> Result<Response<pb::RollbackDeploymentResponse>, Status> {
        let (message, caller, once) =
            open::<_, RolledBack, pb::RollbackDeploymentResponse>(request)?;
        replied(
            self.service
                .roll_back(&message.id, &message.reason, &caller, once)
                .await,
        )
    }

    async fn cancel_deployment(
        &self,
        request: Request<pb::CancelDeploymentRequest>,
    ) -> Result<Response<pb::CancelDeploymentResponse>, Status> {
        let (message, caller, once) = open::<_, Deployment, pb::CancelDeploymentResponse>(request)?;
        replied(
            self.service
                .cancel(&message.id, &message.reason, &caller, once)
                .await,
        )
    }

    async fn get_deployment_status(
        &self,
        request: Request<pb::GetDeploymentStatusRequest>,
    ) -> Result<Response<pb::GetDeploymentStatusResponse>, Status> {
        done(self.service.progress(&request.get_ref().id).await)
    }

    async fn create_quality_gate(
        &self,
        request: Request<pb::CreateQualityGateRequest>,
    ) -> Result<Response<pb::CreateQualityGateResponse>, Status> {
        let (message, caller, once) = open::<_, Gate, pb::CreateQualityGateResponse>(request)?;
        let command = convert::gate_request(message);
        replied(self.service.create_gate(&command, &caller, once).await)
    }

    async fn list_quality_gates(
        &self,
        request: Request<pb::ListQualityGatesRequest>,
    ) -> Result<Response<pb::ListQualityGatesResponse>, Status> {
        done(self.service.list_gates(&request.get_ref().prompt_id).await)
    }

    async fn explain_deployment(
        &self,
        request: Request<pb::ExplainDeploymentRequest>,
    ) -> Result<Response<pb::ExplainDeploymentResponse>, Status> {
        done(self.service.explain(&request.get_ref().id).await)
    }

    async fn health(
        &self,
        _: Request<pb::HealthRequest>,
    ) -> Result<Response<pb::HealthResponse>, Status> {
        Ok(Response::new(self.readiness.health()))
    }
}

#[tonic::async_trait]
impl AuditService for Grpc {
    async fn list_events(
        &self,
        request: Request<pb::ListEventsRequest>,
    ) -> Result<Response<pb::ListEventsResponse>, Status> {
        let (query, size, token) = convert::event_query(request.into_inner());
        done(self.service.events(&query, size, &token).await)
    }
}
