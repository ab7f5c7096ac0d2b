//! Reads the replicas' own metrics.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// How often a replica found a claim passed on when it came to write; none where it does not say.
pub(crate) async fn fenced(address: SocketAddr) -> Option<u64> {
    let page = tokio::time::timeout(Duration::from_secs(2), get(address)).await;
    let page = page.ok()?.ok()?;
    let line = page
        .lines()
        .find(|line| line.starts_with("deploy_reconciler_steps_total{outcome=\"fenced\"}"))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

async fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    Ok(page)
}
