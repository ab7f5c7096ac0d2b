//! A call of a webhook: one connection to an address that was checked, one request, one bounded
//! answer. No redirect is followed, no proxy used, and nothing kept for the next call.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either, select};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use url::Host;

use super::allow::Allow;
use crate::domain::endpoint::Endpoint;

/// Longest wait for a connection to one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How many addresses of a host are tried.
const ADDRESSES_MAX: usize = 4;
/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Most headers of an answer, and most bytes of them.
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Finds the addresses of a host. The system's way, or a test's.
pub(super) type Resolve =
    dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

/// What was answered.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// None where it is larger than is read.
    pub(super) body: Option<Bytes>,
}

/// What calls are made with.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) allow: Allow,
    pub(super) resolve: Arc<Resolve>,
    pub(super) tls: TlsConnector,
}

impl Caller {
    /// Makes a call.
    ///
    /// # Errors
    /// There was no answer, and why, for people.
    pub(super) async fn call(
        &self,
        endpoint: &Endpoint,
        request: Request<Full<Bytes>>,
    ) -> Result<Answered, String> {
        let addresses = self.addresses(endpoint).await?;
        let stream = connect(&addresses).await?;
        if !endpoint.is_encrypted() {
            return exchange(stream, request).await;
        }
        let name = match endpoint.host() {
            Host::Domain(name) => ServerName::try_from(name.to_owned())
                .map_err(|_| "its host is no name of a server".to_owned())?,
            Host::Ipv4(address) => ServerName::from(std::net::IpAddr::from(address)),
            Host::Ipv6(address) => ServerName::from(std::net::IpAddr::from(address)),
        };
        let stream = self.tls.connect(name, stream).await;
        let stream = stream.map_err(|error| {
            // It may quote what the other side says.
            tracing::debug!(%error, webhook = endpoint.origin(), "TLS fails");
            let inner = error.get_ref().and_then(|error| error.downcast_ref());
            let is_distrusted = matches!(inner, Some(rustls::Error::InvalidCertificate(_)));
            if is_distrusted {
                "has a certificate that is not trusted for its host"
            } else {
                "does not speak TLS as it should"
            }
        })?;
        exchange(stream, request).await
    }

    /// The addresses of its host, all of which may be called. They are found anew for each call, and
    /// what is connected to is one of them, so that a name that leads elsewhere a moment later leads
    /// nowhere.
    pub(super) async fn addresses(&self, endpoint: &Endpoint) -> Result<Vec<SocketAddr>, String> {
        let port = endpoint.port();
        let addresses = match endpoint.host() {
            Host::Ipv4(address) => vec![SocketAddr::new(address.into(), port)],
            Host::Ipv6(address) => vec![SocketAddr::new(address.into(), port)],
            Host::Domain(name) => {
                let found = (self.resolve)(name.to_owned(), port).await;
                found.map_err(|_| "its host has no address that can be found".to_owned())?
            }
        };
        if addresses.is_empty() {
            return Err("its host has no address".into());
        }
        self.allow
            .check_all(endpoint, &addresses)
            .map_err(|why| format!("may not be called: it {why}"))?;
        Ok(addresses)
    }
}

/// The system's way to find addresses.
pub(super) fn system() -> Arc<Resolve> {
    Arc::new(|name, port| {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), port)).await?;
            Ok(found.collect())
        })
    })
}

async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, String> {
    let mut why = String::new();
    for address in addresses.iter().take(ADDRESSES_MAX) {
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => why = format!("can't be reached: {}", error.kind()),
            Err(_) => why = "can't be reached: it takes too long to connect".into(),
        }
    }
    Err(why)
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answered, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broken = |_: hyper::Error| "breaks off without an answer of HTTP/1.1".to_owned();
    let (mut sender, connection) = http1::Builder::new()
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let answered = async move {
        let (head, body) = sender
            .send_request(request)
            .await
            .map_err(broken)?
            .into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = match body {
            Ok(body) => Some(body.to_bytes()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => None,
            Err(_) => return Err("breaks off within its answer".into()),
        };
        Ok(Answered {
            status: head.status,
            headers: head.headers,
            body,
        })
    };
    // The connection does its work while it is polled, and ends with this call.
    match select(Box::pin(answered), Box::pin(connection)).await {
        Either::Left((answered, _)) => answered,
        Either::Right((_, answered)) => answered.await,
    }
}
