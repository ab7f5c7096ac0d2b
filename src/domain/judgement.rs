//! What becomes of the gates that a deployment is bound to: what was measured, and the verdicts.

use uuid::Uuid;

use super::{
    Timestamp,
    gate::{Condition, Gate, Source},
};

/// A verdict on a gate or a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not measured yet.
    Waiting,
    /// Measured and met.
    Passed,
    /// Measured and not met, or not measured in time.
    Failed,
}

/// A gate as it was when it was bound to a deployment, and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct GateResult {
    /// The gate.
    pub gate_id: Uuid,
    /// Its name.
    pub gate_name: String,
    /// Whether a failure stops the deployment.
    pub required: bool,
    /// The verdict on all its conditions.
    pub verdict: Verdict,
    /// The verdict in a sentence.
    pub message: String,
    /// Its conditions, in order.
    pub conditions: Vec<ConditionResult>,
}

/// A condition as it was when it was bound to a deployment, and what was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct ConditionResult {
    /// The condition.
    pub condition: Condition,
    /// What was measured; none until it was, and where there is no number to it.
    pub actual: Option<f64>,
    /// The verdict.
    pub verdict: Verdict,
    /// Where the measure comes from, or why there is none; empty until it was looked for.
    pub note: String,
    /// When it is looked for again, where it still waits.
    pub again: Again,
}

/// When evidence that is missing is looked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// When its turn comes.
    Soon,
    /// Not before this moment, as who was asked has said.
    After(Timestamp),
    /// Never: it is reported, or stays missing.
    Never,
}

/// What looking for the evidence of a condition has come to.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// A number, to be compared, and where it comes from.
    Measure(f64, String),
    /// A verdict that was reached elsewhere, and by whom.
    Verdict(bool, String),
    /// Evidence that can't count, and never will, and why.
    Unusable(String),
    /// No evidence yet, and why.
    Nothing(String),
    /// No evidence yet, why, and the moment before which there is no use in looking again.
    Later(Timestamp, String),
    /// No evidence, why, and no use in looking again: it is reported, or stays missing.
    Reported(String),
}

/// The evidence for a condition of a gate.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// The gate.
    pub gate_id: Uuid,
    /// Which of its conditions, counted from 0.
    pub index: usize,
    /// What was found.
    pub found: Found,
}

/// Most characters of a note: what another service says of itself may be long.
const NOTE_MAX: usize = 512;

impl GateResult {
    /// A gate that begins to be judged.
    #[must_use]
    pub fn waiting(gate: Gate) -> Self {
        let conditions: Vec<_> = gate
            .conditions
            .into_iter()
            .map(|condition| ConditionResult {
                condition,
                actual: None,
                verdict: Verdict::Waiting,
                note: String::new(),
                again: Again::Soon,
            })
            .collect();
        let mut result = Self {
            gate_id: gate.id,
            gate_name: gate.name,
            required: gate.required,
            verdict: Verdict::Waiting,
            message: String::new(),
            conditions,
        };
        result.message = format!("waiting for {}", result.missing());
        result
    }

    /// What has not been measured yet, and why, in words.
    #[must_use]
    pub fn missing(&self) -> String {
        let waiting = |result: &&ConditionResult| result.verdict == Verdict::Waiting;
        let missing: Vec<_> = self
            .conditions
            .iter()
            .filter(waiting)
            .map(ConditionResult::describe)
            .collect();
        missing.join(", ")
    }

    /// Takes in what was found for the condition of an index, where it still waits; says whether it
    /// has a verdict now.
    pub fn take(&mut self, index: usize, found: &Found) -> bool {
        if self.verdict != Verdict::Waiting {
            return false;
        }
        let Some(condition) = self
            .conditions
            .get_mut(index)
            .filter(|condition| condition.verdict == Verdict::Waiting)
        else {
            return false;
        };
        condition.take(found);
        let is_judged = condition.verdict != Verdict::Waiting;
        self.judge();
        is_judged
    }

