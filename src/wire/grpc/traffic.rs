//! `TrafficService` over gRPC.

use std::{pin::Pin, time::Duration};

use futures_util::{Stream, stream};
use tonic::{Request, Response, Status};

use super::{Grpc, done};
use crate::{
    traffic::Watch,
    wire::{
        error::status,
        pb::{self, traffic_service_server::TrafficService},
    },
};

/// How long a stream may be silent before it shows that it is alive.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[tonic::async_trait]
impl TrafficService for Grpc {
    async fn resolve_version(
        &self,
        request: Request<pb::ResolveVersionRequest>,
    ) -> Result<Response<pb::ResolveVersionResponse>, Status> {
        let message = request.get_ref();
        done(self.service.resolve(
            &message.environment,
            &message.prompt_id,
            &message.targeting_key,
            message.preview,
        ))
    }

    async fn get_traffic(
        &self,
        request: Request<pb::GetTrafficRequest>,
    ) -> Result<Response<pb::GetTrafficResponse>, Status> {
        let message = request.get_ref();
        done(self.service.split(&message.environment, &message.prompt_id))
    }

    async fn list_traffic(
        &self,
        request: Request<pb::ListTrafficRequest>,
    ) -> Result<Response<pb::ListTrafficResponse>, Status> {
        done(self.service.splits(&request.get_ref().environment))
    }

    type WatchTrafficStream =
        Pin<Box<dyn Stream<Item = Result<pb::WatchTrafficResponse, Status>> + Send>>;

    async fn watch_traffic(
        &self,
        request: Request<pb::WatchTrafficRequest>,
    ) -> Result<Response<Self::WatchTrafficStream>, Status> {
        let message = request.get_ref();
        let watch = self.service.watch(&message.environment, message.revision);
        let watch = watch.map_err(|error| status(&error))?;
        Ok(Response::new(Box::pin(stream::unfold(
            Some(watch),
            next_message,
        ))))
    }
}

/// The next message of a stream, which ends with UNAVAILABLE where the service stops, so that the
/// client goes on elsewhere.
async fn next_message(
    watch: Option<Watch>,
) -> Option<(Result<pb::WatchTrafficResponse, Status>, Option<Watch>)> {
    let mut watch = watch?;
    match tokio::time::timeout(KEEP_ALIVE, watch.next()).await {
        Ok(Some(update)) => Some((Ok(update.into()), Some(watch))),
        Ok(None) => Some((
            Err(Status::unavailable("the service is stopping; watch again")),
            None,
        )),
        Err(_) => Some((Ok(watch.nothing_new().into()), Some(watch))),
    }
}
