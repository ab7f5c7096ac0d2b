//! A stand-in for the Eval service (and the Prompt service): a server of its own that speaks the
//! contract, keeps its runs in memory, and has faults to switch on.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use delos_deploy::evidence::pb::{
    eval::{
        self, EvalResult, EvalRun, EvalRunStatus, EvalSummary,
        eval_service_server::{EvalService, EvalServiceServer},
    },
    prompt::{
        GetPromptHistoryRequest, GetPromptHistoryResponse, PromptVersion,
        prompt_service_server::{PromptService, PromptServiceServer},
    },
};
use tokio::{net::TcpListener, task::AbortHandle};
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

/// How the stand-in behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Fault {
    /// As it should.
    #[default]
    None,
    /// It takes each call, and does not answer it.
    Mute,
    /// It answers that it can't.
    Unavailable,
    /// It does not list the runs that it was asked to start.
    ListsLate,
    /// It has no results to show, of any run.
    NoResults,
    /// It leaves out the last result of a run, which it counts.
    ShortOfOne,
    /// It shows the results of another run.
    OtherResults,
}

/// Most results in an answer, however many are asked for.
const RESULTS_PER_ANSWER: usize = 64;

#[derive(Debug, Default)]
struct State {
    runs: Vec<EvalRun>,
    results: Vec<EvalResult>,
    /// How many runs were asked to be started.
    started: usize,
    /// How many calls came.
    calls: usize,
    fault: Fault,
}

/// A running stand-in. Ends when it is dropped.
pub(crate) struct Eval {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: AbortHandle,
}

#[derive(Clone)]
struct Served(Arc<Mutex<State>>);

