//! Whether a rollout is good enough to go on, so bad that it has to be rolled back, or neither.
//!
//! Every metric is a number between 0 and 1 for each unit (user or session), more of which is
//! better. `moments` is what is kept of them, `likelihood` how much speaks against a level or a
//! difference, `sequence` how much of it is enough however often one looks, `policy` what is asked
//! for and `request` how a caller asks for it, `evidence` what was seen, `checks` and `guards` what each check says of it, `judge` what
//! follows, `verdict` how it is told, and `forecast` what can be seen at all.
//! `docs/analysis.md` has the formulas and what they come to in simulations.

mod checks;
mod evidence;
mod forecast;
mod guards;
mod judge;
mod likelihood;
mod moments;
mod policy;
mod request;
mod sequence;
mod verdict;
mod words;

#[cfg(test)]
mod tests;

pub use evidence::{Assigned, Calls, Evidence, MetricEvidence, Recent, Stratum};
pub use forecast::Expected;
pub use judge::{Asked, judge};
pub use likelihood::{Difference, Level, Measured};
pub use moments::Moments;
pub use policy::{AnalysisPolicy, Breaker, Comparison, Floor, Limits, Metric, WithoutEvidence};
pub use request::{BreakerRequest, MetricRequest, PolicyRequest};
pub use sequence::Sequence;
pub use verdict::{Analysis, Check, Numbers, Overall, Subject, Verdict};
