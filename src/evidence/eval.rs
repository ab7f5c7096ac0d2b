//! The Eval service, which knows how a version of a prompt does on examples.

mod both;
mod outcomes;
mod wanted;

use std::sync::Arc;

pub use wanted::Wanted;

use super::{
    ask::{Kind, NoAnswer, Peer},
    pb::eval::{
        CreateEvalRunRequest, EvalRun, EvalRunStatus, GetEvalRunRequest, ListEvalRunsRequest,
        eval_service_client::EvalServiceClient,
    },
};
use crate::domain::{deployment::Deployment, gate::Source, paired::Both};

/// How many runs (or results) are asked for at once, and how many are looked through at most for one dataset.
const PAGE: i32 = 100;
const RUNS_MAX: i32 = 1000;

/// The Eval service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Eval(Peer);

/// What looking for a run has come to.
#[derive(Debug, Clone, PartialEq)]
pub enum Look {
    /// A run has completed.
    Ready(Results),
    /// There is none that has; one is on its way, or the service does not answer.
    NotYet(String),
    /// What there is can't count.
    Unusable(String),
    /// A run has completed of each version.
    Both(Arc<Both>),
    /// There is no run that counts: one has to be started.
    Missing(Wanted),
}

/// What a run has measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Results {
    /// The run.
    pub run_id: String,
    /// Its score, 0 to 1 if it is sound.
    pub score: f64,
    /// Mean latency of an example, in milliseconds.
    pub latency_ms: f64,
    /// Cost of an example, in USD; none where no example was run.
    pub cost_usd: Option<f64>,
}

impl Eval {
    /// The service at `host:port`. Nothing is connected to before it is asked.
    ///
    /// # Errors
    /// It is no address.
    pub fn new(address: &str) -> Result<Self, tonic::transport::Error> {
        Peer::new("the Eval service", address).map(Self)
    }

    /// Looks for the run that a condition is measured by.
    pub async fn look(&self, source: &Source, deployment: &Deployment) -> Look {
        let looked = match source {
            Source::Run(id) => self.run(id, deployment).await,
            Source::Dataset(id) => self.newest_run(id, deployment).await,
            Source::BothVersions(id) => self.both(id, deployment).await,
            Source::SameGate | Source::Outside | Source::Webhook(_) => {
                return Look::Unusable("it names no run and no dataset".into());
            }
        };
        looked.unwrap_or_else(|no_answer| match no_answer {
            NoAnswer::Unknown(_) => Look::Unusable(match source {
                Source::Run(id) => format!("there is no evaluation run '{id}'"),
                Source::Dataset(_)
                | Source::BothVersions(_)
                | Source::SameGate
                | Source::Outside
                | Source::Webhook(_) => no_answer.to_string(),
            }),
            NoAnswer::Down(why) => Look::NotYet(why),
        })
    }

    async fn run(&self, id: &str, deployment: &Deployment) -> Result<Look, NoAnswer> {
        let request = GetEvalRunRequest { id: id.to_owned() };
        let ask = |channel| {
            let request = request.clone();
            async move { EvalServiceClient::new(channel).get_eval_run(request).await }
        };
        let answer = self.0.ask(Kind::Read, ask).await?;
        Ok(answer.eval_run.map_or_else(
            || Look::Unusable(format!("there is no evaluation run '{id}'")),
            |run| of_this_version(&run, deployment).map_or_else(|| judge(&run), Look::Unusable),
        ))
    }

    /// The run of the deployment's version over a dataset that counts.
    async fn newest_run(&self, dataset: &str, deployment: &Deployment) -> Result<Look, NoAnswer> {
        let runs = self.runs(dataset, deployment).await?;
        let wanted = Wanted::candidate(dataset);
        let run = wanted.that_counts(&runs, deployment);
        Ok(run.map_or(Look::Missing(wanted), judge))
    }

