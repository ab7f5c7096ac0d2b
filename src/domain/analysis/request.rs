//! A policy as a caller asks for it: zero means the default.

use std::time::Duration;

use super::policy::{AnalysisPolicy, Breaker, Comparison, Floor, Limits, Metric, WithoutEvidence};
use crate::domain::violation::Violations;

/// Where it stands in a request.
const AT: &str = "strategy.analysis";
/// Most units that may be asked for before a verdict.
const UNITS_MAX: i32 = 1_000_000;
/// Most calls that the circuit breaker looks at.
const BREAKER_CALLS_MAX: i32 = 1000;
/// Longest time that a rollout is held, in seconds: a year.
const HOLD_SECONDS_MAX: i32 = 31_536_000;
/// Highest limit of a latency, in milliseconds, and of a cost, in USD.
const LIMIT_MAX: f64 = 1e9;

/// See [`AnalysisPolicy`]; zero means the default everywhere.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PolicyRequest {
    /// Which metrics are compared; none for quality and success.
    pub metrics: Vec<MetricRequest>,
    /// See [`AnalysisPolicy::alpha_rollback`].
    pub alpha_rollback: f64,
    /// See [`AnalysisPolicy::alpha_advance`].
    pub alpha_advance: f64,
    /// See [`AnalysisPolicy::units_rollback_min`].
    pub units_rollback_min: i32,
    /// See [`AnalysisPolicy::units_advance_min`].
    pub units_advance_min: i32,
    /// See [`AnalysisPolicy::without_evidence`]; or why it can't be read.
    pub without_evidence: Option<Result<WithoutEvidence, String>>,
    /// See [`AnalysisPolicy::hold_max`], in seconds.
    pub hold_seconds: i32,
    /// The circuit breaker.
    pub breaker: Option<BreakerRequest>,
    /// See [`AnalysisPolicy::provider_margin`].
    pub provider_margin: f64,
    /// See [`Floor::margin`].
    pub quality_margin: f64,
}

/// See [`Comparison`].
#[derive(Debug, Clone, PartialEq)]
pub struct MetricRequest {
    /// Which; or why it can't be read.
    pub metric: Result<Metric, String>,
    /// See [`Comparison::tolerance`].
    pub tolerance: f64,
    /// See [`Comparison::margin`].
    pub margin: f64,
    /// See [`Limits`].
    pub limit: f64,
}

/// See [`Breaker`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BreakerRequest {
    /// See [`Breaker::calls`].
    pub calls: i32,
    /// See [`Breaker::failed`].
    pub failed: i32,
    /// See [`Breaker::stable_failed_share_max`].
    pub stable_failed_share_max: f64,
    /// Whether it is turned off.
    pub off: bool,
}

impl AnalysisPolicy {
    /// Fills in the defaults. What is out of range is noted in `violations`. Quality has a floor
    /// where `quality_min` is above 0.
    pub fn resolve(
        request: PolicyRequest,
        quality_min: f64,
        violations: &mut Violations,
    ) -> Option<Self> {
        let default = Self::default();
        let mut read = Reader { violations };
        let (comparisons, limits) = read.metrics(request.metrics).unzip();
        let alpha_rollback = read.alpha(
            "alpha_rollback",
            request.alpha_rollback,
            default.alpha_rollback,
        );
        let alpha_advance = read.alpha(
            "alpha_advance",
            request.alpha_advance,
            default.alpha_advance,
        );
        let (asked, least) = (request.units_rollback_min, default.units_rollback_min);
        let units_rollback_min = read.whole("min_units_rollback", asked, UNITS_MAX, least);
        let (asked, least) = (request.units_advance_min, default.units_advance_min);
        let units_advance_min = read.whole("min_units_advance", asked, UNITS_MAX, least);
        let hold = default.hold_max.as_secs();
        let hold = read.whole("hold_seconds", request.hold_seconds, HOLD_SECONDS_MAX, hold);
        let provider = request.provider_margin;
        let provider_margin = read.share("provider_margin", provider, default.provider_margin);
        let margin = Floor::at(quality_min).margin;
        let margin = read.share("quality_margin", request.quality_margin, margin);
        let breaker = read.breaker(request.breaker, default.breaker);
        let without_evidence = request.without_evidence.transpose();
        let field = format!("{AT}.without_evidence");
        let without_evidence = violations.take(field, without_evidence)?;
        Some(Self {
            alpha_rollback: alpha_rollback?,
            alpha_advance: alpha_advance?,
            units_rollback_min: units_rollback_min?,
            units_advance_min: units_advance_min?,
            comparisons: comparisons?,
            limits: limits?,
            floor: (quality_min > 0.0).then_some(Floor {
                threshold: quality_min,
                margin: margin?,
            }),
            breaker: breaker?,
            provider_margin: provider_margin?,
            without_evidence: without_evidence.unwrap_or(default.without_evidence),
            hold_max: Duration::from_secs(hold?),
            ..default
        })
    }
}

