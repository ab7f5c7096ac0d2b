//! gRPC's frames, and Connect's streams of them, with a last one that has the status.

use axum::{body::Body, response::Response};
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http_body_util::BodyExt as _;
use prost_reflect::MessageDescriptor;
use serde_json::json;
use tonic::Status;

use super::{Codec, error, failure};

/// A flag that says how a frame is meant, and the length of the message behind.
pub(super) const HEADER: usize = 5;
/// The flag of the frame that ends a stream.
const END: u8 = 2;

/// A message in its frame.
pub(super) fn frame(flag: u8, message: &[u8]) -> Bytes {
    // A message is never as long as 4 GiB.
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[flag][..], &length.to_be_bytes(), message]
        .concat()
        .into()
}

/// The last frame of a stream.
pub(super) fn end(status: Option<&Status>) -> Bytes {
    let end = match status {
        Some(status) => json!({ "error": error(status) }),
        None => json!({}),
    };
    frame(END, end.to_string().as_bytes())
}

/// An answer of gRPC that is being rewritten.
struct Frames {
    codec: Codec,
    output: MessageDescriptor,
    body: Body,
    buffer: BytesMut,
}

impl Codec {
    /// The frames of the answer, each rewritten, and the status as the last one.
    pub(super) fn stream(self, response: Response, output: MessageDescriptor) -> Response {
        if let Err(status) = failure(response.headers()) {
            return self.refuse(&status);
        }
        let frames = Frames {
            codec: self,
            output,
            body: response.into_body(),
            buffer: BytesMut::new(),
        };
        let frames = stream::unfold(Some(frames), |frames| async {
            let mut frames = frames?;
            Some(match frames.next().await {
                Ok(Some(message)) => (frame(0, &message), Some(frames)),
                Ok(None) => (end(None), None),
                Err(status) => (end(Some(&status)), None),
            })
        });
        let frames = frames.map(Ok::<_, std::convert::Infallible>);
        self.respond(Body::from_stream(frames))
    }
}

impl Frames {
    /// The next message; none where the stream has ended well.
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = take_frame(&mut self.buffer) {
                return self.codec.write(&self.output, message).map(Some);
            }
            let part = self.body.frame().await;
            let part = part
                .and_then(Result::ok)
                .ok_or_else(|| Status::unavailable("the stream broke off"))?;
            match part.into_data() {
                Ok(data) => self.buffer.extend_from_slice(&data),
                Err(part) => {
                    if let Some(trailers) = part.trailers_ref() {
                        return failure(trailers).map(|()| None);
                    }
                }
            }
        }
    }
}

/// The message of the next frame, where all of it has come.
fn take_frame(buffer: &mut BytesMut) -> Option<Bytes> {
    let length = buffer.get(1..HEADER)?.try_into().ok()?;
    let length = u32::from_be_bytes(length) as usize;
    if buffer.len() < HEADER + length {
        return None;
    }
    buffer.advance(HEADER);
    Some(buffer.split_to(length).freeze())
}
