//! tonic's own server with handlers that do nothing but answer. It is what the transport alone
//! costs, messages included.

use std::net::{Ipv4Addr, SocketAddr};

use delos_deploy::wire::pb::{
    self, Deployment, GetDeploymentRequest, GetDeploymentResponse, ResolveVersionRequest,
    ResolveVersionResponse,
    deploy_service_server::{DeployService, DeployServiceServer},
    telemetry_service_server::{TelemetryService, TelemetryServiceServer},
    traffic_service_server::{TrafficService, TrafficServiceServer},
};
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};

use crate::{
    Failure,
    calls::{deployments, traffic},
};

/// Serves until the process is killed.
pub(crate) async fn serve(port: u16) -> Result<(), Failure> {
    let echo = Echo {
        deployment: deployments::example(),
        version: traffic::example(),
    };
    tonic::transport::Server::builder()
        .add_service(DeployServiceServer::new(echo.clone()))
        .add_service(TelemetryServiceServer::new(echo.clone()))
        .add_service(TrafficServiceServer::new(echo))
        .serve(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .await?;
    Ok(())
}

#[derive(Clone)]
struct Echo {
    deployment: Deployment,
    version: ResolveVersionResponse,
}

impl Echo {
    fn refuse<T>() -> Result<Response<T>, Status> {
        Err(Status::unimplemented("the echo does not answer this"))
    }
}

#[tonic::async_trait]
impl DeployService for Echo {
    async fn get_deployment(
        &self,
        request: Request<GetDeploymentRequest>,
    ) -> Result<Response<GetDeploymentResponse>, Status> {
        let deployment = Deployment {
            id: request.into_inner().id,
            ..self.deployment.clone()
        };
        Ok(Response::new(GetDeploymentResponse {
            deployment: Some(deployment),
        }))
    }

    async fn create_deployment(
        &self,
        _: Request<pb::CreateDeploymentRequest>,
    ) -> Result<Response<pb::CreateDeploymentResponse>, Status> {
        Self::refuse()
    }

    async fn list_deployments(
        &self,
        _: Request<pb::ListDeploymentsRequest>,
    ) -> Result<Response<pb::ListDeploymentsResponse>, Status> {
        Self::refuse()
    }

    async fn approve_deployment(
        &self,
        _: Request<pb::ApproveDeploymentRequest>,
    ) -> Result<Response<pb::ApproveDeploymentResponse>, Status> {
        Self::refuse()
    }

    async fn rollback_deployment(
        &self,
        _: Request<pb::RollbackDeploymentRequest>,
    ) -> Result<Response<pb::RollbackDeploymentResponse>, Status> {
        Self::refuse()
    }

    async fn report_gate_condition(
        &self,
        _: Request<pb::ReportGateConditionRequest>,
    ) -> Result<Response<pb::ReportGateConditionResponse>, Status> {
        Self::refuse()
    }

    async fn cancel_deployment(
        &self,
        _: Request<pb::CancelDeploymentRequest>,
    ) -> Result<Response<pb::CancelDeploymentResponse>, Status> {
        Self::refuse()
    }

    async fn get_deployment_status(
        &self,
        _: Request<pb::GetDeploymentStatusRequest>,
    ) -> Result<Response<pb::GetDeploymentStatusResponse>, Status> {
        Self::refuse()
    }

    async fn create_quality_gate(
        &self,
        _: Request<pb::CreateQualityGateRequest>,
    ) -> Result<Response<pb::CreateQualityGateResponse>, Status> {
        Self::refuse()
    }

    async fn list_quality_gates(
        &self,
        _: Request<pb::ListQualityGatesRequest>,
    ) -> Result<Response<pb::ListQualityGatesResponse>, Status> {
        Self::refuse()
    }

    async fn explain_deployment(
        &self,
        _: Request<pb::ExplainDeploymentRequest>,
    ) -> Result<Response<pb::ExplainDeploymentResponse>, Status> {
        Self::refuse()
    }

    async fn health(
        &self,
        _: Request<pb::HealthRequest>,
    ) -> Result<Response<pb::HealthResponse>, Status> {
        Self::refuse()
    }
}

#[tonic::async_trait]
impl TrafficService for Echo {
    async fn resolve_version(
        &self,
        _: Request<ResolveVersionRequest>,
    ) -> Result<Response<ResolveVersionResponse>, Status> {
        Ok(Response::new(self.version.clone()))
    }

    async fn get_traffic(
        &self,
        _: Request<pb::GetTrafficRequest>,
    ) -> Result<Response<pb::GetTrafficResponse>, Status> {
        Self::refuse()
    }

    async fn list_traffic(
        &self,
        _: Request<pb::ListTrafficRequest>,
    ) -> Result<Response<pb::ListTrafficResponse>, Status> {
        Self::refuse()
    }

    type WatchTrafficStream = BoxStream<pb::WatchTrafficResponse>;

    async fn watch_traffic(
        &self,
        _: Request<pb::WatchTrafficRequest>,
    ) -> Result<Response<Self::WatchTrafficStream>, Status> {
        Self::refuse()
    }
}

/// Decodes what is reported, and forgets it.
#[tonic::async_trait]
impl TelemetryService for Echo {
    async fn report_outcomes(
        &self,
        request: Request<pb::ReportOutcomesRequest>,
    ) -> Result<Response<pb::ReportOutcomesResponse>, Status> {
        let report = request.into_inner();
        let count = report.outcomes.len() + report.scores.len();
        Ok(Response::new(pb::ReportOutcomesResponse {
            accepted: i32::try_from(count).unwrap_or(i32::MAX),
            ..Default::default()
        }))
    }

    async fn stream_outcomes(
        &self,
        _: Request<Streaming<pb::ReportOutcomesRequest>>,
    ) -> Result<Response<pb::ReportOutcomesResponse>, Status> {
        Self::refuse()
    }
}
