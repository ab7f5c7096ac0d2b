//! gRPC calls framed by hand, so that a test sees what a client library hides.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::Full;
use prost::Message;
use tonic::Status;

use super::http::{Answer, Error, Version, exchange};

/// How a call is put on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// gRPC over HTTP/2.
    Grpc,
    /// gRPC-web over HTTP/1.1, binary.
    Web,
    /// gRPC-web over HTTP/1.1, in base64.
    WebText,
}

/// The flag of a frame that holds trailers.
const TRAILERS: u8 = 0x80;

impl Framing {
    pub(crate) const ALL: [Self; 3] = [Self::Grpc, Self::Web, Self::WebText];

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Grpc => "application/grpc",
            Self::Web => "application/grpc-web+proto",
            Self::WebText => "application/grpc-web-text",
        }
    }

    pub(crate) fn version(self) -> Version {
        match self {
            Self::Grpc => Version::Http2,
            Self::Web | Self::WebText => Version::Http1,
        }
    }

    /// A message as the body of a request.
    pub(crate) fn encode(self, message: &impl Message) -> Bytes {
        let mut frame = BytesMut::new();
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.encoded_len()).unwrap());
        frame.put(message.encode_to_vec().as_slice());
        match self {
            Self::Grpc | Self::Web => frame.freeze(),
            Self::WebText => STANDARD.encode(frame).into(),
        }
    }

    /// The bytes of a response's body.
    fn decode(self, body: Bytes) -> Bytes {
        match self {
            Self::Grpc | Self::Web => body,
            // Each piece that was flushed has padding of its own.
            Self::WebText => body
                .chunks(4)
                .flat_map(|group| STANDARD.decode(group).unwrap())
                .collect(),
        }
    }
}

/// What a call was answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) http_status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) messages: Vec<Bytes>,
    pub(crate) status: Status,
}

impl Reply {
    /// The one message, or why there is none.
    pub(crate) fn message<M: Message + Default>(self) -> Result<M, Status> {
        if self.status.code() != tonic::Code::Ok {
            assert_eq!(self.messages.len(), 0, "a failure with a message");
            return Err(self.status);
        }
        assert_eq!(self.messages.len(), 1);
        Ok(M::decode(self.messages[0].clone()).unwrap())
    }
}

/// Calls with a message.
pub(crate) async fn call(
    address: &str,
    framing: Framing,
    path: &str,
    headers: &[(&str, &str)],
    message: &impl Message,
) -> Result<Reply, Error> {
    let body = Full::new(framing.encode(message));
    send(address, framing, path, headers, body).await
}

/// Calls with any body.
pub(crate) async fn send<B>(
    address: &str,
    framing: Framing,
    path: &str,
    headers: &[(&str, &str)],
    body: B,
) -> Result<Reply, Error>
where
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Error>,
{
    let mut all = vec![
        ("content-type", framing.content_type()),
        // Whether the answer is text is asked for here.
        ("accept", framing.content_type()),
        ("te", "trailers"),
    ];
    all.extend(headers);
    let answer = exchange(framing.version(), address, "POST", path, &all, body).await?;
    Ok(read(framing, answer))
}

fn read(framing: Framing, answer: Answer) -> Reply {
    let mut messages = Vec::new();
    let mut trailers = answer.trailers;
    let mut body = framing.decode(answer.body);
    while body.has_remaining() {
        let flag = body.get_u8();
        let length = usize::try_from(body.get_u32()).unwrap();
        let frame = body.split_to(length);
        if flag == TRAILERS {
            assert_ne!(framing, Framing::Grpc);
            assert!(!body.has_remaining(), "something follows the trailers");
            trailers.extend(parse_trailers(&frame));
        } else {
            messages.push(frame);
        }
    }
    let kind = answer.headers["content-type"].to_str().unwrap();
    assert!(
        kind.starts_with(framing.content_type()),
        "{framing:?}: {kind}"
    );
    // A failure before the first message has its status in the headers.
    let status = Status::from_header_map(&trailers)
        .or_else(|| Status::from_header_map(&answer.headers))
        .unwrap_or_else(|| panic!("no status: {:?} {trailers:?}", answer.headers));
    Reply {
        http_status: answer.status,
        headers: answer.headers,
        messages,
        status,
    }
}

fn parse_trailers(frame: &[u8]) -> HeaderMap {
    let text = std::str::from_utf8(frame).unwrap();
    text.split_terminator("\r\n")
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value.trim()).unwrap(),
            )
        })
        .collect()
}
