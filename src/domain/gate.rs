//! Quality gates: what a version must show before it gets any traffic.

use std::ops::RangeInclusive;

use uuid::Uuid;

use super::{
    Timestamp,
    endpoint::Endpoint,
    ids::{Actor, PromptId},
    violation::Violations,
};

/// Most conditions of a gate.
pub const CONDITIONS_MAX: usize = 64;
/// Longest name of a gate, and of the id of a run or dataset, in characters.
pub const NAME_MAX: usize = 256;

/// How far from the threshold a measure may be that is to be equal.
const EQUAL_WITHIN: f64 = 1e-9;

/// What a condition measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionType {
    /// Score of an evaluation run, 0 to 1.
    EvalScore,
    /// Mean latency of an evaluation run, in milliseconds.
    Latency,
    /// Cost of a request of an evaluation run, in USD.
    Cost,
    /// Decided outside.
    Custom,
}

impl ConditionType {
    /// Every type.
    pub const ALL: [Self; 4] = [Self::EvalScore, Self::Latency, Self::Cost, Self::Custom];

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EvalScore => "eval_score",
            Self::Latency => "latency",
            Self::Cost => "cost",
            Self::Custom => "custom",
        }
    }

    /// What a measure can be.
    #[must_use]
    pub fn range(self) -> RangeInclusive<f64> {
        match self {
            Self::EvalScore => 0.0..=1.0,
            Self::Latency | Self::Cost => 0.0..=f64::MAX,
            Self::Custom => f64::MIN..=f64::MAX,
        }
    }
}

/// How what was measured is compared with the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// At least the threshold.
    Gte,
    /// At most the threshold.
    Lte,
    /// The threshold, within 1e-9.
    Eq,
}

impl Operator {
    /// Every operator.
    pub const ALL: [Self; 3] = [Self::Gte, Self::Lte, Self::Eq];

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gte => "gte",
            Self::Lte => "lte",
            Self::Eq => "eq",
        }
    }
}

/// One condition of a gate.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// What is measured.
    pub kind: ConditionType,
    /// How it is compared.
    pub operator: Operator,
    /// What it is compared with; finite. Of two versions ([`Source::BothVersions`]) the margin by
    /// which the new one may be worse, at least 0.
    pub threshold: f64,
    /// Where the evidence comes from.
    pub source: Source,
}

/// Where the evidence for a condition comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// One evaluation run, by its id.
    Run(String),
    /// The newest run over a dataset, by the dataset's id.
    Dataset(String),
    /// The newest runs of the new version and of the one that is served over a dataset, by the
    /// dataset's id; example by example.
    BothVersions(String),
    /// The run or dataset that the first other condition of the gate names.
    SameGate,
    /// Outside: somebody reports it.
    Outside,
    /// Outside: somebody is asked there, who answers or reports it.
    Webhook(Endpoint),
}

/// Reads a URL, and says whether it may be called; or else what is wrong with it.
pub type Admit<'a> = dyn Fn(&str) -> Result<Endpoint, String> + 'a;

/// A quality gate.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    /// UUID v7.
    pub id: Uuid,
    /// For people.
    pub name: String,
    /// Whose deployments it guards.
    pub prompt_id: PromptId,
    /// What must hold; at least one.
    pub conditions: Vec<Condition>,
    /// Whether a failure stops the deployment.
    pub required: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// Who created it.
    pub created_by: Actor,
}

/// A condition as a caller asks for it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConditionRequest {
    /// Name of a [`ConditionType`].
    pub kind: String,
    /// Name of an [`Operator`].
    pub operator: String,
    /// See [`Condition::threshold`].
    pub threshold: f64,
    /// See [`Source::Run`]; empty where it is not meant.
    pub eval_run_id: String,
    /// See [`Source::Dataset`]; empty where it is not meant.
    pub dataset_id: String,
    /// See [`Source::Webhook`]; empty where it is not meant.
    pub url: String,
    /// See [`Source::BothVersions`].
    pub baseline: bool,
}

/// A gate as a caller asks for it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GateRequest {
    /// See [`Gate::name`].
    pub name: String,
    /// See [`Gate::prompt_id`].
    pub prompt_id: String,
    /// See [`Gate::conditions`].
    pub conditions: Vec<ConditionRequest>,
    /// See [`Gate::required`].
    pub required: bool,
}