    async fn runs(&self, dataset: &str, deployment: &Deployment) -> Result<Vec<EvalRun>, NoAnswer> {
        let mut runs = Vec::new();
        loop {
            let offset = i32::try_from(runs.len()).unwrap_or(i32::MAX);
            let request = ListEvalRunsRequest {
                prompt_id: deployment.prompt_id.to_string(),
                dataset_id: dataset.to_owned(),
                status: EvalRunStatus::Unspecified.into(),
                limit: PAGE,
                offset,
            };
            let ask = |channel| {
                let request = request.clone();
                async move {
                    EvalServiceClient::new(channel)
                        .list_eval_runs(request)
                        .await
                }
            };
            let page = self.0.ask(Kind::Read, ask).await?;
            let is_last = page.eval_runs.is_empty()
                || offset.saturating_add(PAGE) >= page.total_count.min(RUNS_MAX);
            runs.extend(page.eval_runs);
            if is_last {
                runs.retain(|run| run.dataset_id == dataset);
                return Ok(runs);
            }
        }
    }

    /// Starts a run, under a name by which it is found again, and returns its id.
    ///
    /// # Errors
    /// There was no answer; it may have been started or not.
    pub async fn start(
        &self,
        wanted: &Wanted,
        deployment: &Deployment,
    ) -> Result<String, NoAnswer> {
        let request = CreateEvalRunRequest {
            name: wanted.name(deployment),
            description: format!(
                "Evidence for the deployment of version {} to {}",
                deployment.to_version, deployment.environment
            ),
            prompt_id: deployment.prompt_id.to_string(),
            prompt_version: wanted.side.version(deployment),
            dataset_id: wanted.dataset.clone(),
            config: wanted.config.clone(),
            metadata: [("deployment_id".to_owned(), deployment.id.to_string())].into(),
        };
        let ask = |channel| {
            let request = request.clone();
            async move {
                EvalServiceClient::new(channel)
                    .create_eval_run(request)
                    .await
            }
        };
        let answer = self.0.ask(Kind::Write, ask).await?;
        let run = answer.eval_run.unwrap_or_default();
        Ok(run.id)
    }
}

/// Why a run is none of what is deployed; none where it is.
fn of_this_version(run: &EvalRun, deployment: &Deployment) -> Option<String> {
    let (prompt, version) = (deployment.prompt_id.as_str(), deployment.to_version);
    (!is_of(run, deployment, version)).then(|| {
        format!(
            "run {} is of version {} of prompt '{}', not of version {version} of '{prompt}'",
            run.id, run.prompt_version, run.prompt_id
        )
    })
}

fn is_of(run: &EvalRun, deployment: &Deployment, version: i32) -> bool {
    run.prompt_id == deployment.prompt_id.as_str() && run.prompt_version == version
}

fn judge(run: &EvalRun) -> Look {
    completed(run).map_or_else(|look| look, |()| results(run))
}

/// What it means for a run that it has not completed, where it has not.
fn completed(run: &EvalRun) -> Result<(), Look> {
    let id = &run.id;
    let so_far = || {
        format!(
            "{} of {} examples",
            run.completed_examples, run.total_examples
        )
    };
    Err(match run.status() {
        EvalRunStatus::Completed => return Ok(()),
        EvalRunStatus::Pending => Look::NotYet(format!("run {id} has not begun yet")),
        EvalRunStatus::Running => Look::NotYet(format!("run {id} is running: {}", so_far())),
        EvalRunStatus::Failed => {
            Look::Unusable(format!("run {id} has failed: {}", run.error_message))
        }
        EvalRunStatus::Cancelled => Look::Unusable(format!("run {id} was cancelled")),
        EvalRunStatus::Unspecified => {
            Look::NotYet(format!("run {id} has a status that is not known here"))
        }
    })
}

fn results(run: &EvalRun) -> Look {
    let Some(summary) = &run.summary else {
        return Look::Unusable(format!("run {} has completed without a summary", run.id));
    };
    let examples = f64::from(run.completed_examples);
    Look::Ready(Results {
        run_id: run.id.clone(),
        score: summary.overall_score,
        latency_ms: summary.avg_latency_ms,
        cost_usd: (examples > 0.0).then(|| summary.total_cost_usd / examples),
    })
}
