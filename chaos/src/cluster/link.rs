//! A TCP proxy before a server: it delays, holds back, and cuts what goes through it.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::Failure;

/// Bytes that are passed on at a time.
const CHUNK: usize = 16 * 1024;
/// How long a server has to take in a COMMIT before its connection is cut.
const COMMIT_ARRIVES: Duration = Duration::from_millis(5);

/// What happens to what goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mode {
    /// It goes through.
    #[default]
    Through,
    /// Each piece comes later by this.
    Late(Duration),
    /// Nothing comes through, and nobody is told.
    Held,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    mode: Mode,
    /// Connections of an earlier generation are cut.
    generation: u64,
}

/// A running proxy. Ends when it is dropped.
pub(crate) struct Link {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    faults: Faults,
    /// Owns the listener and every connection.
    _task: JoinSet<()>,
}

#[derive(Clone)]
struct Faults {
    state: watch::Sender<State>,
    /// The next COMMIT is passed on, and its answer is not.
    cut_at_commit: Arc<AtomicBool>,
    commits_cut: Arc<AtomicU64>,
    /// The ports from which the server is spoken to.
    ports: Arc<Mutex<BTreeSet<u16>>>,
}

impl Faults {
    fn ports(&self) -> MutexGuard<'_, BTreeSet<u16>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A port from which the server is spoken to, while this is there.
struct Port<'a> {
    number: u16,
    of: &'a Faults,
}

impl<'a> Port<'a> {
    fn of(connection: &TcpStream, of: &'a Faults) -> std::io::Result<Self> {
        let number = connection.local_addr()?.port();
        of.ports().insert(number);
        Ok(Self { number, of })
    }
}

impl Drop for Port<'_> {
    fn drop(&mut self) {
        self.of.ports().remove(&self.number);
    }
}

impl Link {
    /// A proxy before `server`, on a free port.
    pub(crate) async fn before(server: SocketAddr) -> Result<Self, Failure> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let faults = Faults {
            state: watch::Sender::default(),
            cut_at_commit: Arc::default(),
            commits_cut: Arc::default(),
            ports: Arc::default(),
        };
        let address = listener.local_addr()?;
        let mut task = JoinSet::new();
        task.spawn(accept(listener, server, faults.clone()));
        Ok(Self {
            address,
            faults,
            _task: task,
        })
    }

    /// Sets what happens to what goes through from here on.
    pub(crate) fn set(&self, mode: Mode) {
        self.faults.state.send_modify(|state| state.mode = mode);
    }

    /// The ports from which the server is spoken to, by which it tells its sessions apart.
    pub(crate) fn ports(&self) -> Vec<i32> {
        let ports = self.faults.ports();
        ports.iter().map(|port| i32::from(*port)).collect()
    }

    /// Whether nothing comes through at the moment.
    pub(crate) fn is_held(&self) -> bool {
        self.faults.state.borrow().mode == Mode::Held
    }

    /// Cuts every connection there is; new ones are taken.
    pub(crate) fn cut(&self) {
        self.faults.state.send_modify(|state| state.generation += 1);
    }

    /// Cuts the next connection on which a COMMIT was sent, right after it.
    pub(crate) fn cut_after_commit(&self) {
        self.faults.cut_at_commit.store(true, Ordering::Release);
    }

    /// How many answers to a COMMIT were cut off.
    pub(crate) fn commits_cut(&self) -> u64 {
        self.faults.commits_cut.load(Ordering::Acquire)
    }

    /// Lets everything through again.
    pub(crate) fn heal(&self) {
        self.faults.cut_at_commit.store(false, Ordering::Release);
        self.set(Mode::Through);
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, faults: Faults) {
    let mut connections = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        // Those that have ended are let go.
        while connections.try_join_next().is_some() {}
        let faults = faults.clone();
        connections.spawn(async move {
            let mut state = faults.state.subscribe();
            let generation = state.borrow().generation;
            let passes = pass(near, server, &faults);
            let is_cut = state.wait_for(|state| state.generation != generation);
            tokio::select! {
                () = passes => {}
                // The proxy going away cuts as well.
                _ = is_cut => {}
            }
        });
    }
}

async fn pass(near: TcpStream, server: SocketAddr, faults: &Faults) {
    let Ok(far) = TcpStream::connect(server).await else {
        return;
    };
    let Ok(_port) = Port::of(&far, faults) else {
        return;
    };
    // Delays are made here and not by the kernel.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    tokio::select! {
        () = pump(near_in, far_out, faults, true) => {}
        () = pump(far_in, near_out, faults, false) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    faults: &Faults,
    to_server: bool,
) {
    let mut chunk = vec![0; CHUNK];
    let mut state = faults.state.subscribe();
    loop {
        let count = match from.read(&mut chunk).await {
            Ok(count) if count > 0 => count,
            _ => return,
        };
        let mode = state.borrow_and_update().mode;
        match mode {
            Mode::Through => {}
            Mode::Late(by) => tokio::time::sleep(by).await,
            Mode::Held => {
                if state
                    .wait_for(|state| state.mode != Mode::Held)
                    .await
                    .is_err()
                {
                    return;
                }
            }
        }
        let piece = &chunk[..count];
        if to.write_all(piece).await.is_err() {
            return;
        }
        let is_commit = to_server && piece.windows(6).any(|window| window == b"COMMIT");
        if is_commit && faults.cut_at_commit.swap(false, Ordering::AcqRel) {
            faults.commits_cut.fetch_add(1, Ordering::AcqRel);
            tokio::time::sleep(COMMIT_ARRIVES).await;
            return;
        }
    }
}
