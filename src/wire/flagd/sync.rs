//! `flagd.sync.v1`: the whole configuration, and again with each change.

use std::{pin::Pin, time::Duration};

use futures_util::{Stream, stream};
use prost_types::Struct;
use tonic::{Request, Response, Status};

use super::{
    Flagd, flags,
    pb::sync::v1::{
        FetchAllFlagsRequest, FetchAllFlagsResponse, GetMetadataRequest, GetMetadataResponse,
        SyncFlagsRequest, SyncFlagsResponse, flag_sync_service_server::FlagSyncService,
    },
    stopping,
};
use crate::{traffic::Watch, wire::error::status};

/// How long changes are gathered before the configuration is sent: it is sent whole each time, and
/// providers hold only a few that they have not worked off.
const BURST: Duration = Duration::from_millis(50);

#[tonic::async_trait]
impl FlagSyncService for Flagd {
    type SyncFlagsStream = Pin<Box<dyn Stream<Item = Result<SyncFlagsResponse, Status>> + Send>>;

    async fn sync_flags(
        &self,
        request: Request<SyncFlagsRequest>,
    ) -> Result<Response<Self::SyncFlagsStream>, Status> {
        let environment = self.environment(request.metadata(), &request.get_ref().selector)?;
        let watch = self.service.watch(&environment, 0);
        let sync = Sync {
            watch: watch.map_err(|error| status(&error))?,
            flagd: self.clone(),
            environment,
            has_begun: false,
        };
        Ok(Response::new(Box::pin(stream::unfold(
            Some(sync),
            next_message,
        ))))
    }

    async fn fetch_all_flags(
        &self,
        request: Request<FetchAllFlagsRequest>,
    ) -> Result<Response<FetchAllFlagsResponse>, Status> {
        let environment = self.environment(request.metadata(), &request.get_ref().selector)?;
        let flag_configuration = self.configuration(&environment)?;
        Ok(Response::new(FetchAllFlagsResponse { flag_configuration }))
    }

    async fn get_metadata(
        &self,
        _: Request<GetMetadataRequest>,
    ) -> Result<Response<GetMetadataResponse>, Status> {
        let metadata = Some(Struct::default());
        Ok(Response::new(GetMetadataResponse { metadata }))
    }
}

impl Flagd {
    fn configuration(&self, environment: &str) -> Result<String, Status> {
        let served = self.service.splits(environment);
        let served = served.map_err(|error| status(&error))?;
        Ok(flags::configuration(&served.traffic))
    }
}

/// A provider that is kept up to date.
struct Sync {
    flagd: Flagd,
    environment: String,
    watch: Watch,
    has_begun: bool,
}

impl Sync {
    /// Waits until there is something to send; none when the service stops.
    async fn wait(&mut self) -> Option<()> {
        if !self.has_begun {
            self.has_begun = true;
            return self.watch.next().await.map(drop);
        }
        // A revision without a change of this environment's splits is no news.
        while !self.watch.next().await?.is_news() {}
        let gathered = tokio::time::sleep(BURST);
        tokio::pin!(gathered);
        loop {
            tokio::select! {
                () = &mut gathered => return Some(()),
                update = self.watch.next() => drop(update?),
            }
        }
    }
}

async fn next_message(
    sync: Option<Sync>,
) -> Option<(Result<SyncFlagsResponse, Status>, Option<Sync>)> {
    let mut sync = sync?;
    if sync.wait().await.is_none() {
        return Some((Err(stopping()), None));
    }
    match sync.flagd.configuration(&sync.environment) {
        Ok(flag_configuration) => {
            let message = SyncFlagsResponse {
                flag_configuration,
                sync_context: None,
            };
            Some((Ok(message), Some(sync)))
        }
        Err(status) => Some((Err(status), None)),
    }
}
