//! What is said about each part.

use crate::cli::Settings;

/// What stands above the lines of a part.
pub(super) struct Heading {
    /// What was measured.
    pub(super) about: String,
    /// What is counted.
    pub(super) unit: &'static str,
    /// What the ratio is to.
    pub(super) ratio: &'static str,
}

/// The heading of a part.
pub(super) fn heading(part: &str, settings: &Settings) -> Heading {
    let Settings {
        connections,
        calls,
        callers,
        environments,
        ..
    } = settings;
    match part {
        "reads" => Heading {
            about: format!("GetDeployment, {connections} connections of {calls} concurrent calls"),
            unit: "calls/s",
            ratio: "of echo",
        },
        "writes" => Heading {
            about: format!(
                "CreateDeployment (gradual, starts at once), {callers} concurrent callers, \
                 environments: {environments}"
            ),
            unit: "creations/s",
            ratio: "of pgbench",
        },
        "resolves" => Heading {
            about: format!(
                "Which version to serve: gRPC over {connections} connections of {calls} concurrent \
                 calls, REST and OFREP over {} of one",
                settings.concurrency()
            ),
            unit: "calls/s",
            ratio: "of bare",
        },
        "half load" => Heading {
            about: "The same at half of those calls a second; latencies count from when a call \
                    was due"
                .to_owned(),
            unit: "calls/s",
            ratio: "",
        },
        "table" => Heading {
            about: "ResolveVersion of all prompts, as if at random".to_owned(),
            unit: "calls/s",
            ratio: "of the first",
        },
        "peers" => Heading {
            about: format!(
                "One flag at 10 %, {} connections of HTTP/1.1; 'times' is OFREP against the line",
                settings.concurrency()
            ),
            unit: "calls/s",
            ratio: "times",
        },
        _ => of_changes(part, settings),
    }
}

/// The heading of a part about what changes while it is served.
fn of_changes(part: &str, settings: &Settings) -> Heading {
    let Settings {
        connections, calls, ..
    } = settings;
    match part {
        "spread" => Heading {
            about: format!(
                "{} rollbacks: from the answer on one replica to the other one, which {} streams watch",
                settings.changes, settings.watchers
            ),
            unit: "rollbacks/s",
            ratio: "",
        },
        "ingest" => Heading {
            about: format!(
                "ReportOutcomes of {} outcomes, {connections} connections of {calls} concurrent calls, \
                 {} users; the latencies are a batch's",
                settings.batch, settings.users
            ),
            unit: "outcomes/s",
            ratio: "of bare",
        },
        "tipping" => Heading {
            about: format!(
                "{} rollouts that are rolled back: from the answer to the report that tips one until \
                 who watches the traffic is told",
                settings.tippings
            ),
            unit: "rollbacks/s",
            ratio: "",
        },
        _ => Heading {
            about: format!(
                "The reconciler on PostgreSQL, once for {} s; the latencies are the steps' lag",
                settings.rollout_duration().as_secs()
            ),
            unit: "steps/s",
            ratio: "of demand",
        },
    }
}