struct Reader<'v> {
    violations: &'v mut Violations,
}

impl Reader<'_> {
    fn alpha(&mut self, field: &str, asked: f64, default: f64) -> Option<f64> {
        let is_right = asked == 0.0 || (asked > 0.0 && asked < 0.5);
        self.checked(field, asked, is_right, "above 0 and below 0.5", default)
    }

    fn share(&mut self, field: &str, asked: f64, default: f64) -> Option<f64> {
        let is_right = (0.0..=1.0).contains(&asked);
        self.checked(field, asked, is_right, "0 to 1", default)
    }

    fn checked(
        &mut self,
        field: &str,
        asked: f64,
        is_right: bool,
        right: &str,
        default: f64,
    ) -> Option<f64> {
        if !is_right {
            let why = format!("is {asked}; must be {right}, or 0 for the default");
            self.violations.add(format!("{AT}.{field}"), why);
            return None;
        }
        Some(if asked == 0.0 { default } else { asked })
    }

    fn whole(&mut self, field: &str, asked: i32, max: i32, default: u64) -> Option<u64> {
        if !(0..=max).contains(&asked) {
            let why = format!("is {asked}; must be 1 to {max}, or 0 for the default");
            self.violations.add(format!("{AT}.{field}"), why);
            return None;
        }
        let asked = u64::from(asked.unsigned_abs());
        Some(if asked == 0 { default } else { asked })
    }

    fn metrics(&mut self, asked: Vec<MetricRequest>) -> Option<(Vec<Comparison>, Limits)> {
        if asked.is_empty() {
            let default = AnalysisPolicy::default();
            return Some((default.comparisons, default.limits));
        }
        let (mut comparisons, mut limits): (Vec<Comparison>, _) = (Vec::new(), Limits::default());
        let mut is_right = true;
        for (number, asked) in asked.into_iter().enumerate() {
            let at = format!("metrics[{number}]");
            let metric = self
                .violations
                .take(format!("{AT}.{at}.metric"), asked.metric);
            let Some(metric) = metric else {
                is_right = false;
                continue;
            };
            if comparisons.iter().any(|other| other.metric == metric) {
                let why = format!("{} is there twice", metric.as_str());
                self.violations.add(format!("{AT}.{at}.metric"), why);
                is_right = false;
            }
            let default = Comparison::of(metric);
            let tolerance = self.share(&format!("{at}.tolerance"), asked.tolerance, 0.0);
            let margin = self.share(&format!("{at}.margin"), asked.margin, default.margin);
            is_right &= self.limit(&at, metric, asked.limit, &mut limits);
            match tolerance.zip(margin) {
                Some((tolerance, margin)) => comparisons.push(Comparison {
                    metric,
                    tolerance,
                    margin,
                }),
                None => is_right = false,
            }
        }
        is_right.then_some((comparisons, limits))
    }

    /// What a call may take: of latency and cost it has to be said, of the others it can't be.
    fn limit(&mut self, at: &str, metric: Metric, asked: f64, limits: &mut Limits) -> bool {
        let field = format!("{AT}.{at}.limit");
        let wanted = match metric {
            Metric::Latency => Some(("milliseconds", &mut limits.latency_ms)),
            Metric::Cost => Some(("USD", &mut limits.cost_usd)),
            Metric::Quality | Metric::Success => None,
        };
        let why = match wanted {
            Some((_, limit)) if asked > 0.0 && asked <= LIMIT_MAX => {
                *limit = Some(asked);
                return true;
            }
            None if asked == 0.0 => return true,
            Some((unit, _)) => format!("is {asked}; must be what a call may take, in {unit}"),
            None => format!("is {asked}; {} has no limit", metric.as_str()),
        };
        self.violations.add(field, why);
        false
    }

    fn breaker(&mut self, asked: Option<BreakerRequest>, default: Breaker) -> Option<Breaker> {
        let Some(asked) = asked else {
            return Some(default);
        };
        if asked.off {
            return Some(Breaker {
                calls: 0,
                failed: 0,
                ..default
            });
        }
        let calls = self.whole(
            "breaker.calls",
            asked.calls,
            BREAKER_CALLS_MAX,
            default.calls,
        );
        let failed = self.whole(
            "breaker.failed",
            asked.failed,
            BREAKER_CALLS_MAX,
            default.failed,
        );
        let share = self.share(
            "breaker.stable_failed_share_max",
            asked.stable_failed_share_max,
            default.stable_failed_share_max,
        );
        let (calls, failed) = calls.zip(failed)?;
        if failed > calls {
            let why = format!("is {failed}; must be at most breaker.calls, {calls}");
            self.violations.add(format!("{AT}.breaker.failed"), why);
            return None;
        }
        Some(Breaker {
            calls,
            failed,
            stable_failed_share_max: share?,
        })
    }
}
