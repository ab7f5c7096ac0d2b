//! An Eval service that outlives every fault, completes each run after a moment, and remembers what
//! it was asked for.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use delos_deploy::evidence::pb::eval::{
    self, EvalRun, EvalRunStatus, EvalSummary,
    eval_service_server::{EvalService, EvalServiceServer},
};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

use crate::{Failure, clients::passes_gates};

/// How long a run takes.
const RUN_TAKES: Duration = Duration::from_millis(700);
/// How long an answer takes: long enough that replicas are killed and paused while they wait.
const ANSWER_TAKES: Duration = Duration::from_millis(150);

/// A running Eval service. Ends when it is dropped.
pub(crate) struct Eval {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    runs: Runs,
    _task: JoinSet<()>,
}

/// The runs, and when each was asked for.
#[derive(Clone, Default)]
struct Runs(Arc<Mutex<Vec<(Instant, EvalRun)>>>);

impl Eval {
    /// Starts one, on a free port.
    pub(crate) async fn start() -> Result<Self, Failure> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let runs = Runs::default();
        let server = tonic::transport::Server::builder()
            .add_service(EvalServiceServer::new(runs.clone()))
            .serve_with_incoming(TcpIncoming::from(listener));
        let serve = async move {
            if let Err(error) = server.await {
                eprintln!("the Eval service ended: {error}");
            }
        };
        let mut task = JoinSet::new();
        task.spawn(serve);
        Ok(Self {
            address,
            runs,
            _task: task,
        })
    }

    /// The names of the runs that were asked for, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let runs = self.runs.lock();
        runs.iter().map(|(_, run)| run.name.clone()).collect()
    }
}

impl Runs {
    /// The runs, after those whose time has come were completed.
    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, EvalRun)>> {
        let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (since, run) in runs.iter_mut() {
            if run.status() == EvalRunStatus::Running && since.elapsed() >= RUN_TAKES {
                let is_good = passes_gates(run.prompt_version);
                run.set_status(EvalRunStatus::Completed);
                run.completed_examples = run.total_examples;
                run.summary = Some(EvalSummary {
                    overall_score: if is_good { 0.9 } else { 0.2 },
                    ..Default::default()
                });
            }
        }
        runs
    }
}

#[tonic::async_trait]
impl EvalService for Runs {
    async fn create_eval_run(
        &self,
        request: Request<eval::CreateEvalRunRequest>,
    ) -> Result<Response<eval::CreateEvalRunResponse>, Status> {
        let request = request.into_inner();
        let run = {
            let mut runs = self.lock();
            let run = EvalRun {
                id: format!("run-{}", runs.len() + 1),
                name: request.name,
                prompt_id: request.prompt_id,
                prompt_version: request.prompt_version,
                dataset_id: request.dataset_id,
                metadata: request.metadata,
                status: EvalRunStatus::Running.into(),
                total_examples: 100,
                ..Default::default()
            };
            runs.push((Instant::now(), run.clone()));
            run
        };
        tokio::time::sleep(ANSWER_TAKES).await;
        Ok(Response::new(eval::CreateEvalRunResponse {
            eval_run: Some(run),
        }))
    }

    async fn get_eval_run(
        &self,
        request: Request<eval::GetEvalRunRequest>,
    ) -> Result<Response<eval::GetEvalRunResponse>, Status> {
        tokio::time::sleep(ANSWER_TAKES).await;
        let id = request.into_inner().id;
        let runs = self.lock();
        let found = runs.iter().find(|(_, run)| run.id == id);
        let (_, run) = found.ok_or_else(|| Status::not_found(format!("there is no run '{id}'")))?;
        Ok(Response::new(eval::GetEvalRunResponse {
            eval_run: Some(run.clone()),
        }))
    }

    async fn list_eval_runs(
        &self,
        request: Request<eval::ListEvalRunsRequest>,
    ) -> Result<Response<eval::ListEvalRunsResponse>, Status> {
        tokio::time::sleep(ANSWER_TAKES).await;
        let request = request.into_inner();
        let runs = self.lock();
        let any = i32::from(EvalRunStatus::Unspecified);
        let of_dataset = runs.iter().map(|(_, run)| run).filter(|run| {
            let is_of_status = request.status == any || request.status == run.status;
            run.prompt_id == request.prompt_id
                && run.dataset_id == request.dataset_id
                && is_of_status
        });
        // The newest first, a page at a time.
        let found: Vec<&EvalRun> = of_dataset.collect();
        let (offset, limit) = (request.offset.max(0), request.limit.max(1));
        let page = found.iter().rev().skip(offset as usize);
        Ok(Response::new(eval::ListEvalRunsResponse {
            total_count: i32::try_from(found.len()).unwrap_or(i32::MAX),
            eval_runs: page
                .take(limit as usize)
                .map(|run| (*run).clone())
                .collect(),
        }))
    }

    async fn get_eval_results(
        &self,
        _: Request<eval::GetEvalResultsRequest>,
    ) -> Result<Response<eval::GetEvalResultsResponse>, Status> {
        Err(Status::unimplemented("this Eval service keeps no examples"))
    }

    async fn health(
        &self,
        _: Request<eval::HealthRequest>,
    ) -> Result<Response<eval::HealthResponse>, Status> {
        Ok(Response::new(eval::HealthResponse::default()))
    }
}
