//! A client of HTTP/1.1 that costs little, so that what is measured is the server: requests are
//! written as they are, and of an answer only its status and its length are read.

use std::net::Ipv4Addr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::Failure;

/// Larger than any answer.
const BUFFER: usize = 64 * 1024;

/// A connection that is kept alive.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    /// Its status.
    pub(crate) status: u16,
    /// Its body.
    pub(crate) body: &'a [u8],
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(port: u16) -> Result<Self, Failure> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; BUFFER],
        })
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Result<Answer<'_>, Failure> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        let (status, body) = loop {
            let count = self.stream.read(&mut self.buffer[filled..]).await?;
            if count == 0 {
                return Err("the server closed the connection in the middle of an answer".into());
            }
            filled += count;
            if let Some(head) = Head::read(&self.buffer[..filled])?
                && filled >= head.length + head.content_length
            {
                break (head.status, head.length..head.length + head.content_length);
            }
        };
        if body.end != filled {
            return Err("the server answered more than was asked for".into());
        }
        let body = &self.buffer[body];
        Ok(Answer { status, body })
    }
}

/// A request with an empty body, or one of JSON.
pub(crate) fn request(method: &str, target: &str, headers: &str, json: &str) -> Vec<u8> {
    let content = if json.is_empty() {
        String::new()
    } else {
        format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            json.len()
        )
    };
    format!("{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n{headers}{content}\r\n{json}")
        .into_bytes()
}

/// What stands above the body of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    length: usize,
    content_length: usize,
}

impl Head {
    /// None while it is not all there.
    fn read(bytes: &[u8]) -> Result<Option<Self>, Failure> {
        const END: &[u8] = b"\r\n\r\n";
        let Some(end) = bytes.windows(END.len()).position(|four| four == END) else {
            return Ok(None);
        };
        let text = str::from_utf8(&bytes[..end])?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let content_length = lines
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map(|(_, value)| value.trim());
        let head = || {
            Some(Self {
                status: status?.parse().ok()?,
                length: end + END.len(),
                content_length: content_length?.parse().ok()?,
            })
        };
        let head = head().ok_or_else(|| format!("an answer without status or length: {text}"))?;
        Ok(Some(head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_an_answer() {
        let answer =
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        let head = Head::read(answer).unwrap().unwrap();
        assert_eq!((head.status, head.content_length), (200, 2));
        assert_eq!(&answer[head.length..], b"{}");
        assert_eq!(Head::read(&answer[..40]).unwrap(), None);
        assert!(Head::read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }
}
