//! Where deployments are kept: the only module that knows SQL.
//!
//! Writes go through [`Store::write`], which alone opens a write transaction. Within it a
//! deployment is held (`FOR UPDATE`) before its traffic, its traffic before its work and its
//! events, and the environment's revision last; who keeps to that order can't deadlock.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use rand::RngExt as _;
use sea_orm::{
    DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, RuntimeErr, SqliteTransactionMode,
    TransactionOptions, TransactionTrait as _,
};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::{
    clock::Clock,
    domain::Timestamp,
    faults::{Bug, Faults, Point},
};

mod answers;
mod aside;
mod connect;
mod deployments;
mod entity;
mod error;
mod events;
mod evidence;
#[cfg(feature = "faults")]
mod faults;
mod gates;
mod migrate;
mod outcomes;
mod policy;
mod replicas;
mod time;
mod traffic;
mod work;

pub use answers::FirstAnswer;
use aside::Aside;
pub use connect::{Backend, OpenError, Postgres, SslMode};
pub use deployments::DeploymentFilter;
pub use error::{Corrupt, Error};
pub use events::{EventCursor, EventFilter};
pub use evidence::{Arm, LastDay, Observed};
pub(crate) use gates::GATES_PER_PROMPT_MAX;
use migrate::migrate;
pub use outcomes::{Fate, Quantiles, TakenIn};
pub use traffic::Read as TrafficRead;
pub use work::{Claim, SET_ASIDE};

/// How often a transaction is tried again that lost a race.
const RETRIES_MAX: u32 = 3;

/// The storage, ready for use. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    writer: DatabaseConnection,
    reader: DatabaseConnection,
    /// The reconciler's own connections, so that a storm of requests can't starve it.
    background: DatabaseConnection,
    clock: Clock,
    faults: Faults,
    /// The rows that can't be read.
    aside: Aside,
    /// Transactions under way, which a stop waits for.
    transactions: TaskTracker,
    /// Whether the schema is known to be up to date. Until then nothing is read or written.
    is_open: Arc<AtomicBool>,
    /// Whether a hint at changed traffic is about to be sent.
    hint_pending: Arc<AtomicBool>,
    _lock: Option<Arc<std::fs::File>>,
}

/// A write transaction.
#[derive(Debug)]
pub struct Tx {
    db: DatabaseTransaction,
    clock: Clock,
    faults: Faults,
    aside: Aside,
}

impl Store {
    /// Connects to the storage and brings its schema up to date.
    ///
    /// # Errors
    /// What stands in the way, for the operator.
    pub async fn open(backend: &Backend, clock: Clock) -> Result<Self, OpenError> {
        let store = connect::connect(backend, clock).await?;
        store.bring_up_to_date().await.map_err(OpenError::Migrate)?;
        Ok(store)
    }

    /// A store over a PostgreSQL that does not answer: everything is [`Error::Unavailable`] until
    /// [`Store::bring_up_to_date`] has come through.
    #[must_use]
    pub fn closed(server: &Postgres, clock: Clock) -> Self {
        connect::closed(server, clock)
    }

    /// The same storage, where faults are made on purpose.
    #[must_use]
    pub fn with_faults(self, faults: Faults) -> Self {
        Self { faults, ..self }
    }

    /// The faults that are made on purpose.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Brings the schema up to date, and opens the store for use.
    ///
    /// # Errors
    /// The storage failed, or a migration did; then nothing has changed.
    pub async fn bring_up_to_date(&self) -> Result<(), Error> {
        migrate(&self.writer).await?;
        self.is_open.store(true, Ordering::Release);
        Ok(())
    }

