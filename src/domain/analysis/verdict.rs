//! What was found, with its numbers.

use super::policy::Metric;
use crate::domain::Timestamp;

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is shown to be good enough.
    Good,
    /// It is shown to be bad.
    Bad,
    /// Neither is shown.
    NoEvidence,
}

/// What was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Whether most of the candidate's last calls failed.
    Breaker,
    /// A metric beside that of the version before.
    Comparison(Metric),
    /// Quality beside its floor.
    Floor,
    /// Whether the stable version itself has fallen, in a metric.
    Provider(Metric),
    /// Whether the arms have as many units as they should.
    Assignment,
}

/// The numbers of a check.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Numbers {
    /// What was measured: a difference (−1 to 1) for a comparison and for the provider, otherwise
    /// a level or share (0 to 1).
    pub estimate: f64,
    /// How far it can be off: for BAD the highest value that is not excluded, otherwise the
    /// lowest. For the breaker the stable version's share; for assignments the lowest or highest
    /// share that is not excluded, whichever is nearer to the one that was meant.
    pub bound: f64,
    /// What the bound is held against.
    pub threshold: f64,
}

/// One check.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// What was checked.
    pub subject: Subject,
    /// What was found.
    pub verdict: Verdict,
    /// Whether it stops an advance whatever the policy says about missing evidence.
    pub blocks: bool,
    /// The candidate's units, or calls.
    pub n_candidate: u64,
    /// The stable version's.
    pub n_stable: u64,
    /// The numbers, where there are enough units for any.
    pub numbers: Option<Numbers>,
    /// Why, for people.
    pub why: String,
}

/// What it comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Overall {
    /// Roll back.
    RollBack {
        /// Why, for people.
        why: String,
    },
    /// Give up: it was held until its deadline.
    Fail {
        /// Why, for people.
        why: String,
    },
    /// Stay at this share.
    Hold {
        /// Why, for people.
        why: String,
        /// When it fails, or whatever the policy says.
        until: Timestamp,
    },
    /// Nothing was shown, and the policy lets it go on.
    Unproven {
        /// What was not shown, for people.
        why: String,
    },
    /// Nothing stands against the next step.
    Good,
}

/// The answer: every check, and what they come to.
#[derive(Debug, Clone, PartialEq)]
pub struct Analysis {
    /// Every check, in the order in which they count.
    pub checks: Vec<Check>,
    /// What they come to.
    pub overall: Overall,
}

impl Verdict {
    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "GOOD",
            Self::Bad => "BAD",
            Self::NoEvidence => "NO_EVIDENCE",
        }
    }
}

impl Subject {
    /// Under which its numbers are put on record.
    #[must_use]
    pub fn detail(self) -> &'static str {
        match self {
            Self::Breaker => "check.breaker",
            Self::Comparison(Metric::Quality) => "check.quality",
            Self::Comparison(Metric::Success) => "check.success",
            Self::Comparison(Metric::Latency) => "check.latency",
            Self::Comparison(Metric::Cost) => "check.cost",
            Self::Floor => "check.quality_floor",
            Self::Provider(Metric::Quality) => "check.provider_quality",
            Self::Provider(Metric::Success) => "check.provider_success",
            Self::Provider(Metric::Latency) => "check.provider_latency",
            Self::Provider(Metric::Cost) => "check.provider_cost",
            Self::Assignment => "check.assignment",
        }
    }

    /// The metric, where it is about one.
    #[must_use]
    pub fn metric(self) -> Option<Metric> {
        match self {
            Self::Comparison(metric) | Self::Provider(metric) => Some(metric),
            Self::Floor => Some(Metric::Quality),
            Self::Breaker | Self::Assignment => None,
        }
    }
}

impl Check {
    /// Its verdict and numbers as a JSON object, for the record.
    #[must_use]
    pub fn on_record(&self) -> String {
        let Self {
            verdict,
            n_candidate,
            n_stable,
            ..
        } = self;
        let numbers = self.numbers.map(|numbers| {
            let Numbers {
                estimate,
                bound,
                threshold,
            } = numbers;
            format!(r#","estimate":{estimate},"bound":{bound},"threshold":{threshold}"#)
        });
        format!(
            r#"{{"verdict":"{}","n_candidate":{n_candidate},"n_stable":{n_stable}{}}}"#,
            verdict.as_str(),
            numbers.unwrap_or_default()
        )
    }

    /// Whether there was anything to check.
    #[must_use]
    pub fn has_seen_anything(&self) -> bool {
        self.n_candidate > 0 || self.n_stable > 0
    }

    pub(super) fn new(subject: Subject, verdict: Verdict, units: (u64, u64), why: String) -> Self {
        Self {
            subject,
            verdict,
            blocks: false,
            n_candidate: units.0,
            n_stable: units.1,
            numbers: None,
            why,
        }
    }

    pub(super) fn with(mut self, estimate: f64, bound: f64, threshold: f64) -> Self {
        self.numbers = Some(Numbers {
            estimate,
            bound,
            threshold,
        });
        self
    }

    pub(super) fn blocking(mut self) -> Self {
        self.blocks = true;
        self
    }

    /// What was reported cannot be, so that nothing follows from it.
    pub(super) fn impossible(subject: Subject, what: &str) -> Self {
        let why = format!("what was counted of {what} is impossible; telemetry is broken");
        Self::new(subject, Verdict::NoEvidence, (0, 0), why).blocking()
    }
}