    /// The first failure decides; a pass takes them all.
    fn judge(&mut self) {
        let of =
            |verdict| move |condition: &&ConditionResult| -> bool { condition.verdict == verdict };
        if let Some(failed) = self.conditions.iter().find(of(Verdict::Failed)) {
            self.verdict = Verdict::Failed;
            self.message = failed.describe();
        } else if self.conditions.iter().any(|it| of(Verdict::Waiting)(&it)) {
            self.message = format!("waiting for {}", self.missing());
        } else {
            self.verdict = Verdict::Passed;
            let all: Vec<_> = self
                .conditions
                .iter()
                .map(ConditionResult::describe)
                .collect();
            self.message = all.join(", ");
        }
    }

    /// Whether a condition compares the new version with the one that is served.
    #[must_use]
    pub fn compares_versions(&self) -> bool {
        self.conditions.iter().any(ConditionResult::compares)
    }

    /// Forgets what the new version was found to be beside the one that was served.
    pub(super) fn compare_anew(&mut self) {
        let mut forgotten = false;
        for result in self.conditions.iter_mut().filter(|it| it.compares()) {
            (result.verdict, result.actual) = (Verdict::Waiting, None);
            result.note.clear();
            forgotten = true;
        }
        if forgotten {
            self.verdict = Verdict::Waiting;
            self.judge();
        }
    }

    /// Whether there is a condition whose evidence is still to be looked for.
    pub fn conditions_to_measure(&self) -> impl Iterator<Item = (usize, &ConditionResult)> {
        let waits = self.verdict == Verdict::Waiting;
        self.conditions
            .iter()
            .enumerate()
            .filter(move |(_, condition)| {
                waits
                    && condition.verdict == Verdict::Waiting
                    && condition.condition.source != Source::Outside
                    && condition.again != Again::Never
            })
    }
}

impl ConditionResult {
    fn compares(&self) -> bool {
        matches!(self.condition.source, Source::BothVersions(_))
    }

    pub(super) fn take(&mut self, found: &Found) {
        self.again = match found {
            Found::Later(at, _) => Again::After(*at),
            Found::Reported(_) => Again::Never,
            Found::Measure(..) | Found::Verdict(..) | Found::Unusable(_) | Found::Nothing(_) => {
                Again::Soon
            }
        };
        let (verdict, actual, note) = match found {
            Found::Measure(value, note) => match self.condition.compare(*value) {
                Ok(true) => (Verdict::Passed, Some(*value), note.clone()),
                Ok(false) => (Verdict::Failed, Some(*value), note.clone()),
                Err(why) => (Verdict::Failed, None, format!("{note}: {why}")),
            },
            Found::Verdict(true, note) => (Verdict::Passed, None, note.clone()),
            Found::Verdict(false, note) => (Verdict::Failed, None, note.clone()),
            Found::Unusable(why) => (Verdict::Failed, None, why.clone()),
            Found::Nothing(why) | Found::Later(_, why) | Found::Reported(why) => {
                (Verdict::Waiting, None, why.clone())
            }
        };
        self.verdict = verdict;
        self.actual = actual;
        self.note = note.chars().take(NOTE_MAX).collect();
    }

