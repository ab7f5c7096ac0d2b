//! What becomes of a deployment that was compared with a version which is no longer served.

use super::{Deployment, Record, Timestamp, Traffic, Verb};
use crate::domain::{judgement::GateResult, state::Status};

impl Deployment {
    /// Where its gates compare it with the version that is served, and that is another one by now:
    /// it is compared anew, and has until `due_at` for it. A pass beside a version that nobody gets
    /// any more says nothing about the one that it would replace.
    pub fn compare_anew(
        &mut self,
        served: &Traffic,
        due_at: Timestamp,
        now: Timestamp,
    ) -> Option<Record> {
        let version = served.stable_version();
        let compares = self.gates.iter().any(GateResult::compares_versions);
        let is_judged = self.status == Status::PendingGates;
        if !is_judged || !compares || version == self.from_version {
            return None;
        }
        let before = self.from_version;
        let record = self.take(Verb::Measure, now).ok()?;
        self.from_version = version;
        self.gates_passed = false;
        self.gates_due_at = Some(due_at);
        for gate in &mut self.gates {
            gate.compare_anew();
        }
        let why = format!(
            "the environment serves version {version} now and not {before}; what is compared with it is compared anew"
        );
        self.status_message.clone_from(&why);
        Some(
            record
                .because(why)
                .with("from_version", version)
                .by_system(),
        )
    }
}