impl Eval {
    /// One without runs, on a free port.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<Mutex<State>>::default();
        let served = Served(Arc::clone(&state));
        let server = tonic::transport::Server::builder()
            .add_service(EvalServiceServer::new(served.clone()))
            .add_service(PromptServiceServer::new(served))
            .serve_with_incoming(TcpIncoming::from(listener));
        Self {
            address,
            state,
            task: tokio::spawn(async move { server.await.unwrap() }).abort_handle(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Switches a fault on, or off.
    pub(crate) fn fault(&self, fault: Fault) {
        self.state().fault = fault;
    }

    /// Adds a run, or puts it in the place of the one of its id.
    pub(crate) fn put(&self, run: EvalRun) {
        let mut state = self.state();
        state.runs.retain(|known| known.id != run.id);
        state.runs.push(run);
    }

    /// Every run.
    pub(crate) fn runs(&self) -> Vec<EvalRun> {
        self.state().runs.clone()
    }

    /// How many runs were asked to be started.
    pub(crate) fn started(&self) -> usize {
        self.state().started
    }

    /// How many calls came.
    pub(crate) fn calls(&self) -> usize {
        self.state().calls
    }

    /// Completes a run, with results.
    pub(crate) fn complete_by(&self, run_id: &str, results: Vec<EvalResult>) {
        let run = self.runs().into_iter().find(|run| run.id == run_id);
        let mut run = run.unwrap();
        let count = results.len() as f64;
        let sum = |of: fn(&EvalResult) -> f64| results.iter().map(of).sum::<f64>();
        run.status = EvalRunStatus::Completed.into();
        run.total_examples = results.len() as i32;
        run.completed_examples = run.total_examples;
        run.summary = Some(EvalSummary {
            overall_score: sum(|result| result.overall_score) / count,
            total_cost_usd: sum(|result| result.cost_usd),
            avg_latency_ms: sum(|result| result.latency_ms) / count,
            ..Default::default()
        });
        self.put(run);
        let of_run = |(number, result): (usize, EvalResult)| EvalResult {
            id: format!("{run_id}-{number}"),
            eval_run_id: run_id.into(),
            ..result
        };
        let mut state = self.state();
        state.results.retain(|known| known.eval_run_id != run_id);
        state
            .results
            .extend(results.into_iter().enumerate().map(of_run));
    }

    /// Completes the only run there is, with a score.
    pub(crate) fn complete(&self, score: f64) {
        let run = self.runs().pop().unwrap();
        let summary = run_of(&run.id, &run.prompt_id, run.prompt_version, score);
        self.put(EvalRun {
            status: summary.status,
            summary: summary.summary,
            completed_examples: summary.completed_examples,
            ..run
        });
    }
}

impl Drop for Eval {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A run that has completed: ten examples, 100 ms and a cent each.
pub(crate) fn run_of(id: &str, prompt_id: &str, version: i32, score: f64) -> EvalRun {
    EvalRun {
        id: id.into(),
        prompt_id: prompt_id.into(),
        prompt_version: version,
        dataset_id: "golden-set".into(),
        status: EvalRunStatus::Completed.into(),
        total_examples: 10,
        completed_examples: 10,
        summary: Some(EvalSummary {
            overall_score: score,
            total_cost_usd: 0.1,
            avg_latency_ms: 100.0,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// What a run has measured on an example: 100 ms and a cent.
pub(crate) fn result_of(example: usize, score: f64) -> EvalResult {
    EvalResult {
        example_id: format!("example-{example}"),
        overall_score: score,
        latency_ms: 100.0,
        cost_usd: 0.01,
        ..Default::default()
    }
}

impl Served {
    async fn state(&self) -> Result<MutexGuard<'_, State>, Status> {
        let fault = {
            let mut state = self.0.lock().unwrap();
            state.calls += 1;
            state.fault
        };
        match fault {
            Fault::None
            | Fault::ListsLate
            | Fault::NoResults
            | Fault::ShortOfOne
            | Fault::OtherResults => Ok(self.0.lock().unwrap()),
            Fault::Unavailable => Err(Status::unavailable("switched off")),
            Fault::Mute => {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                Err(Status::unavailable("switched off"))
            }
        }
    }
}

#[tonic::async_trait]
impl EvalService for Served {
    async fn create_eval_run(
        &self,
        request: Request<eval::CreateEvalRunRequest>,
    ) -> Result<Response<eval::CreateEvalRunResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.state().await?;
        if request.dataset_id == "nowhere" {
            return Err(Status::not_found("dataset 'nowhere' does not exist"));
        }
        state.started += 1;
        let run = EvalRun {
            id: format!("started-{}", state.started),
            name: request.name,
            prompt_id: request.prompt_id,
            prompt_version: request.prompt_version,
            dataset_id: request.dataset_id,
            metadata: request.metadata,
            config: request.config,
            status: EvalRunStatus::Pending.into(),
            ..Default::default()
        };
        state.runs.push(run.clone());
        Ok(Response::new(eval::CreateEvalRunResponse {
            eval_run: Some(run),
        }))
    }

    async fn get_eval_run(
        &self,
        request: Request<eval::GetEvalRunRequest>,
    ) -> Result<Response<eval::GetEvalRunResponse>, Status> {
        let id = request.into_inner().id;
        let state = self.state().await?;
        let run = state.runs.iter().find(|run| run.id == id).cloned();
        let run = run.ok_or_else(|| Status::not_found(format!("run '{id}' does not exist")))?;
        Ok(Response::new(eval::GetEvalRunResponse {
            eval_run: Some(run),
        }))
    }

    async fn list_eval_runs(
        &self,
        request: Request<eval::ListEvalRunsRequest>,
    ) -> Result<Response<eval::ListEvalRunsResponse>, Status> {
        let request = request.into_inner();
        let state = self.state().await?;
        let is_late = state.fault == Fault::ListsLate;
        let matching = |run: &&EvalRun| {
            run.prompt_id == request.prompt_id
                && run.dataset_id == request.dataset_id
                && !(is_late && run.name.starts_with("delos-deploy/"))
        };
        let runs: Vec<_> = state.runs.iter().filter(matching).cloned().collect();
        let page = runs.iter().skip(request.offset as usize);
        Ok(Response::new(eval::ListEvalRunsResponse {
            eval_runs: page.take(request.limit as usize).cloned().collect(),
            total_count: runs.len() as i32,
        }))
    }

    async fn get_eval_results(
        &self,
        request: Request<eval::GetEvalResultsRequest>,
    ) -> Result<Response<eval::GetEvalResultsResponse>, Status> {
        let request = request.into_inner();
        let state = self.state().await?;
        if state.fault == Fault::NoResults {
            return Err(Status::internal("the results are elsewhere"));
        }
        let is_other = state.fault == Fault::OtherResults;
        let of_run = |result: &&EvalResult| (result.eval_run_id == request.eval_run_id) != is_other;
        let all: Vec<_> = state.results.iter().filter(of_run).collect();
        let shown = all.len() - usize::from(state.fault == Fault::ShortOfOne);
        let page = all[..shown].iter().skip(request.offset as usize);
        let limit = RESULTS_PER_ANSWER.min(request.limit as usize);
        Ok(Response::new(eval::GetEvalResultsResponse {
            results: page.take(limit).map(|result| (*result).clone()).collect(),
            total_count: all.len() as i32,
        }))
    }

    async fn health(
        &self,
        _: Request<eval::HealthRequest>,
    ) -> Result<Response<eval::HealthResponse>, Status> {
        Ok(Response::new(eval::HealthResponse::default()))
    }
}

/// Knows prompts by their runs: the versions that were evaluated are those that there are.
#[tonic::async_trait]
impl PromptService for Served {
    async fn get_prompt_history(
        &self,
        request: Request<GetPromptHistoryRequest>,
    ) -> Result<Response<GetPromptHistoryResponse>, Status> {
        let id = request.into_inner().id;
        let state = self.state().await?;
        let runs = state.runs.iter().filter(|run| run.prompt_id == id);
        let versions: Vec<_> = runs
            .map(|run| PromptVersion {
                version: run.prompt_version,
                ..Default::default()
            })
            .collect();
        if versions.is_empty() {
            return Err(Status::not_found(format!("prompt '{id}' does not exist")));
        }
        Ok(Response::new(GetPromptHistoryResponse {
            prompt_id: id,
            versions,
        }))
    }
}
