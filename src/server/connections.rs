//! The connections: their limits, and what becomes of one too many.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::TryFutureExt as _;
use http::{HeaderValue, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::TcpStream,
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
};
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::wire::{Beyond, Served};

/// How long a new connection may take until its first request's headers are there, and every
/// further one of HTTP/1.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest headers of a request, in bytes.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// Most headers of an HTTP/1 request.
const HEADERS_MAX: usize = 100;
/// Most requests at a time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 100;
/// Streams reset by the peer before we took them (CVE-2023-44487), and reset by us.
const RESETS_MAX: (usize, usize) = (20, 1024);
/// How long a visitor may take to ask, and then to read the answer.
const VISIT: Duration = Duration::from_secs(2);
/// Most visitors that have not asked yet. As many may come while one's question is on its way.
const VISITORS_MAX: usize = 1024;
/// Files that are kept for visitors, the storage and other services; half of all where there are
/// few.
const FILES_KEPT: u64 = 2048;

/// Takes connections in: as many as there are places. Whoever comes beyond that is a visitor, who
/// is told how the service is, or to come back, and is seen off: so that the service can be asked
/// how it is however many connections it has.
pub(super) struct Connections {
    router: Served,
    places: Arc<Semaphore>,
    /// Those who came last, the oldest first: told to make room when there are too many.
    visitors: Mutex<VecDeque<Arc<Notify>>>,
    visitors_max: usize,
    tasks: TaskTracker,
}

impl Connections {
    pub(super) fn new(router: Served, asked: usize, tasks: TaskTracker) -> Self {
        let (places, kept) = places(asked);
        if places < asked {
            tracing::warn!(
                places,
                asked,
                "the system lets this process open too few files for as many connections as DELOS_MAX_CONNECTIONS says"
            );
        }
        Self {
            router,
            places: Arc::new(Semaphore::new(places)),
            visitors: Mutex::default(),
            visitors_max: VISITORS_MAX.min(kept / 2),
            tasks,
        }
    }

    pub(super) fn serve(&self, stream: TcpStream, graceful: &GracefulShutdown) {
        // Small answers must not wait for the peer's acknowledgement.
        let _ = stream.set_nodelay(true);
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => self.seat(stream, place, graceful),
            Err(_) => self.receive(stream),
        }
    }

    fn seat(&self, stream: TcpStream, place: OwnedSemaphorePermit, graceful: &GracefulShutdown) {
        let router = self.router.clone();
        let has_begun = Arc::new(AtomicBool::new(false));
        let begun = Arc::clone(&has_begun);
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            begun.store(true, Ordering::Relaxed);
            router.clone().oneshot(request.map(axum::body::Body::new))
        });
        let connection = builder()
            .serve_connection_with_upgrades(TokioIo::new(stream), service)
            .into_owned();
        let connection = graceful.watch(connection);
        self.tasks.spawn(async move {
            let _place = place;
            tokio::pin!(connection);
            let first_request_is_late = async {
                tokio::time::sleep(HEADER_TIMEOUT).await;
                if has_begun.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(error = %error, "a connection broke");
                    }
                }
                () = first_request_is_late => tracing::debug!("a connection sent no request in time"),
            }
        });
    }

    /// Answers what a visitor asks first, and closes.
    fn receive(&self, stream: TcpStream) {
        let router = self.router.clone();
        let has_asked = Arc::new(Notify::new());
        let asks = Arc::clone(&has_asked);
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            asks.notify_one();
            let mut request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(Beyond);
            // HTTP/2 has a frame for it, and forbids the header.
            let is_told = request.version() < http::Version::HTTP_2;
            let answer = router.clone().oneshot(request);
            answer.map_ok(move |mut answer| {
                if is_told {
                    let close = HeaderValue::from_static("close");
                    answer.headers_mut().insert(header::CONNECTION, close);
                }
                answer
            })
        });
        let make_room = self.let_in();
        self.tasks.spawn(async move {
            let builder = builder();
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                _ = &mut connection => return,
                () = has_asked.notified() => {}
                () = make_room.notified() => return,
                () = tokio::time::sleep(VISIT) => return,
            }
            connection.as_mut().graceful_shutdown();
            // Either way it has had its time.
            let _ = tokio::time::timeout(VISIT, connection).await;
        });
    }

    /// Notes a visitor; what it is told by when too many others have come since.
    fn let_in(&self) -> Arc<Notify> {
        let visitor = Arc::new(Notify::new());
        let mut visitors = self.visitors.lock().unwrap_or_else(PoisonError::into_inner);
        visitors.push_back(Arc::clone(&visitor));
        if visitors.len() > self.visitors_max
            && let Some(oldest) = visitors.pop_front()
        {
            oldest.notify_one();
        }
        visitor
    }
}

/// How many of the places that are asked for there can be, and how many files are kept: each takes
/// a file, of which a process may have only so many. As many as the system allows are asked of it.
fn places(asked: usize) -> (usize, usize) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // None is no limit.
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let files = files.unwrap_or(u64::MAX);
    let kept = FILES_KEPT.min(files / 2);
    let as_size = |number| usize::try_from(number).unwrap_or(usize::MAX);
    let places = as_size(files - kept).min(Semaphore::MAX_PERMITS);
    (places.min(asked), as_size(kept))
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX.0)
        .max_local_error_reset_streams(RESETS_MAX.1)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}
