//! What is reported of requests, checked one by one.

use chrono::TimeDelta;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::domain::{
    Timestamp,
    ids::{Environment, PromptId},
};

/// How far the clock of who reports may be ahead.
pub const AHEAD_MAX: TimeDelta = TimeDelta::minutes(1);
/// How old an outcome may be when it is reported.
pub const AGE_MAX: TimeDelta = TimeDelta::hours(24);
/// Longest id of an outcome, and longest name of a unit, in characters.
const ID_MAX: usize = 128;
const UNIT_MAX: usize = 1024;
/// Longest latency, in milliseconds: a day.
const LATENCY_MAX: f64 = 86_400_000.0;
/// Highest cost of a request, in USD.
const COST_MAX: f64 = 1_000_000.0;

/// What became of a request, as somebody reports it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OutcomeReport {
    /// Its id, the same whenever it is reported.
    pub id: String,
    /// The prompt.
    pub prompt_id: String,
    /// The environment.
    pub environment: String,
    /// The version that served it.
    pub version: i32,
    /// Who was served; none where nobody knows, and then it is counted but is no evidence.
    pub unit: Option<String>,
    /// When; none for now. Or why it can't be read.
    pub at: Option<Result<Timestamp, String>>,
    /// Whether it failed.
    pub error: bool,
    /// How long it took, in milliseconds.
    pub latency_ms: Option<f64>,
    /// How good the answer was, 0 to 1.
    pub quality_score: Option<f64>,
    /// What it cost, in USD.
    pub cost_usd: Option<f64>,
}

/// A score of an outcome, as somebody reports it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScoreReport {
    /// The outcome's id.
    pub outcome_id: String,
    /// How good the answer was, 0 to 1.
    pub quality_score: f64,
    /// When it was judged; none for now. Or why it can't be read.
    pub at: Option<Result<Timestamp, String>>,
}

/// An outcome that can be right.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// A digest of its id.
    pub key: Uuid,
    /// The prompt.
    pub prompt_id: PromptId,
    /// The environment.
    pub environment: Environment,
    /// The version that served it.
    pub version: i32,
    /// Who was served, where that is known.
    pub unit: Option<Unit>,
    /// When.
    pub at: Timestamp,
    /// What is known of it.
    pub known: Known,
}

/// Who was served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// The targeting key.
    pub name: String,
    /// A digest of it, which is what is stored.
    pub key: Uuid,
}

/// What is known of a request.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Known {
    /// Whether it failed.
    pub error: bool,
    /// How long it took, in milliseconds.
    pub latency_ms: Option<f64>,
    /// How good the answer was, 0 to 1.
    pub quality_score: Option<f64>,
    /// What it cost, in USD.
    pub cost_usd: Option<f64>,
}

/// A score that can be right.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// A digest of the outcome's id.
    pub outcome: Uuid,
    /// How good the answer was, 0 to 1.
    pub quality: f64,
}

/// Why one outcome or score is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

/// Why one outcome or score is refused, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No id, or too long a one.
    Id,
    /// No prompt can have this id.
    PromptId,
    /// No environment can have this name.
    Environment,
    /// No version has this number.
    Version,
    /// No unit, or too long a name.
    Unit,
    /// The time can't be read.
    At,
    /// It is yet to happen.
    InFuture,
    /// It happened too long ago.
    TooOld,
    /// Not a possible latency.
    Latency,
    /// Not a possible score.
    Score,
    /// Not a possible cost.
    Cost,
    /// The environment has never served the prompt.
    PromptUnknown,
    /// The environment did not serve this version.
    VersionNotServed,
    /// What it would be counted in can't be read.
    CorruptRow,
}

impl Reason {
    /// The stable code in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Id => "ID_INVALID",
            Self::PromptId => "PROMPT_ID_INVALID",
            Self::Environment => "ENVIRONMENT_INVALID",
            Self::Version => "VERSION_INVALID",
            Self::Unit => "UNIT_INVALID",
            Self::At => "AT_INVALID",
            Self::InFuture => "AT_IN_FUTURE",
            Self::TooOld => "AT_TOO_OLD",
            Self::Latency => "LATENCY_INVALID",
            Self::Score => "SCORE_INVALID",
            Self::Cost => "COST_INVALID",
            Self::PromptUnknown => "PROMPT_UNKNOWN",
            Self::VersionNotServed => "VERSION_NOT_SERVED",
            Self::CorruptRow => "CORRUPT_ROW",
        }
    }

    pub(super) fn because(self, message: impl Into<String>) -> Refusal {
        Refusal {
            reason: self,
            message: message.into(),
        }
    }
}

