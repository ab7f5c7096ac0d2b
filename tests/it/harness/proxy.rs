//! A TCP proxy before a server, which can be cut off and restored.

use std::{net::SocketAddr, sync::Mutex};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};

/// A proxy on a port of its own.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    server: SocketAddr,
    task: Mutex<Option<AbortHandle>>,
}

impl Proxy {
    /// A proxy that lets through.
    pub(crate) async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            server,
            task: Mutex::default(),
        };
        proxy.let_through(listener);
        proxy
    }

    /// Refuses connections, and drops those there are.
    pub(crate) fn cut(&self) {
        // The task owns the listener and every connection.
        if let Some(task) = self.task.lock().unwrap().take() {
            task.abort();
        }
    }

    /// Lets through again.
    pub(crate) async fn restore(&self) {
        let listener = loop {
            // The task that had the port may still be ending.
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        self.let_through(listener);
    }

    fn let_through(&self, listener: TcpListener) {
        let server = self.server;
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                connections.spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(server).await {
                        // Either side may break off.
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        *self.task.lock().unwrap() = Some(task.abort_handle());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
    }
}
