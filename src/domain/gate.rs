//! Quality gates: what a version must show before it gets any traffic.

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
    /// What it is compared with; finite.
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
    let named =
        |condition: &Condition| matches!(condition.source, Source::Run(_) | Source::Dataset(_));
    if conditions.iter().any(named) {
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
            Source::SameGate => format!("{kind} of the same evaluation run"),
            Source::Outside | Source::Webhook(_) => format!("{kind} (decided outside)"),
        }
    }

    /// Whether a measure meets the threshold.
    ///
    /// # Errors
    /// It is none that there can be, and why.
    pub fn compare(&self, value: f64) -> Result<bool, String> {
        let possible = match self.kind {
            ConditionType::EvalScore => 0.0..=1.0,
            ConditionType::Latency | ConditionType::Cost => 0.0..=f64::MAX,
            ConditionType::Custom => f64::MIN..=f64::MAX,
        };
        if !possible.contains(&value) {
            return Err(format!("{value} is no {}", self.kind.as_str()));
        }
        Ok(match self.operator {
            Operator::Gte => value >= self.threshold,
            Operator::Lte => value <= self.threshold,
            Operator::Eq => (value - self.threshold).abs() <= EQUAL_WITHIN,
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
        let source = Source::resolve(kind, &request.eval_run_id, &request.dataset_id);
        let source = violations.take(format!("{at}.dataset_id"), source);
        let source = match (kind, request.url.as_str()) {
            (_, "") => source,
            (ConditionType::Custom, url) => {
                let endpoint = violations.take(format!("{at}.url"), admit(url));
                source.and(endpoint).map(Source::Webhook)
            }
            (ConditionType::EvalScore | ConditionType::Latency | ConditionType::Cost, _) => {
                let why =
                    "is only for custom conditions, which are decided outside; leave it empty";
                violations.add(format!("{at}.url"), why);
                source
            }
        };
        Some(Self {
            kind,
            operator: operator?,
            threshold: request.threshold,
            source: source?,
        })
    }
}

impl Source {
    /// Whether somebody outside decides, and may report it.
    #[must_use]
    pub fn is_outside(&self) -> bool {
        match self {
            Self::Outside | Self::Webhook(_) => true,
            Self::Run(_) | Self::Dataset(_) | Self::SameGate => false,
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
mod tests {
    use super::*;

    fn condition(kind: &str, dataset_id: &str) -> ConditionRequest {
        ConditionRequest {
            kind: kind.into(),
            operator: "gte".into(),
            threshold: 0.9,
            dataset_id: dataset_id.into(),
            ..Default::default()
        }
    }

    fn fields_refused(conditions: Vec<ConditionRequest>) -> Vec<String> {
        let request = GateRequest {
            name: "Prod Gate".into(),
            prompt_id: "prompt-abc123".into(),
            conditions,
            required: true,
        };
        let mut violations = Violations::default();
        let gate = Gate::resolve(
            &request,
            Uuid::nil(),
            Actor::anonymous(),
            Timestamp::UNIX_EPOCH,
            &Endpoint::parse,
            &mut violations,
        );
        match violations.finish(gate) {
            Ok(_) => Vec::new(),
            Err(all) => all.into_iter().map(|violation| violation.field).collect(),
        }
    }

    #[test]
    fn a_gate_that_would_measure_nothing_is_refused() {
        assert_eq!(fields_refused(vec![]), ["conditions"]);
        assert_eq!(
            fields_refused(vec![condition("vibes", "x")]),
            ["conditions[0].type"]
        );
        assert_eq!(
            fields_refused(vec![condition("eval_score", "")]),
            ["conditions[0].dataset_id"]
        );
        assert_eq!(
            fields_refused(vec![condition("latency", "")]),
            ["conditions[0].dataset_id"]
        );
        assert_eq!(
            fields_refused(vec![condition("custom", "x")]),
            ["conditions[0].dataset_id"]
        );
        let mut nan = condition("eval_score", "golden-set");
        nan.threshold = f64::NAN;
        nan.operator = "gt".into();
        assert_eq!(
            fields_refused(vec![nan]),
            ["conditions[0].operator", "conditions[0].threshold"]
        );
    }

    #[test]
    fn only_what_is_decided_outside_has_a_url() {
        let with = |kind, dataset, url: &str| ConditionRequest {
            url: url.into(),
            ..condition(kind, dataset)
        };
        let url = "https://example.com/score";
        assert!(fields_refused(vec![with("custom", "", url)]).is_empty());
        for refused in [
            with("custom", "", "example.com"),
            with("eval_score", "golden-set", url),
        ] {
            let good = condition("custom", "");
            assert_eq!(fields_refused(vec![good, refused]), ["conditions[1].url"]);
        }
    }

    #[test]
    fn a_latency_measures_the_run_that_its_gate_names() {
        assert!(
            fields_refused(vec![
                condition("eval_score", "golden-set"),
                condition("latency", "")
            ])
            .is_empty()
        );
        assert!(fields_refused(vec![condition("custom", "")]).is_empty());
    }
}
