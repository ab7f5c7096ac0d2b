//! Puts everything together and owns the accept loop: one listener, and a stop that is graceful
//! and bounded.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper_util::server::graceful::GracefulShutdown;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{Config, Listen},
    evidence::{Eval, Prompts, webhook::Webhooks},
    reconciler::Reconciler,
    service::{self, Service, Sources},
    store::{self, Backend, Store},
    telemetry::Telemetry,
    traffic::{self, Cache},
    wire::{self, Readiness},
};

mod connections;

use connections::Connections;

/// Most connections that wait to be taken, as far as the system allows: one that finds no room among
/// them tries again only after a second.
const BACKLOG: u32 = 65_535;
/// How long requests in flight may take to finish after the listener has closed.
const FINISH: Duration = Duration::from_secs(15);
/// How often it is looked whether the storage answers.
const CHECK: Duration = Duration::from_secs(1);
/// How long a start waits for a database that does not answer yet.
pub(crate) const DATABASE_PATIENCE: Duration = Duration::from_secs(60);

/// How to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Go on serving for the drain time, not ready, then finish.
    Drained,
    /// Finish without a drain time.
    AtOnce,
}

/// Stops a server from elsewhere.
#[derive(Debug, Clone)]
pub struct Stopper(Arc<watch::Sender<Option<Stop>>>);

