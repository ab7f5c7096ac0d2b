//! Asks those who decide conditions outside and have a webhook.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use uuid::Uuid;

use super::{Service, measure::TIME};
use crate::{
    domain::{
        Timestamp,
        deployment::Deployment,
        endpoint::Endpoint,
        gate::Source,
        judgement::{Again, Found, Measurement},
    },
    evidence::webhook::{Answer, Question},
    store::{self, Claim},
    telemetry::CallOutcome,
};

/// How many webhooks are asked at the same time for one deployment.
const AT_ONCE: usize = 8;

/// A webhook that is to be asked now.
struct Due<'d> {
    gate_id: Uuid,
    index: usize,
    endpoint: &'d Endpoint,
    question: Question,
    /// Whether it was asked before.
    was_asked: bool,
}

impl Service {
    /// Asks the webhooks that the gates of a claimed deployment wait for and that may be asked now.
    pub(super) async fn ask_webhooks(
        &self,
        claim: &Claim,
        deployment: &Deployment,
    ) -> Vec<Measurement> {
        // Nothing can be stored either, so that it is tried again later.
        let Ok(now) = self.store.now().await else {
            return Vec::new();
        };
        let mut due = due(deployment, now);
        // Those that take their time must not keep the same others from being asked each time.
        let first = usize::try_from(claim.epoch).unwrap_or_default();
        let first = first.checked_rem(due.len()).unwrap_or_default();
        due.rotate_left(first);
        due.sort_by_key(|due| due.was_asked);
        let asked: Vec<_> = due
            .into_iter()
            .map(|due| self.ask_webhook(claim, due, now))
            .collect();
        stream::iter(asked)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await
    }

    /// Asks one, while the deployment is claimed by this replica and no other.
    async fn ask_webhook(&self, claim: &Claim, due: Due<'_>, now: Timestamp) -> Measurement {
        let Due {
            gate_id,
            index,
            endpoint,
            question,
            ..
        } = due;
        let origin = endpoint.origin();
        let found = match self.time_left(claim).await {
            Err(why) => Found::Nothing(format!("webhook {origin} was not asked: {why}")),
            Ok(left) => {
                let asked = self.sources.webhooks.ask(endpoint, &question, now);
                let answer = tokio::time::timeout(left, asked)
                    .await
                    .unwrap_or_else(|_| Answer::Nothing("takes too long".into()));
                self.metrics.webhook_call(outcome(&answer));
                tracing::debug!(deployment_id = %claim.deployment_id, webhook = origin, ?answer, "a webhook was asked");
                found(&origin, answer, now)
            }
        };
        Measurement {
            gate_id,
            index,
            found,
        }
    }

    /// How much of the time is left that evidence may be looked for under a claim; or why there is
    /// none.
    async fn time_left(&self, claim: &Claim) -> Result<Duration, &'static str> {
        match self.store.holds(claim).await {
            Ok(true) => {}
            Ok(false) => return Err("another replica looks after the deployment"),
            Err(store::Error::Unavailable(_)) => return Err("the storage does not answer"),
            Err(_) => return Err("the storage failed"),
        }
        let left = TIME.checked_sub(claim.claimed_at.elapsed());
        left.ok_or("there was no time")
    }
}

fn due(deployment: &Deployment, now: Timestamp) -> Vec<Due<'_>> {
    let mut all = Vec::new();
    for gate in &deployment.gates {
        for (index, result) in gate.conditions_to_measure() {
            let Source::Webhook(endpoint) = &result.condition.source else {
                continue;
            };
            if matches!(result.again, Again::After(at) if now < at) {
                continue;
            }
            all.push(Due {
                gate_id: gate.gate_id,
                index,
                endpoint,
                question: Question::new(deployment, gate, index, &result.condition),
                was_asked: !result.note.is_empty(),
            });
        }
    }
    all
}

fn found(origin: &str, answer: Answer, now: Timestamp) -> Found {
    let note = |said: String| format!("webhook {origin} {said}");
    match answer {
        Answer::Value(value, said) => Found::Measure(value, note(said)),
        Answer::Verdict(passed, said) => Found::Verdict(passed, note(said)),
        Answer::Final(said) => Found::Reported(note(said)),
        Answer::Later(after, said) => Found::Later(now + after, note(said)),
        Answer::Nothing(why) => Found::Nothing(note(why)),
    }
}

fn outcome(answer: &Answer) -> CallOutcome {
    match answer {
        Answer::Value(..) | Answer::Verdict(..) => CallOutcome::Decided,
        Answer::Final(_) => CallOutcome::Final,
        Answer::Later(..) | Answer::Nothing(_) => CallOutcome::Failed,
    }
}