    /// The condition and what became of it: "eval_score on dataset 'golden' is 0.83, must be gte 0.9
    /// (run 17)".
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = self.condition.evidence();
        if let Some(actual) = self.actual {
            let (operator, limit) = (self.condition.operator, self.condition.limit());
            text += &format!(" is {actual}, must be {} {limit}", operator.as_str());
        }
        if !self.note.is_empty() {
            text += &format!(" ({})", self.note);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::gate::{ConditionType, Operator};

    fn gate(conditions: &[(ConditionType, Operator, f64)]) -> GateResult {
        let conditions = conditions
            .iter()
            .map(|(kind, operator, threshold)| Condition {
                kind: *kind,
                operator: *operator,
                threshold: *threshold,
                source: Source::Run("17".into()),
            });
        let conditions: Vec<_> = conditions.collect();
        GateResult::waiting(Gate {
            id: Uuid::nil(),
            name: "Prod Gate".into(),
            prompt_id: crate::domain::ids::PromptId::parse("p").unwrap(),
            conditions,
            required: true,
            created_at: crate::domain::Timestamp::UNIX_EPOCH,
            created_by: crate::domain::ids::Actor::anonymous(),
        })
    }

    fn measure(value: f64) -> Found {
        Found::Measure(value, "run 17".into())
    }

    #[test]
    fn a_gate_passes_when_every_condition_has() {
        let score = (ConditionType::EvalScore, Operator::Gte, 0.9);
        let mut gate = gate(&[score, (ConditionType::Latency, Operator::Lte, 500.0)]);
        assert!(gate.take(0, &measure(0.9)));
        assert_eq!(gate.verdict, Verdict::Waiting);
        assert!(!gate.take(0, &measure(0.1)), "a verdict is final");
        assert!(!gate.take(1, &Found::Nothing("run 17 is RUNNING".into())));
        assert!(
            gate.message.starts_with("waiting for latency"),
            "{}",
            gate.message
        );
        assert!(gate.message.contains("RUNNING"), "{}", gate.message);
        assert!(gate.take(1, &measure(480.0)));
        assert_eq!(gate.verdict, Verdict::Passed);
        assert!(!gate.take(7, &measure(0.9)), "there is no such condition");
    }

    #[test]
    fn the_first_failure_decides() {
        let score = (ConditionType::EvalScore, Operator::Gte, 0.9);
        let mut gate = gate(&[score, score]);
        assert!(gate.take(1, &measure(0.83)));
        assert_eq!(gate.verdict, Verdict::Failed);
        assert_eq!(
            gate.message,
            "eval_score of evaluation run '17' is 0.83, must be gte 0.9 (run 17)"
        );
        assert!(!gate.take(0, &measure(0.95)));
    }

    #[test]
    fn what_can_not_be_is_never_a_pass() {
        for (kind, operator, threshold, value) in [
            (ConditionType::EvalScore, Operator::Gte, 0.9, f64::NAN),
            (ConditionType::EvalScore, Operator::Gte, 0.9, f64::INFINITY),
            (ConditionType::EvalScore, Operator::Gte, 0.9, 1.01),
            (ConditionType::EvalScore, Operator::Lte, 0.9, -0.01),
            (ConditionType::Latency, Operator::Lte, 500.0, -1.0),
            (ConditionType::Cost, Operator::Lte, 0.1, -0.1),
        ] {
            let mut gate = gate(&[(kind, operator, threshold)]);
            assert!(gate.take(0, &measure(value)));
            assert_eq!(gate.verdict, Verdict::Failed, "{value}");
            assert_eq!(gate.conditions[0].actual, None);
        }
        let mut gate = gate(&[(ConditionType::EvalScore, Operator::Gte, 0.0)]);
        assert!(gate.take(0, &Found::Unusable("run 17 is of version 3".into())));
        assert_eq!(gate.verdict, Verdict::Failed);
    }

    #[test]
    fn what_is_reported_or_asks_for_rest_is_not_looked_for_and_still_waits() {
        let later = Timestamp::UNIX_EPOCH + chrono::TimeDelta::minutes(2);
        for (found, again, is_looked_for) in [
            (Found::Nothing("answers 500".into()), Again::Soon, true),
            (
                Found::Later(later, "answers 503".into()),
                Again::After(later),
                true,
            ),
            (
                Found::Reported("has taken it on".into()),
                Again::Never,
                false,
            ),
        ] {
            let mut gate = gate(&[(ConditionType::Custom, Operator::Gte, 0.9)]);
            assert!(!gate.take(0, &found));
            assert_eq!(gate.conditions[0].again, again);
            assert_eq!(gate.conditions_to_measure().count() == 1, is_looked_for);
            assert_eq!(gate.verdict, Verdict::Waiting);
            assert!(gate.take(0, &measure(0.93)), "it is reported all the same");
            assert_eq!(gate.verdict, Verdict::Passed);
        }
    }

    #[test]
    fn equal_is_within_a_billionth() {
        for (value, verdict) in [
            (0.5 + 0.9e-9, Verdict::Passed),
            (0.5 - 0.9e-9, Verdict::Passed),
            (0.5 + 1.1e-9, Verdict::Failed),
        ] {
            let mut gate = gate(&[(ConditionType::EvalScore, Operator::Eq, 0.5)]);
            gate.take(0, &measure(value));
            assert_eq!(gate.verdict, verdict, "{value}");
        }
    }
}
