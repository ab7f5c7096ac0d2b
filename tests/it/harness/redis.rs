//! A Redis of a test's own.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use redis::Connection;

/// A running Redis that keeps nothing on disk. Killed when it is dropped.
pub(crate) struct Redis {
    child: Child,
    port: u16,
}

impl Redis {
    /// Starts one on a free port.
    pub(crate) fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut redis = Self {
            child: spawn(port),
            port,
        };
        redis.wait();
        redis
    }

    /// Kills it, and starts an empty one on the same port.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.port);
        self.wait();
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A connection of the test's own.
    pub(crate) fn connect(&self) -> Connection {
        let client = redis::Client::open(self.url()).unwrap();
        client.get_connection().unwrap()
    }

    fn wait(&mut self) {
        let patience = Instant::now() + Duration::from_secs(30);
        let client = redis::Client::open(self.url()).unwrap();
        while client.get_connection().is_err() {
            assert!(self.child.try_wait().unwrap().is_none(), "Redis has ended");
            assert!(Instant::now() < patience, "Redis does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no"])
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is there: scripts/install-test-dependencies installs it")
}
