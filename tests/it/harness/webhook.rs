//! A stand-in for who decides conditions outside: a server of its own that answers as it is told,
//! and keeps what it was sent.

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::AbortHandle,
};
use tokio_rustls::TlsAcceptor;

/// What each call is signed with in the tests.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// How a call is answered.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// With a status, headers and a body.
    With(u16, Vec<(&'static str, String)>, String),
    /// Not at all.
    Mute,
}

impl Reply {
    /// With a status and a body.
    pub(crate) fn body(status: u16, body: &str) -> Self {
        Self::With(status, Vec::new(), body.into())
    }

    /// With a status and a header.
    pub(crate) fn header(status: u16, name: &'static str, value: &str) -> Self {
        Self::With(status, vec![(name, value.into())], String::new())
    }
}

/// What was sent.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    /// A header, which must be there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    /// The body.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<Call>,
    /// The last one stays.
    replies: VecDeque<Reply>,
}

/// A running stand-in. Ends when it is dropped.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: AbortHandle,
}

impl Receiver {
    /// One that gives these answers one after another, the last again and again.
    pub(crate) async fn start(replies: &[Reply]) -> Self {
        Self::serve("127.0.0.1:0", replies, None).await
    }

    /// The same at an address.
    pub(crate) async fn start_at(address: &str, replies: &[Reply]) -> Self {
        Self::serve(address, replies, None).await
    }

    /// The same over TLS, as `localhost`, by the test run's authority.
    pub(crate) async fn start_encrypted(replies: &[Reply]) -> Self {
        let root = std::env::var("DELOS_TEST_POSTGRES_ROOTCERT").unwrap();
        let files = Path::new(&root).parent().unwrap();
        let certificate = CertificateDer::from_pem_file(files.join("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(files.join("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Self::serve("127.0.0.1:0", replies, Some(Arc::new(config).into())).await
    }

    async fn serve(address: &str, replies: &[Reply], tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            calls: Vec::new(),
            replies: replies.iter().cloned().collect(),
        }));
        let served = Arc::clone(&state);
        let serve = async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, served) = (tls.clone(), Arc::clone(&served));
                tokio::spawn(async move {
                    match tls {
                        None => connection(stream, served).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                connection(stream, served).await;
                            }
                        }
                    }
                });
            }
        };
        Self {
            address,
            state,
            task: tokio::spawn(serve).abort_handle(),
        }
    }

    /// From now on it gives these answers.
    pub(crate) fn reply(&self, replies: &[Reply]) {
        self.state.lock().unwrap().replies = replies.iter().cloned().collect();
    }

    /// What it was sent.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state.lock().unwrap().calls.clone()
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The setting by which it may be called.
    pub(crate) fn allowed(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection<S>(stream: S, state: Arc<Mutex<State>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answer = service_fn(move |request| answer(request, Arc::clone(&state)));
    // It ends as the client has it.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

async fn answer(
    request: http::Request<Incoming>,
    state: Arc<Mutex<State>>,
) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let reply = {
        let mut state = state.lock().unwrap();
        state.calls.push(Call {
            method: head.method.to_string(),
            target: head.uri.to_string(),
            headers: head.headers,
            body,
        });
        if state.replies.len() > 1 {
            state.replies.pop_front().unwrap()
        } else {
            state.replies[0].clone()
        }
    };
    match reply {
        Reply::With(status, headers, body) => {
            let mut response = http::Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            Ok(response.body(Full::new(body.into())).unwrap())
        }
        Reply::Mute => {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            Ok(http::Response::default())
        }
    }
}