    /// Whether the store can be used.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    fn reader(&self) -> Result<&DatabaseConnection, Error> {
        self.once_open(&self.reader)
    }

    fn writer(&self) -> Result<&DatabaseConnection, Error> {
        self.once_open(&self.writer)
    }

    fn once_open<'a>(&self, db: &'a DatabaseConnection) -> Result<&'a DatabaseConnection, Error> {
        if self.is_open() {
            return Ok(db);
        }
        let why = "it has not answered since this replica started";
        Err(Error::Unavailable(DbErr::Conn(RuntimeErr::Internal(
            why.to_owned(),
        ))))
    }

    /// The same storage through the connections that are kept for the reconciler.
    #[must_use]
    pub fn in_background(&self) -> Self {
        let reader = if self.is_postgres() {
            &self.background
        } else {
            &self.reader
        };
        Self {
            writer: self.background.clone(),
            reader: reader.clone(),
            ..self.clone()
        }
    }

    /// Runs `work` in a write transaction, which is committed when it returns `Ok`.
    ///
    /// It runs in a task of its own, which goes on when the caller is dropped (a client that
    /// disconnects, a deadline): a `BEGIN` that is dropped half-way would leave its connection
    /// inside a transaction, for the next one to write into. Lost races are tried again.
    ///
    /// # Errors
    /// What `work` returns, or that the storage failed.
    pub async fn write<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t Tx) -> BoxFuture<'t, Result<T, Error>> + Send + Sync + 'static,
    {
        let store = self.clone();
        let task = async move { store.write_with_retries(work).await };
        self.transactions
            .spawn(task.in_current_span())
            .await
            .unwrap_or(Err(Error::Panicked))
    }

    async fn write_with_retries<T, F>(&self, work: F) -> Result<T, Error>
    where
        F: for<'t> Fn(&'t Tx) -> BoxFuture<'t, Result<T, Error>>,
    {
        let mut tries = 0;
        loop {
            match self.write_once(&work).await {
                Err(error) if error.is_worth_a_retry() && tries < RETRIES_MAX => {
                    tries += 1;
                    let jitter = rand::rng().random_range(1..=10 * u64::from(tries));
                    let pause = Duration::from_millis(jitter);
                    self.faults.pause(Point::RetryBefore, pause).await?;
                }
                outcome => return outcome,
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one write path")]
    async fn write_once<T, F>(&self, work: &F) -> Result<T, Error>
    where
        F: for<'t> Fn(&'t Tx) -> BoxFuture<'t, Result<T, Error>>,
    {
        // SQLite's default, a deferred transaction, fails at once where it must wait to write.
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        };
        self.faults.at(Point::BeginBefore).await?;
        let db = self.writer()?.begin_with_options(options).await?;
        let tx = Tx {
            db,
            clock: self.clock.clone(),
            faults: self.faults.clone(),
            aside: self.aside.clone(),
        };
        let value = match work(&tx).await {
            Ok(value) => value,
            Err(error) => {
                // Where it fails, the connection is gone and the transaction with it.
                let _ = tx.db.rollback().await;
                return Err(error);
            }
        };
        self.faults.at(Point::CommitBefore).await?;
        if self.faults.has(Bug::AcknowledgesEarly) {
            return Ok(value);
        }
        tx.db.commit().await?;
        self.faults.at(Point::CommitAfter).await?;
        Ok(value)
    }

    /// The storage's time.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn now(&self) -> Result<Timestamp, Error> {
        time::now(self.reader()?, &self.clock).await
    }

    /// The clock that the storage was opened with.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether the storage answers, and takes writes.
    ///
    /// # Errors
    /// It does not.
    pub async fn ping(&self) -> Result<(), Error> {
        self.writer()?.ping().await?;
        Ok(())
    }

    /// Connections in use and idle, by pool.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolGauge> {
        connect::gauges(self)
    }

    /// Reads how many rows are set aside since they can't be read, by table.
    pub fn set_aside(&self) -> impl Fn() -> BTreeMap<&'static str, u64> + Send + Sync + use<> {
        let aside = self.aside.clone();
        move || aside.by_table()
    }

    /// Waits for the transactions under way, then closes every connection.
    pub async fn close(self) {
        self.transactions.close();
        self.transactions.wait().await;
        let pools = [self.writer, self.reader, self.background];
        for pool in pools {
            // Two of them may be the same pool; closing it again does nothing.
            let _ = pool.close().await;
        }
    }

    fn is_postgres(&self) -> bool {
        self.writer.get_database_backend() == DbBackend::Postgres
    }
}

impl Tx {
    /// The faults that are made on purpose.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The storage's time at this moment.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn now(&self) -> Result<Timestamp, Error> {
        time::now(&self.db, &self.clock).await
    }
}

/// A function that reads how many connections of a pool are in use and how many are idle.
pub struct PoolGauge {
    /// The pool's name: `write`, `read` or `background`.
    pub name: &'static str,
    /// Reads (in use, idle).
    pub read: Box<dyn Fn() -> (u64, u64) + Send + Sync>,
}

/// A boxed future of a transaction's body, for [`Store::write`].
pub fn boxed<'t, T, F>(future: F) -> BoxFuture<'t, Result<T, Error>>
where
    F: Future<Output = Result<T, Error>> + Send + 't,
{
    Box::pin(future)
}
