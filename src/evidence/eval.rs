//! The Eval service, which knows how a version of a prompt does on examples.

use super::{
    ask::{Kind, NoAnswer, Peer},
    pb::eval::{
        CreateEvalRunRequest, EvalRun, EvalRunStatus, GetEvalRunRequest, ListEvalRunsRequest,
        eval_service_client::EvalServiceClient,
    },
};
use crate::domain::{deployment::Deployment, gate::Source};

/// How many runs are asked for at once, and how many are looked through at most for one dataset.
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
    /// There is no run over this dataset: one has to be started.
    Missing,
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
            Source::SameGate | Source::Outside | Source::Webhook(_) => {
                return Look::Unusable("it names no run and no dataset".into());
            }
        };
        looked.unwrap_or_else(|no_answer| match no_answer {
            NoAnswer::Unknown(_) => Look::Unusable(match source {
                Source::Run(id) => format!("there is no evaluation run '{id}'"),
                Source::Dataset(_) | Source::SameGate | Source::Outside | Source::Webhook(_) => {
                    no_answer.to_string()
                }
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

    /// The newest completed run of the deployment's version over a dataset; or else that one is on
    /// its way, or that there is none.
    async fn newest_run(&self, dataset: &str, deployment: &Deployment) -> Result<Look, NoAnswer> {
        let mut runs = self.runs(dataset, deployment).await?;
        runs.retain(|run| run.dataset_id == dataset && of_this_version(run, deployment).is_none());
        let newest = |status: EvalRunStatus| {
            let runs = runs.iter().filter(|run| run.status() == status);
            runs.max_by_key(|run| {
                let at = run.completed_at.or(run.created_at).unwrap_or_default();
                (at.seconds, at.nanos)
            })
        };
        let found = [
            EvalRunStatus::Completed,
            EvalRunStatus::Running,
            EvalRunStatus::Pending,
        ]
        .into_iter()
        .find_map(newest);
        if let Some(run) = found {
            return Ok(judge(run));
        }
        // One that was started for this deployment and came to nothing is not started again.
        let name = name_of_run(dataset, deployment);
        let own = runs.iter().find(|run| run.name == name);
        Ok(own.map_or(Look::Missing, judge))
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
                return Ok(runs);
            }
        }
    }

    /// Starts a run of the deployment's version over a dataset, under a name by which it is found
    /// again, and returns its id.
    ///
    /// # Errors
    /// There was no answer; it may have been started or not.
    pub async fn start(&self, dataset: &str, deployment: &Deployment) -> Result<String, NoAnswer> {
        let request = CreateEvalRunRequest {
            name: name_of_run(dataset, deployment),
            description: format!(
                "Evidence for the deployment of version {} to {}",
                deployment.to_version, deployment.environment
            ),
            prompt_id: deployment.prompt_id.to_string(),
            prompt_version: deployment.to_version,
            dataset_id: dataset.to_owned(),
            config: None,
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

/// The same whoever starts it, and however often it is tried.
fn name_of_run(dataset: &str, deployment: &Deployment) -> String {
    format!("delos-deploy/{}/{dataset}", deployment.id)
}

/// Why a run is none of what is deployed; none where it is.
fn of_this_version(run: &EvalRun, deployment: &Deployment) -> Option<String> {
    let (prompt, version) = (deployment.prompt_id.as_str(), deployment.to_version);
    (run.prompt_id != prompt || run.prompt_version != version).then(|| {
        format!(
            "run {} is of version {} of prompt '{}', not of version {version} of '{prompt}'",
            run.id, run.prompt_version, run.prompt_id
        )
    })
}

fn judge(run: &EvalRun) -> Look {
    let id = &run.id;
    let so_far = || {
        format!(
            "{} of {} examples",
            run.completed_examples, run.total_examples
        )
    };
    match run.status() {
        EvalRunStatus::Completed => results(run),
        EvalRunStatus::Pending => Look::NotYet(format!("run {id} has not begun yet")),
        EvalRunStatus::Running => Look::NotYet(format!("run {id} is running: {}", so_far())),
        EvalRunStatus::Failed => {
            Look::Unusable(format!("run {id} has failed: {}", run.error_message))
        }
        EvalRunStatus::Cancelled => Look::Unusable(format!("run {id} was cancelled")),
        EvalRunStatus::Unspecified => {
            Look::NotYet(format!("run {id} has a status that is not known here"))
        }
    }
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
