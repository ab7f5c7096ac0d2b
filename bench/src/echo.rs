//! The peer of the reads: tonic's own server with a handler that does nothing but answer. It is
//! what the transport alone costs, messages included.

use std::net::{Ipv4Addr, SocketAddr};

use delos_deploy::wire::pb::{
    self, Deployment, GetDeploymentRequest, GetDeploymentResponse,
    deploy_service_server::{DeployService, DeployServiceServer},
};
use tonic::{Request, Response, Status};

use crate::{Failure, calls};

/// Serves until the process is killed.
pub(crate) async fn serve(port: u16) -> Result<(), Failure> {
    let echo = Echo {
        deployment: calls::example_deployment(),
    };
    tonic::transport::Server::builder()
        .add_service(DeployServiceServer::new(echo))
        .serve(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .await?;
    Ok(())
}

struct Echo {
    deployment: Deployment,
}

impl Echo {
    fn refuse<T>() -> Result<Response<T>, Status> {
        Err(Status::unimplemented("the echo answers GetDeployment only"))
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

    async fn health(
        &self,
        _: Request<pb::HealthRequest>,
    ) -> Result<Response<pb::HealthResponse>, Status> {
        Self::refuse()
    }
}