impl OutcomeReport {
    /// Checks what can be checked without knowing what was served.
    ///
    /// # Errors
    /// What can't be right.
    pub fn check(self, now: Timestamp) -> Result<Outcome, Refusal> {
        let key = checked_key("id", &self.id)?;
        let prompt_id = PromptId::parse(&self.prompt_id)
            .map_err(|why| Reason::PromptId.because(format!("prompt_id {why}")))?;
        let environment = Environment::parse(&self.environment)
            .map_err(|why| Reason::Environment.because(format!("environment {why}")))?;
        if self.version < 1 {
            let message = format!("version is {}; must be at least 1", self.version);
            return Err(Reason::Version.because(message));
        }
        Ok(Outcome {
            key,
            prompt_id,
            environment,
            version: self.version,
            unit: self.unit.map(Unit::parse).transpose()?,
            at: moment(self.at, now)?,
            known: Known {
                error: self.error,
                latency_ms: within(Reason::Latency, "latency_ms", self.latency_ms, LATENCY_MAX)?,
                quality_score: within(Reason::Score, "quality_score", self.quality_score, 1.0)?,
                cost_usd: within(Reason::Cost, "cost_usd", self.cost_usd, COST_MAX)?,
            },
        })
    }
}

impl ScoreReport {
    /// Checks what can be checked without knowing the outcome.
    ///
    /// # Errors
    /// What can't be right.
    pub fn check(self, now: Timestamp) -> Result<Score, Refusal> {
        let outcome = checked_key("outcome_id", &self.outcome_id)?;
        moment(self.at, now)?;
        let quality = Some(self.quality_score);
        let quality = within(Reason::Score, "quality_score", quality, 1.0)?.unwrap_or_default();
        Ok(Score { outcome, quality })
    }
}

impl Unit {
    fn parse(name: String) -> Result<Self, Refusal> {
        if name.is_empty() {
            let message =
                "unit is required: the targeting key that the version was resolved for".to_owned();
            return Err(Reason::Unit.because(message));
        }
        if name.chars().count() > UNIT_MAX {
            return Err(Reason::Unit.because(format!("unit is longer than {UNIT_MAX} characters")));
        }
        let key = digest(&[&name]);
        Ok(Self { name, key })
    }
}

/// 128 bits of the SHA-256 of texts, told apart from others by their lengths: short enough for a
/// key, and nothing that a name can be read off.
#[must_use]
pub fn digest(texts: &[&str]) -> Uuid {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    let hash: [u8; 32] = hash.finalize().into();
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    Uuid::from_bytes(half)
}

fn checked_key(field: &str, id: &str) -> Result<Uuid, Refusal> {
    if id.is_empty() {
        return Err(Reason::Id.because(format!("{field} is required")));
    }
    if id.chars().count() > ID_MAX {
        return Err(Reason::Id.because(format!("{field} is longer than {ID_MAX} characters")));
    }
    Ok(digest(&[id]))
}

fn moment(at: Option<Result<Timestamp, String>>, now: Timestamp) -> Result<Timestamp, Refusal> {
    let at = match at {
        None => return Ok(now),
        Some(at) => at.map_err(|why| Reason::At.because(format!("at {why}")))?,
    };
    if at > now + AHEAD_MAX {
        let message = format!("at is {at}, and it is {now} here: more than a minute ahead");
        return Err(Reason::InFuture.because(message));
    }
    if at < now - AGE_MAX {
        let message = format!("at is {at}, more than 24 hours ago");
        return Err(Reason::TooOld.because(message));
    }
    Ok(at.min(now))
}

fn within(
    reason: Reason,
    field: &str,
    value: Option<f64>,
    max: f64,
) -> Result<Option<f64>, Refusal> {
    match value {
        // Not a number is in no range.
        Some(value) if !(0.0..=max).contains(&value) => {
            Err(reason.because(format!("{field} is {value}; must be 0 to {max}")))
        }
        Some(_) | None => Ok(value),
    }
}