impl Stopper {
    /// Tells the server to stop.
    pub fn stop(&self, how: Stop) {
        self.0.send_replace(Some(how));
    }
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    readiness: Readiness,
    service: Service,
    connections: Connections,
    drain: Duration,
    stop: Stopper,
    tasks: TaskTracker,
    stop_tasks: CancellationToken,
    /// Stores what is reported, until no request can report any more.
    collector: JoinHandle<()>,
    stop_collector: CancellationToken,
    outcome_retention: Duration,
    runs_reconciler: bool,
    cache: Option<Cache>,
    /// Rings when there may be something new in the storage.
    hint: Arc<Notify>,
}

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address can't be listened on.
    #[error("{address} can't be listened on: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The traffic table can't be read.
    #[error("the traffic table can't be read: {0}")]
    Traffic(#[from] store::Error),
    /// The address of another service can't be used.
    #[error("the address of another service can't be used: {0}")]
    Peer(#[from] tonic::transport::Error),
    /// The certificates that webhooks are trusted by can't be read.
    #[error("the certificates of DELOS_WEBHOOK_SSLROOTCERT can't be read: {0}")]
    Certificates(#[source] io::Error),
    /// The contract can't be reflected, which is a bug.
    #[error("the contract can't be reflected: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The Redis that is used beside a storage that replicas share.
///
/// # Errors
/// Its URL can't be used.
pub fn cache(config: &Config) -> Result<Option<Cache>, redis::RedisError> {
    match &config.storage {
        Backend::Memory | Backend::Sqlite(_) => Ok(None),
        Backend::Postgres(server) => {
            Cache::new(config.redis_url.reveal(), &server.to_string()).map(Some)
        }
    }
}

/// Fills the traffic table. A database that breaks off now is waited for, as one that does not
/// answer yet.
async fn fill(service: &Service) -> Result<(), store::Error> {
    let since = Instant::now();
    loop {
        match service.traffic().refresh(service.store()).await {
            Err(store::Error::Unavailable(error)) if since.elapsed() < DATABASE_PATIENCE => {
                tracing::warn!(%error, "the traffic table can't be read yet; waiting for the database");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            filled => return filled,
        }
    }
}

impl Server {
    /// Listens, and puts together what is served.
    ///
    /// # Errors
    /// The address can't be listened on.
    pub async fn bind(
        config: &Config,
        store: Store,
        cache: Option<Cache>,
        telemetry: Arc<Telemetry>,
    ) -> Result<Self, BindError> {
        let Listen {
            address,
            port,
            connections_max,
            requests_max,
            request_timeout,
            drain,
        } = config.listen;
        let address = SocketAddr::new(address, port);
        let failed = |source| BindError::Listen { address, source };
        let listener = listen(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let metrics = telemetry.metrics().clone();
        for pool in store.pools() {
            metrics.observe_pool(pool.name, pool.read);
        }
        let sources = Sources {
            eval: Eval::new(&config.eval_endpoint)?,
            prompts: config
                .prompt_endpoint
                .as_deref()
                .map(Prompts::new)
                .transpose()?,
            webhooks: Webhooks::new(&config.webhooks).map_err(BindError::Certificates)?,
        };
        let (service, collector) = Service::new(store, metrics, config.gate_timeout, sources);
        // Where it does not answer yet, the table is the cache's until it does.
        if service.store().is_open() {
            fill(&service).await?;
        }
        let readiness = Readiness::new(config.telemetry.service_version.clone());
        let router = wire::router(wire::Routes {
            service: service.clone(),
            readiness: readiness.clone(),
            telemetry,
            origins: config.origins.clone(),
            default_environment: config.default_environment.clone(),
            evaluation_name: config.evaluation_name.clone(),
            timeout: request_timeout,
            requests_max,
        })?;
        let (tasks, stop_collector) = (TaskTracker::new(), CancellationToken::new());
        Ok(Self {
            listener,
            address,
            readiness,
            service,
            connections: Connections::new(router, connections_max, tasks.clone()),
            drain,
            stop: Stopper(Arc::new(watch::Sender::new(None))),
            collector: tasks.spawn(collector.run(stop_collector.clone())),
            tasks,
            stop_tasks: CancellationToken::new(),
            stop_collector,
            outcome_retention: config.outcome_retention,
            runs_reconciler: true,
            cache,
            hint: Arc::new(Notify::new()),
        })
    }

    /// Leaves the reconciler to the caller, for tests that move the clock.
    #[must_use]
    pub fn without_reconciler(mut self) -> Self {
        self.runs_reconciler = false;
        self
    }

    /// The address that is listened on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The use cases that are served.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// What stops the server.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stop.clone()
    }

    /// Serves until it is stopped, and has finished what was in flight.
    pub async fn run(self) {
        let reconciler = self.start_reconciler();
        let check = self.tasks.spawn(watch_storage(
            self.service.store().clone(),
            self.readiness.clone(),
            self.stop_tasks.clone(),
        ));
        let feeders = self.start_feeding();
        let cache = self.start_cache();
        let upkeep = self.start_upkeep();
        let opening = self.tasks.spawn(open_storage(
            self.service.store().clone(),
            Arc::clone(&self.hint),
            self.stop_tasks.clone(),
        ));
        let replica = self.service.replica();
        tracing::info!(address = %self.address, %replica, "serving");
        let graceful = GracefulShutdown::new();
        let mut stop = self.stop.0.subscribe();
        self.accept_until(&graceful, async {
            let _ = stop.wait_for(Option::is_some).await;
        })
        .await;

        tracing::info!("stopping");
        self.readiness.stop().await;
        self.stop_tasks.cancel();
        let mut stop = self.stop.0.subscribe();
        self.accept_until(&graceful, async {
            let at_once = stop.wait_for(|how| *how == Some(Stop::AtOnce));
            // Either way: it is time.
            let _ = tokio::time::timeout(self.drain, at_once).await;
        })
        .await;
        drop(self.listener);
        // Streams end with a status of ours, before their connections do.
        self.service.traffic().close();
        self.readiness.dismiss_watchers().await;
        if tokio::time::timeout(FINISH, graceful.shutdown())
            .await
            .is_err()
        {
            tracing::warn!("requests were still in flight when the time to finish them was up");
        }
        self.stop_collector.cancel();
        let tasks = [check, opening, upkeep, self.collector];
        let tasks = reconciler.into_iter().chain(tasks);
        for task in tasks.chain(feeders).chain(cache) {
            // A panic there is on record already.
            let _ = task.await;
        }
        // Until here it has served. Where this fails, the others take it for gone in a while.
        let store = self.service.store().clone();
        let _ = store.retire_replica(self.service.replica()).await;
        store.close().await;
        tracing::info!("stopped");
    }

    fn start_reconciler(&self) -> Option<JoinHandle<()>> {
        let reconciler = Reconciler::new(&self.service);
        let stop = self.stop_tasks.clone();
        self.runs_reconciler
            .then(|| self.tasks.spawn(reconciler.run(stop)))
    }

    /// Keeps the traffic table fed, and tells the other replicas how far it has come.
    fn start_feeding(&self) -> [JoinHandle<()>; 3] {
        let hint = Arc::clone(&self.hint);
        let (service, stop) = (self.service.clone(), self.stop_tasks.clone());
        let feed = traffic::feed(
            service.traffic().clone(),
            service.store().clone(),
            service.metrics().clone(),
            Arc::clone(&hint),
            stop.clone(),
        );
        let report = traffic::report(
            service.traffic().clone(),
            service.store().in_background(),
            service.replica(),
            stop.clone(),
        );
        let listen = async move { service.store().listen_for_traffic(hint, stop).await };
        [
            self.tasks.spawn(feed),
            self.tasks.spawn(listen),
            self.tasks.spawn(report),
        ]
    }

    /// Looks after what is stored.
    fn start_upkeep(&self) -> JoinHandle<()> {
        let service = self.service.in_background();
        let (retention, stop) = (self.outcome_retention, self.stop_tasks.clone());
        self.tasks.spawn(service::upkeep(service, retention, stop))
    }

    /// Listens to the hints of other replicas in Redis, and keeps the table there.
    fn start_cache(&self) -> Vec<JoinHandle<()>> {
        let Some(cache) = self.cache.clone() else {
            return Vec::new();
        };
        let (service, stop) = (&self.service, &self.stop_tasks);
        let keep = cache.clone().keep(
            service.traffic().clone(),
            service.store().clock().clone(),
            service.metrics().clone(),
            stop.clone(),
        );
        let (hint, stop) = (Arc::clone(&self.hint), stop.clone());
        let listen = async move { cache.listen(hint, stop).await };
        vec![self.tasks.spawn(keep), self.tasks.spawn(listen)]
    }

    async fn accept_until(&self, graceful: &GracefulShutdown, end: impl Future<Output = ()>) {
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                stream = self.accept() => self.connections.serve(stream, graceful),
            }
        }
    }

    /// The next connection.
    async fn accept(&self) -> TcpStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return stream,
                Err(error) => {
                    // Out of file handles, for one; what is open may close meanwhile.
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

/// Opens a storage that did not answer when this replica started, as soon as it does.
async fn open_storage(store: Store, hint: Arc<Notify>, stop: CancellationToken) {
    let mut told = false;
    while !store.is_open() {
        match store.bring_up_to_date().await {
            Ok(()) => {
                tracing::info!("the storage answers; its word is taken from now on");
                hint.notify_one();
                return;
            }
            Err(error) if !told => {
                told = true;
                tracing::warn!(%error, "the storage can't be opened yet; it is tried again");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(CHECK) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Looks now and then whether the storage answers.
async fn watch_storage(store: Store, readiness: Readiness, stop: CancellationToken) {
    let mut answered = true;
    loop {
        let answer = tokio::time::timeout(CHECK * 3, store.ping()).await;
        let answers = matches!(answer, Ok(Ok(())));
        if answers != answered {
            tracing::warn!(answers, "the storage's state has changed");
            answered = answers;
        }
        readiness.set_storage(answers).await;
        tokio::select! {
            () = tokio::time::sleep(CHECK) => {}
            () = stop.cancelled() => return,
        }
    }
}
