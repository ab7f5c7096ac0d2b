//! Runs of both versions of a deployment over one dataset.

use std::sync::Arc;

use futures_util::future::try_join;

use super::{Eval, EvalRun, Look, Wanted, completed};
use crate::{
    domain::{deployment::Deployment, paired::Both},
    evidence::NoAnswer,
};

impl Eval {
    /// What both versions have done on the examples of a dataset; or else which run is missing or
    /// waited for. The second is looked for as soon as there is the first, completed or not.
    pub(super) async fn both(
        &self,
        dataset: &str,
        deployment: &Deployment,
    ) -> Result<Look, NoAnswer> {
        let runs = self.runs(dataset, deployment).await?;
        let wanted = Wanted::candidate(dataset);
        let Some(candidate) = wanted.that_counts(&runs, deployment) else {
            return Ok(Look::Missing(wanted));
        };
        let of_candidate = completed(candidate);
        if let Err(unusable @ Look::Unusable(_)) = of_candidate {
            return Ok(unusable);
        }
        let wanted = Wanted::baseline(dataset, candidate);
        let Some(baseline) = wanted.that_counts(&runs, deployment) else {
            return Ok(Look::Missing(wanted));
        };
        if !wanted.evaluates_as(baseline) {
            return Ok(Look::Unusable(format!(
                "run {} of the running version has other evaluators, or another provider or model, than run {}",
                baseline.id, candidate.id
            )));
        }
        match (of_candidate, completed(baseline).map_err(of_running)) {
            (Ok(()), Ok(())) => self.outcomes_of(candidate, baseline).await,
            (_, Err(unusable @ Look::Unusable(_))) => Ok(unusable),
            (Err(Look::NotYet(one)), Err(Look::NotYet(other))) => {
                Ok(Look::NotYet(format!("{one}; {other}")))
            }
            (Err(look), _) | (Ok(()), Err(look)) => Ok(look),
        }
    }

    async fn outcomes_of(&self, candidate: &EvalRun, baseline: &EvalRun) -> Result<Look, NoAnswer> {
        let outcomes = try_join(self.outcomes(candidate), self.outcomes(baseline)).await?;
        Ok(match outcomes {
            (Ok(candidate), Ok(baseline)) => Look::Both(Arc::new(Both {
                candidate,
                baseline,
            })),
            (Err(look), _) => look,
            (Ok(_), Err(look)) => of_running(look),
        })
    }
}

/// Says that it is the running version's run that keeps the two from being compared.
fn of_running(look: Look) -> Look {
    match look {
        Look::NotYet(why) => Look::NotYet(format!("the running version's {why}")),
        Look::Unusable(why) => Look::Unusable(format!("the running version's {why}")),
        Look::Ready(_) | Look::Both(_) | Look::Missing(_) => look,
    }
}
