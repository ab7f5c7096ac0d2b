//! The parts of the bench.

use crate::{
    Failure,
    cli::{Part, Settings},
    figures::Row,
};

mod ingest;
mod line;
mod peers;
mod reads;
mod resolves;
mod rollouts;
mod spread;
mod tipping;
mod watchers;
mod writes;

/// Measures what is asked for, part by part.
pub(crate) async fn measure(settings: &Settings) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    if settings.measures(Part::Reads) {
        rows.extend(reads::measure(settings).await?);
    }
    if settings.measures(Part::Writes) {
        rows.extend(writes::measure(settings).await?);
    }
    if settings.measures(Part::Rollouts) {
        rows.extend(rollouts::measure(settings).await?);
    }
    if settings.measures(Part::Resolves) {
        rows.extend(resolves::measure(settings).await?);
    }
    if settings.measures(Part::Peers) {
        rows.extend(peers::measure(settings).await?);
    }
    if settings.measures(Part::Spread) {
        rows.extend(spread::measure(settings).await?);
    }
    if settings.measures(Part::Ingest) {
        rows.extend(ingest::measure(settings).await?);
    }
    if settings.measures(Part::Tipping) {
        rows.extend(tipping::measure(settings).await?);
    }
    Ok(rows)
}
