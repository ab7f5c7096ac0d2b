//! `TelemetryService` over gRPC.

use tonic::{Request, Response, Status, Streaming};

use super::{Grpc, done};
use crate::{
    service::Reported,
    wire::{
        convert,
        error::status,
        pb::{self, telemetry_service_server::TelemetryService},
    },
};

#[tonic::async_trait]
impl TelemetryService for Grpc {
    async fn report_outcomes(
        &self,
        request: Request<pb::ReportOutcomesRequest>,
    ) -> Result<Response<pb::ReportOutcomesResponse>, Status> {
        let (outcomes, scores) = convert::report(request.into_inner());
        done(self.service.report(outcomes, scores).await)
    }

    async fn stream_outcomes(
        &self,
        request: Request<Streaming<pb::ReportOutcomesRequest>>,
    ) -> Result<Response<pb::ReportOutcomesResponse>, Status> {
        let mut batches = request.into_inner();
        let (mut all, mut count) = (Reported::default(), 0);
        while let Some(batch) = batches.message().await? {
            let size = batch.outcomes.len() + batch.scores.len();
            let (outcomes, scores) = convert::report(batch);
            let reported = self.service.report(outcomes, scores).await;
            let reported = reported.map_err(|error| status(&error))?;
            all.accepted += reported.accepted;
            all.duplicates += reported.duplicates;
            let refused = reported.refused.into_iter();
            all.refused
                .extend(refused.map(|(place, refusal)| (count + place, refusal)));
            count += size;
        }
        Ok(Response::new(all.into()))
    }
}
