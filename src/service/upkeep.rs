//! What is done now and then: scores find their outcomes, and what is old is forgotten.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Service;
use crate::store;

/// How often it is looked for scores that came at the same time as their outcomes, elsewhere.
const MATCH_EVERY: Duration = Duration::from_secs(5);
/// How often what is old is forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Looks after what is stored, until it is told to stop. Outcomes are kept for `retention`.
pub async fn upkeep(service: Service, retention: Duration, stop: CancellationToken) {
    let mut forgotten = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(MATCH_EVERY) => {}
            () = stop.cancelled() => return,
        }
        if let Err(error) = service.match_scores().await {
            tracing::debug!(%error, "scores that wait could not be matched; they are later");
        }
        if forgotten.elapsed() < FORGET_EVERY {
            continue;
        }
        forgotten = tokio::time::Instant::now();
        if let Err(error) = forget(&service, retention, &stop).await {
            tracing::debug!(%error, "what is old could not be forgotten; it is later");
        }
    }
}

async fn forget(
    service: &Service,
    retention: Duration,
    stop: &CancellationToken,
) -> Result<(), store::Error> {
    service.store.forget_answers().await?;
    // A piece at a time, so that nobody waits for it.
    while !stop.is_cancelled() && service.store.forget_outcomes(retention).await? {
        tokio::task::yield_now().await;
    }
    Ok(())
}