impl Gate {
    /// Checks what is asked for. A gate that would measure nothing is refused here, since it
    /// would otherwise pass without evidence.
    pub fn resolve(
        request: &GateRequest,
        id: Uuid,
        created_by: Actor,
        created_at: Timestamp,
        admit: &Admit<'_>,
        violations: &mut Violations,
    ) -> Option<Self> {
        let prompt_id = violations.take("prompt_id", PromptId::parse(&request.prompt_id));
        if request.name.trim().is_empty() {
            violations.add("name", "is required");
        }
        violations.check_length("name", &request.name, NAME_MAX);
        match request.conditions.len() {
            0 => violations.add(
                "conditions",
                "is empty; a gate needs at least one condition",
            ),
            1..=CONDITIONS_MAX => {}
            many => violations.add(
                "conditions",
                format!("has {many} conditions; at most {CONDITIONS_MAX} are allowed"),
            ),
        }
        let conditions: Vec<_> = request
            .conditions
            .iter()
            .take(CONDITIONS_MAX)
            .enumerate()
            .filter_map(|(index, condition)| {
                let at = format!("conditions[{index}]");
                Condition::resolve(condition, &at, admit, violations)
            })
            .collect();
        check_sources(&conditions, violations);
        Some(Self {
            id,
            name: request.name.clone(),
            prompt_id: prompt_id?,
            conditions,
            required: request.required,
            created_at,
            created_by,
        })
    }
}

/// A latency or cost may leave out its run where another condition of the gate names one; where
/// none does, there would be nothing to measure.
fn check_sources(conditions: &[Condition], violations: &mut Violations) {
    if conditions.iter().any(|it| it.source.names_a_run()) {
        return;
    }
    for (index, condition) in conditions.iter().enumerate() {
        if condition.source == Source::SameGate {
            violations.add(
                format!("conditions[{index}].dataset_id"),
                "is required where eval_run_id is empty and no other condition of the gate names a run or a dataset",
            );
        }
    }
}

impl Condition {
    /// What it takes to measure it, in words: "eval_score on dataset 'golden-set'".
    #[must_use]
    pub fn evidence(&self) -> String {
        let kind = self.kind.as_str();
        match &self.source {
            Source::Run(id) => format!("{kind} of evaluation run '{id}'"),
            Source::Dataset(id) => format!("{kind} on dataset '{id}'"),
            Source::BothVersions(id) => {
                format!("{kind} beside the running version on dataset '{id}'")
            }
            Source::SameGate => format!("{kind} of the same evaluation run"),
            Source::Outside | Source::Webhook(_) => format!("{kind} (decided outside)"),
        }
    }

    /// What a measure is compared with by the operator: the threshold; of two versions the
    /// difference that is the margin away on the side that is worse.
    #[must_use]
    pub fn limit(&self) -> f64 {
        match (&self.source, self.operator) {
            // Not −0.
            (Source::BothVersions(_), Operator::Gte) => 0.0 - self.threshold,
            (Source::BothVersions(_), Operator::Lte | Operator::Eq)
            | (
                Source::Run(_)
                | Source::Dataset(_)
                | Source::SameGate
                | Source::Outside
                | Source::Webhook(_),
                Operator::Gte | Operator::Lte | Operator::Eq,
            ) => self.threshold,
        }
    }

    /// Whether a measure (of two versions, the bound of their difference) meets the limit.
    ///
    /// # Errors
    /// It is none that there can be, and why.
    pub fn compare(&self, value: f64) -> Result<bool, String> {
        let possible = match &self.source {
            Source::BothVersions(_) => -self.kind.range().end()..=*self.kind.range().end(),
            Source::Run(_)
            | Source::Dataset(_)
            | Source::SameGate
            | Source::Outside
            | Source::Webhook(_) => self.kind.range(),
        };
        if !possible.contains(&value) {
            return Err(format!("{value} is no {}", self.kind.as_str()));
        }
        let limit = self.limit();
        Ok(match self.operator {
            Operator::Gte => value >= limit,
            Operator::Lte => value <= limit,
            Operator::Eq => (value - limit).abs() <= EQUAL_WITHIN,
        })
    }

    fn resolve(
        request: &ConditionRequest,
        at: &str,
        admit: &Admit<'_>,
        violations: &mut Violations,
    ) -> Option<Self> {
        let kind = one_of(&request.kind, ConditionType::ALL, ConditionType::as_str);
        let kind = violations.take(format!("{at}.type"), kind);
        let operator = one_of(&request.operator, Operator::ALL, Operator::as_str);
        let operator = violations.take(format!("{at}.operator"), operator);
        if !request.threshold.is_finite() {
            violations.add(
                format!("{at}.threshold"),
                format!("is {}; must be a finite number", request.threshold),
            );
        }
        violations.check_length(&format!("{at}.eval_run_id"), &request.eval_run_id, NAME_MAX);
        violations.check_length(&format!("{at}.dataset_id"), &request.dataset_id, NAME_MAX);
        let kind = kind?;
        let is_custom = kind == ConditionType::Custom;
        if !is_custom && !request.url.is_empty() {
            let why = "is only for custom conditions, which are decided outside; leave it empty";
            violations.add(format!("{at}.url"), why);
        }
        if request.baseline {
            return Self::of_both_versions(request, kind, operator, at, violations);
        }
        let source = Source::resolve(kind, &request.eval_run_id, &request.dataset_id);
        let mut source = violations.take(format!("{at}.dataset_id"), source);
        if is_custom && !request.url.is_empty() {
            let endpoint = violations.take(format!("{at}.url"), admit(&request.url));
            source = source.and(endpoint).map(Source::Webhook);
        }
        Some(Self {
            kind,
            operator: operator?,
            threshold: request.threshold,
            source: source?,
        })
    }

