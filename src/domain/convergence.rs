//! How far a split has spread: which replicas serve it, and which of their watchers have been sent
//! it.

use std::time::Duration;

use uuid::Uuid;

use super::Timestamp;

/// From when on it is not known what a replica serves that has not reported: it reports more often.
pub const SILENT_AFTER: Duration = Duration::from_secs(15);
/// From when on a replica that has not reported is taken for gone.
pub const GONE_AFTER: Duration = Duration::from_secs(60);

/// How far a replica has spread an environment's splits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spread {
    /// The revision up to which it serves them.
    pub revision: i64,
    /// Streams of clients that watch them there.
    pub watchers: u32,
    /// Those of them that have not been sent the last change yet.
    pub watchers_behind: u32,
}

/// What a replica has reported of an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// The replica; another one after each start.
    pub replica_id: Uuid,
    /// When it reported last.
    pub seen_at: Timestamp,
    /// How far it has spread the splits; nothing where it has heard of none there.
    pub spread: Spread,
}

/// How far a split has spread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Convergence {
    /// The split's revision; 0 where nothing was ever served.
    pub revision: i64,
    /// Every replica, those that started first before the others.
    pub replicas: Vec<ReplicaConvergence>,
}

/// How far a split has spread on a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaConvergence {
    /// What it has reported; of its watchers, those count as behind who have not been sent the
    /// split.
    pub report: Report,
    /// Whether it serves the split, as far as it has reported.
    pub serves: bool,
    /// Whether it has not reported for [`SILENT_AFTER`].
    pub is_silent: bool,
}

impl Convergence {
    /// How far a split has spread by what the replicas have reported.
    #[must_use]
    pub fn of(revision: i64, mut reports: Vec<Report>, now: Timestamp) -> Self {
        reports.sort_unstable_by_key(|report| report.replica_id);
        let replicas = reports.into_iter().filter_map(|mut report| {
            // The clocks of two replicas may differ by a little.
            let silence = (now - report.seen_at).to_std().unwrap_or_default();
            let serves = report.spread.revision >= revision;
            if !serves {
                report.spread.watchers_behind = report.spread.watchers;
            }
            (silence < GONE_AFTER).then_some(ReplicaConvergence {
                report,
                serves,
                is_silent: silence >= SILENT_AFTER,
            })
        });
        Self {
            revision,
            replicas: replicas.collect(),
        }
    }

    /// Whether every replica serves the split, and has sent it to everybody who watches. A replica
    /// of which that is not known may not.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.replicas.iter().all(|replica| {
            replica.serves && !replica.is_silent && replica.report.spread.watchers_behind == 0
        })
    }

    /// Streams that watch, on all replicas, and those of them that have not been sent the split.
    #[must_use]
    pub fn watchers(&self) -> (u32, u32) {
        let spreads = self.replicas.iter().map(|replica| replica.report.spread);
        spreads.fold((0, 0), |(all, behind), spread| {
            (
                all.saturating_add(spread.watchers),
                behind.saturating_add(spread.watchers_behind),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn report(replica: u128, revision: i64, behind: u32, seconds_ago: u64) -> Report {
        Report {
            replica_id: Uuid::from_u128(replica),
            seen_at: NOW - Duration::from_secs(seconds_ago),
            spread: Spread {
                revision,
                watchers: 3,
                watchers_behind: behind,
            },
        }
    }

    fn judged(reports: &[Report]) -> (bool, (u32, u32)) {
        let convergence = Convergence::of(7, reports.to_vec(), NOW);
        (convergence.is_complete(), convergence.watchers())
    }

    #[test]
    fn it_is_complete_when_every_replica_has_sent_it_to_everybody() {
        assert_eq!(judged(&[]), (true, (0, 0)));
        assert_eq!(
            judged(&[report(1, 7, 0, 0), report(2, 9, 0, 14)]),
            (true, (6, 0))
        );
        assert_eq!(judged(&[report(1, 7, 1, 0)]), (false, (3, 1)));
    }

    #[test]
    fn the_watchers_of_a_replica_that_does_not_serve_it_are_all_behind() {
        assert_eq!(
            judged(&[report(1, 7, 0, 0), report(2, 6, 0, 0)]),
            (false, (6, 3))
        );
    }

    #[test]
    fn what_a_silent_replica_serves_is_not_known_until_it_is_taken_for_gone() {
        assert_eq!(judged(&[report(1, 7, 0, 15)]), (false, (3, 0)));
        assert_eq!(judged(&[report(1, 6, 0, 59)]), (false, (3, 3)));
        assert_eq!(judged(&[report(1, 6, 0, 60)]), (true, (0, 0)));
    }
}
