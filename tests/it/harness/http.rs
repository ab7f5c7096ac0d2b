//! A plain HTTP client.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;

/// What was answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: http::HeaderMap,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// A header, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

/// Why there was no answer.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// Which HTTP is spoken. HTTP/2 is in clear text, by prior knowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// Sends a request over HTTP/1.1.
pub(crate) async fn send(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<Answer, Error> {
    let body = Full::new(body);
    exchange(Version::Http1, address, method, path, headers, body).await
}

/// Sends a request with any body over either HTTP.
pub(crate) async fn exchange<B>(
    version: Version,
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: B,
) -> Result<Answer, Error>
where
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Error>,
{
    let mut request = http::Request::builder()
        .method(method)
        .uri(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let client = Client::builder(TokioExecutor::new())
        .http2_only(version == Version::Http2)
        .build_http();
    let response = client.request(request.body(body)?).await?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await?;
    Ok(Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        trailers: body.trailers().cloned().unwrap_or_default(),
        body: body.to_bytes(),
    })
}

/// Gets a path.
pub(crate) async fn get(address: &str, path: &str) -> Result<Answer, Error> {
    send(address, "GET", path, &[], Bytes::new()).await
}

/// Posts JSON.
pub(crate) async fn post(address: &str, path: &str, body: &Value) -> Result<Answer, Error> {
    let headers = [("content-type", "application/json")];
    send(address, "POST", path, &headers, body.to_string().into()).await
}

/// A stream of Server-Sent Events.
pub(crate) struct Events {
    body: hyper::body::Incoming,
    text: String,
}

/// Opens a stream of Server-Sent Events.
pub(crate) async fn events(address: &str, path: &str) -> Events {
    let request = http::Request::get(format!("http://{address}{path}"))
        .body(Full::new(Bytes::new()))
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    Events {
        body: response.into_body(),
        text: String::new(),
    }
}

impl Events {
    /// The next event, as it is written.
    pub(crate) async fn next(&mut self) -> String {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = event.to_owned();
                self.text = rest.to_owned();
                return event;
            }
            let frame =
                tokio::time::timeout(std::time::Duration::from_secs(20), self.body.frame()).await;
            let data = frame.unwrap().unwrap().unwrap().into_data().unwrap();
            self.text.push_str(std::str::from_utf8(&data).unwrap());
        }
    }
}
