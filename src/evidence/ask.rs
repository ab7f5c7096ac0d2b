//! How another service is asked: with a deadline, again where it is not there, and not at all for a
//! while where it does not answer.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rand::RngExt as _;
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How often in a row nobody must have answered for the service to be left alone.
const FAILURES_MAX: u32 = 3;
/// The shortest and longest time that it is left alone.
const LEFT_ALONE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Why there is no answer that says anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// What was asked for is not known there.
    #[error("{0}")]
    Unknown(String),
    /// The service can't be reached, or can't answer.
    #[error("{0}")]
    Down(String),
}

/// Another service, over one connection that is shared by all who ask. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    name: &'static str,
    address: Arc<str>,
    channel: Channel,
    circuit: Arc<Mutex<Circuit>>,
}

/// How often in a row nobody answered, and until when nobody is asked because of it.
#[derive(Debug, Default)]
struct Circuit {
    failures: u32,
    closed_until: Option<Instant>,
}

/// Whether a call may be made again that may have been carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only reads.
    Read,
    /// It changes something.
    Write,
}

impl Peer {
    /// The service at `host:port`. Nothing is connected to before it is asked.
    pub(super) fn new(name: &'static str, address: &str) -> Result<Self, tonic::transport::Error> {
        let uri = if address.starts_with("http://") {
            address.to_owned()
        } else {
            format!("http://{address}")
        };
        let channel = Endpoint::from_shared(uri)?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(5))
            .connect_lazy();
        Ok(Self {
            name,
            address: address.into(),
            channel,
            circuit: Arc::default(),
        })
    }

    /// A call, of the service's client.
    pub(super) async fn ask<T, F>(
        &self,
        kind: Kind,
        call: impl Fn(Channel) -> F,
    ) -> Result<T, NoAnswer>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        if let Some(left) = self.is_left_alone() {
            let seconds = left.as_secs() + 1;
            let Self { name, address, .. } = self;
            return Err(NoAnswer::Down(format!(
                "{name} at {address} does not answer; it is asked again in {seconds} s"
            )));
        }
        let mut answer = call(self.channel.clone()).await;
        if kind == Kind::Read
            && matches!(&answer, Err(status) if status.code() == Code::Unavailable)
        {
            let jitter = rand::rng().random_range(50..150);
            tokio::time::sleep(Duration::from_millis(jitter)).await;
            answer = call(self.channel.clone()).await;
        }
        answer
            .map(|answer| {
                self.answered();
                answer.into_inner()
            })
            .map_err(|status| self.no_answer(&status))
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whatever else is said is no answer, and no sign of an outage"
    )]
    fn no_answer(&self, status: &Status) -> NoAnswer {
        let Self { name, address, .. } = self;
        let said = status.message();
        match status.code() {
            Code::NotFound => {
                self.answered();
                NoAnswer::Unknown(said.to_owned())
            }
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
                self.failed();
                NoAnswer::Down(format!("{name} at {address} does not answer"))
            }
            code => {
                self.answered();
                NoAnswer::Down(format!("{name} at {address} answers {code:?}: {said}"))
            }
        }
    }

    fn is_left_alone(&self) -> Option<Duration> {
        let circuit = self.circuit.lock().unwrap_or_else(PoisonError::into_inner);
        let until = circuit.closed_until?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    fn answered(&self) {
        *self.circuit.lock().unwrap_or_else(PoisonError::into_inner) = Circuit::default();
    }

    fn failed(&self) {
        let mut circuit = self.circuit.lock().unwrap_or_else(PoisonError::into_inner);
        circuit.failures = circuit.failures.saturating_add(1);
        let Some(beyond) = circuit.failures.checked_sub(FAILURES_MAX) else {
            return;
        };
        let (shortest, longest) = LEFT_ALONE;
        let pause = shortest.saturating_mul(1 << beyond.min(5)).min(longest);
        // So that replicas do not come back together.
        let pause = pause.mul_f64(rand::rng().random_range(0.8..1.2));
        circuit.closed_until = Some(Instant::now() + pause);
    }
}
