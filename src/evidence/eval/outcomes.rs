//! What a run has measured, example by example.

use std::collections::HashSet;

use super::{Eval, EvalRun, EvalServiceClient, Kind, Look, NoAnswer, PAGE};
use crate::{
    domain::paired::{Evaluation, Outcome},
    evidence::pb::eval::{EvalResult, GetEvalResultsRequest, GetEvalResultsResponse},
};

/// Most results of a run: what can be read and compared within a look.
const RESULTS_MAX: usize = 10_000;

impl Eval {
    /// All that a completed run has measured; or why that can't count, or is not all there.
    pub(super) async fn outcomes(
        &self,
        run: &EvalRun,
    ) -> Result<Result<Evaluation, Look>, NoAnswer> {
        let id = &run.id;
        let mut results: Vec<EvalResult> = Vec::new();
        let total = loop {
            let page = self.results(id, results.len()).await?;
            let total = usize::try_from(page.total_count).unwrap_or_default();
            let is_last = page.results.is_empty();
            results.extend(page.results);
            if total.max(results.len()) > RESULTS_MAX {
                return Ok(Err(Look::Unusable(format!(
                    "run {id} has {} results; at most {RESULTS_MAX} can be compared",
                    total.max(results.len())
                ))));
            }
            if is_last || results.len() >= total {
                break total;
            }
        };
        let completed = usize::try_from(run.completed_examples).unwrap_or_default();
        let count = results.len();
        if count < total.max(completed) {
            return Ok(Err(Look::NotYet(format!(
                "run {id} shows {count} of its {} results",
                total.max(completed)
            ))));
        }
        Ok(check(id, &results).map(|()| Evaluation {
            run_id: id.clone(),
            version: run.prompt_version,
            outcomes: results.into_iter().map(outcome).collect(),
        }))
    }

    async fn results(&self, run: &str, offset: usize) -> Result<GetEvalResultsResponse, NoAnswer> {
        let request = GetEvalResultsRequest {
            eval_run_id: run.to_owned(),
            failed_only: false,
            limit: PAGE,
            offset: i32::try_from(offset).unwrap_or(i32::MAX),
        };
        let ask = |channel| {
            let request = request.clone();
            async move {
                EvalServiceClient::new(channel)
                    .get_eval_results(request)
                    .await
            }
        };
        self.0.ask(Kind::Read, ask).await
    }
}

/// Whether the results are this run's, and each is there once.
fn check(run: &str, results: &[EvalResult]) -> Result<(), Look> {
    let mut seen = HashSet::new();
    for EvalResult {
        id, eval_run_id, ..
    } in results
    {
        if !eval_run_id.is_empty() && eval_run_id != run {
            return Err(Look::Unusable(format!(
                "run {run} shows a result of run {eval_run_id}"
            )));
        }
        // Pages that overlap leave others out; the next look may see them whole.
        if !id.is_empty() && !seen.insert(id) {
            return Err(Look::NotYet(format!("run {run} shows result {id} twice")));
        }
    }
    Ok(())
}

fn outcome(result: EvalResult) -> Outcome {
    Outcome {
        example_id: result.example_id,
        is_failed: !result.error.is_empty(),
        score: result.overall_score,
        latency_ms: result.latency_ms,
        cost_usd: result.cost_usd,
    }
}