    /// One that compares the new version with the one that is served.
    fn of_both_versions(
        request: &ConditionRequest,
        kind: ConditionType,
        operator: Option<Operator>,
        at: &str,
        violations: &mut Violations,
    ) -> Option<Self> {
        let (allowed, most, margin) = match kind {
            ConditionType::EvalScore => (Operator::Gte, 1.0, "a score, 0 to 1"),
            ConditionType::Latency => (Operator::Lte, f64::MAX, "milliseconds, at least 0"),
            ConditionType::Cost => (Operator::Lte, f64::MAX, "USD a request, at least 0"),
            ConditionType::Custom => {
                violations.add(
                    format!("{at}.baseline"),
                    "must be false for custom, which is decided outside; eval_score, latency and cost can be compared with the running version",
                );
                return None;
            }
        };
        if let Some(other) = operator.filter(|operator| *operator != allowed) {
            let (other, allowed, kind) = (other.as_str(), allowed.as_str(), kind.as_str());
            violations.add(
                format!("{at}.operator"),
                format!("is {other}; must be {allowed} for {kind} with baseline"),
            );
        }
        let threshold = request.threshold;
        if threshold.is_finite() && !(0.0..=most).contains(&threshold) {
            violations.add(
                format!("{at}.threshold"),
                format!("is {threshold}; with baseline it is the margin by which the new version may be worse: {margin}"),
            );
        }
        if !request.eval_run_id.is_empty() {
            violations.add(
                format!("{at}.eval_run_id"),
                "must be empty with baseline, which takes a run of each version; give dataset_id",
            );
        } else if request.dataset_id.is_empty() {
            violations.add(
                format!("{at}.dataset_id"),
                "is required with baseline: the dataset on whose examples both versions are compared",
            );
        }
        Some(Self {
            kind,
            operator: operator?,
            threshold,
            source: Source::BothVersions(request.dataset_id.clone()),
        })
    }
}

impl Source {
    /// Whether somebody outside decides, and may report it.
    #[must_use]
    pub fn is_outside(&self) -> bool {
        match self {
            Self::Outside | Self::Webhook(_) => true,
            Self::Run(_) | Self::Dataset(_) | Self::BothVersions(_) | Self::SameGate => false,
        }
    }

    /// Whether it names a run or a dataset.
    #[must_use]
    pub fn names_a_run(&self) -> bool {
        match self {
            Self::Run(_) | Self::Dataset(_) | Self::BothVersions(_) => true,
            Self::SameGate | Self::Outside | Self::Webhook(_) => false,
        }
    }

    fn resolve(kind: ConditionType, run: &str, dataset: &str) -> Result<Self, String> {
        match (kind, run, dataset) {
            (ConditionType::Custom, "", "") => Ok(Self::Outside),
            (ConditionType::Custom, _, _) => Err(
                "a custom condition is decided outside; leave eval_run_id and dataset_id empty"
                    .into(),
            ),
            (ConditionType::Latency | ConditionType::Cost, "", "") => Ok(Self::SameGate),
            (ConditionType::EvalScore, "", "") => Err(
                "is required where eval_run_id is empty: the dataset whose evaluation is measured"
                    .into(),
            ),
            (_, run, "") => Ok(Self::Run(run.to_owned())),
            (_, "", dataset) => Ok(Self::Dataset(dataset.to_owned())),
            (_, _, _) => Err("and eval_run_id exclude each other; give one".into()),
        }
    }
}

fn one_of<T: Copy, const N: usize>(
    text: &str,
    all: [T; N],
    name: fn(T) -> &'static str,
) -> Result<T, String> {
    all.into_iter()
        .find(|value| name(*value) == text)
        .ok_or_else(|| {
            let names = all.map(name).join(", ");
            if text.is_empty() {
                format!("is required: one of {names}")
            } else {
                format!("is '{text}'; must be one of {names}")
            }
        })
}

#[cfg(test)]
mod tests;
