//! An Eval service of the demo's own: it completes each run a moment after it was asked for, with
//! the score that the version has on examples.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use delos_deploy::evidence::pb::eval::{
    self, EvalRun, EvalRunStatus, EvalSummary,
    eval_service_server::{EvalService, EvalServiceServer},
};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, transport::server::TcpIncoming};

use crate::{Failure, say::Say, versions};

/// How long a run takes.
const RUN_TAKES: Duration = Duration::from_millis(1500);
const EXAMPLES: i32 = 200;

/// The Eval service, before it serves.
pub(crate) struct Eval {
    listener: TcpListener,
    served: Served,
}

/// The runs, and when each was asked for.
#[derive(Clone)]
struct Served {
    say: Say,
    runs: Arc<Mutex<Vec<(Instant, EvalRun)>>>,
}

impl Eval {
    /// Takes a free port of the loopback.
    pub(crate) async fn bind(say: Say) -> Result<Self, Failure> {
        Ok(Self {
            listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
            served: Served {
                say,
                runs: Arc::default(),
            },
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> Result<SocketAddr, Failure> {
        Ok(self.listener.local_addr()?)
    }

    /// Serves until it is dropped.
    pub(crate) async fn serve(self) -> Result<(), Failure> {
        tonic::transport::Server::builder()
            .add_service(EvalServiceServer::new(self.served))
            .serve_with_incoming(TcpIncoming::from(self.listener))
            .await?;
        Ok(())
    }
}

impl Served {
    /// The runs, after those whose time has come were completed.
    fn runs(&self) -> MutexGuard<'_, Vec<(Instant, EvalRun)>> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        for (since, run) in runs.iter_mut() {
            if run.status() == EvalRunStatus::Running && since.elapsed() >= RUN_TAKES {
                self.complete(run);
            }
        }
        runs
    }

    fn complete(&self, run: &mut EvalRun) {
        let score = versions::does(run.prompt_version).on_examples;
        run.set_status(EvalRunStatus::Completed);
        run.completed_examples = run.total_examples;
        run.summary = Some(EvalSummary {
            overall_score: score,
            total_cost_usd: 0.003 * f64::from(EXAMPLES),
            avg_latency_ms: 600.0,
            ..Default::default()
        });
        let version = run.prompt_version;
        let what = format!("the run of version {version} has completed: score {score:.2}");
        self.say.that("eval", what);
    }
}

#[tonic::async_trait]
impl EvalService for Served {
    async fn create_eval_run(
        &self,
        request: Request<eval::CreateEvalRunRequest>,
    ) -> Result<Response<eval::CreateEvalRunResponse>, Status> {
        let request = request.into_inner();
        let mut runs = self.runs();
        let run = EvalRun {
            id: format!("run-{}", runs.len() + 1),
            name: request.name,
            prompt_id: request.prompt_id,
            prompt_version: request.prompt_version,
            dataset_id: request.dataset_id,
            metadata: request.metadata,
            status: EvalRunStatus::Running.into(),
            total_examples: EXAMPLES,
            ..Default::default()
        };
        runs.push((Instant::now(), run.clone()));
        let (version, dataset) = (run.prompt_version, &run.dataset_id);
        let what = format!("runs version {version} over the {EXAMPLES} examples of '{dataset}'");
        self.say.that("eval", what);
        Ok(Response::new(eval::CreateEvalRunResponse {
            eval_run: Some(run),
        }))
    }

    async fn get_eval_run(
        &self,
        request: Request<eval::GetEvalRunRequest>,
    ) -> Result<Response<eval::GetEvalRunResponse>, Status> {
        let id = request.into_inner().id;
        let runs = self.runs();
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
        let request = request.into_inner();
        let runs = self.runs();
        let runs = runs.iter().map(|(_, run)| run).filter(|run| {
            run.prompt_id == request.prompt_id && run.dataset_id == request.dataset_id
        });
        let runs: Vec<EvalRun> = runs.cloned().collect();
        Ok(Response::new(eval::ListEvalRunsResponse {
            total_count: i32::try_from(runs.len()).unwrap_or(i32::MAX),
            // There are a handful: one page holds them.
            eval_runs: if request.offset == 0 {
                runs
            } else {
                Vec::new()
            },
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
