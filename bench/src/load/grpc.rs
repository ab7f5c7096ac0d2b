//! Callers over gRPC: several at a time on each of several connections.

use tonic::transport::{Channel, Endpoint};

use super::Caller;
use crate::Failure;

/// Connects.
pub(crate) async fn connect(port: u16) -> Result<Channel, Failure> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?;
    Ok(endpoint.connect().await?)
}

/// As many callers on each of as many connections, each made of its connection.
pub(crate) async fn callers<C: Caller>(
    connections: usize,
    calls: usize,
    port: u16,
    make: impl Fn(Channel) -> C,
) -> Result<Vec<C>, Failure> {
    let mut callers = Vec::new();
    for _ in 0..connections {
        let channel = connect(port).await?;
        callers.extend((0..calls).map(|_| make(channel.clone())));
    }
    Ok(callers)
}
