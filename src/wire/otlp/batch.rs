//! What an export comes to: outcomes and scores to report, and what is neither.

use std::collections::HashSet;

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    trace::v1::Span,
};

use super::{Otlp, attributes::Attributes, evaluation, span};
use crate::{
    domain::outcome::{OutcomeReport, Reason, Refusal, ScoreReport},
    service::{Error, REPORT_MAX, Reported, Service},
};

/// What an export is read as.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) outcomes: Vec<OutcomeReport>,
    pub(super) scores: Vec<ScoreReport>,
    /// How many spans, evaluations and log records are nothing of ours.
    pub(super) dropped: usize,
}

/// What became of it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Taken {
    pub(super) outcomes: usize,
    pub(super) scores: usize,
    pub(super) dropped: usize,
    pub(super) refused_outcomes: usize,
    pub(super) refused_scores: usize,
    /// Why the first one was refused.
    pub(super) why: String,
}

impl Batch {
    /// Reads spans. One is at most one outcome; each evaluation among its events is a score.
    pub(super) fn of_traces(request: &ExportTraceServiceRequest, otlp: &Otlp) -> Self {
        let mut batch = Self::default();
        for group in &request.resource_spans {
            let resource = group.resource.as_ref();
            let resource = resource.map_or(&[][..], |resource| &resource.attributes);
            for span in group.scope_spans.iter().flat_map(|scope| &scope.spans) {
                let attributes = Attributes::new(&span.attributes, resource);
                batch.add_span(span, &attributes, otlp);
            }
        }
        batch
    }

    fn add_span(&mut self, span: &Span, attributes: &Attributes<'_>, otlp: &Otlp) {
        let outcome = span::outcome(span, attributes, otlp.default_environment.as_str());
        let evaluated = evaluation::evaluated(span, outcome.is_some());
        // Nobody's calls but the previewer's are what the evaluations are of.
        let evaluated = evaluated.filter(|_| !attributes.is_preview());
        for event in evaluation::events(span) {
            let of_event = |id| evaluation::of_event(event, id, otlp.evaluation());
            match evaluated.clone().and_then(of_event) {
                Some(score) => self.scores.push(score),
                None => self.dropped += 1,
            }
        }
        match outcome {
            Some(outcome) => self.outcomes.push(outcome),
            None => self.dropped += 1,
        }
    }

    /// Reads log records. One is at most one score.
    pub(super) fn of_logs(request: &ExportLogsServiceRequest, otlp: &Otlp) -> Self {
        let mut batch = Self::default();
        let scopes = request.resource_logs.iter().flat_map(|it| &it.scope_logs);
        for record in scopes.flat_map(|scope| &scope.log_records) {
            match evaluation::of_record(record, otlp.evaluation()) {
                Some(score) => batch.scores.push(score),
                None => batch.dropped += 1,
            }
        }
        batch
    }

    /// Reports it: the outcomes first, so that what is not ours is known before its scores are
    /// stored to wait for it.
    ///
    /// # Errors
    /// The service takes nothing at the moment. What was stored before that is known when it comes
    /// again, and counts once.
    pub(super) async fn report(self, service: &Service) -> Result<Taken, Error> {
        let mut taken = Taken {
            dropped: self.dropped,
            ..Taken::default()
        };
        let mut foreign = HashSet::new();
        for outcomes in self.outcomes.chunks(REPORT_MAX) {
            let reported = service.report(outcomes.to_vec(), Vec::new()).await?;
            taken.outcomes += reported.accepted + reported.duplicates;
            for (place, refusal) in taken.refuse(reported) {
                if is_foreign(&refusal) {
                    foreign.insert(outcomes[place].id.as_str());
                    taken.dropped += 1;
                } else {
                    taken.refused_outcomes += 1;
                }
            }
        }
        let mut scores = self.scores;
        let all = scores.len();
        scores.retain(|score| !foreign.contains(score.outcome_id.as_str()));
        taken.dropped += all - scores.len();
        for scores in scores.chunks(REPORT_MAX) {
            let reported = service.report(Vec::new(), scores.to_vec()).await?;
            taken.scores += reported.accepted + reported.duplicates;
            taken.refused_scores += taken.refuse(reported).len();
        }
        Ok(taken)
    }
}

impl Taken {
    /// Those that were refused, the first reason kept.
    fn refuse(&mut self, reported: Reported) -> Vec<(usize, Refusal)> {
        let told = reported
            .refused
            .iter()
            .find(|(_, refusal)| !is_foreign(refusal));
        if let Some((_, refusal)) = told
            && self.why.is_empty()
        {
            self.why.clone_from(&refusal.message);
        }
        reported.refused
    }
}

/// Whether it is of a prompt, or a version, that is none of ours: an application sends all its
/// spans, and that is no mistake.
fn is_foreign(refusal: &Refusal) -> bool {
    match refusal.reason {
        Reason::PromptId
        | Reason::Environment
        | Reason::Version
        | Reason::PromptUnknown
        | Reason::VersionNotServed => true,
        Reason::Id
        | Reason::Unit
        | Reason::At
        | Reason::InFuture
        | Reason::TooOld
        | Reason::Latency
        | Reason::Score
        | Reason::Cost
        | Reason::CorruptRow => false,
    }
}
