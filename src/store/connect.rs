//! Opens the connections, with the settings that each database needs.

use std::{
    fmt,
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sea_orm::{DatabaseConnection, DbErr, SqlxPostgresConnector, SqlxSqliteConnector};
use sqlx::{
    Row as _,
    postgres::{PgConnectOptions, PgConnection, PgPoolOptions, PgSslMode},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio_util::task::TaskTracker;

use super::{PoolGauge, Store, aside::Aside, error::Error};
use crate::{clock::Clock, faults::Faults};

/// Longest wait for a connection of a pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait of SQLite for another writer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections to PostgreSQL that are kept for the reconciler.
const BACKGROUND_CONNECTIONS: u32 = 4;
/// How old a connection that reads from PostgreSQL may grow.
const READER_LIFETIME: Duration = Duration::from_secs(60);
/// Connections that read from an SQLite file; there is one that writes.
const SQLITE_READERS: u32 = 4;

/// Where deployments are kept.
#[derive(Debug, Clone)]
pub enum Backend {
    /// SQLite in memory: gone when the process ends.
    Memory,
    /// An SQLite file.
    Sqlite(PathBuf),
    /// PostgreSQL.
    Postgres(Postgres),
}

/// How to reach PostgreSQL.
#[derive(Clone)]
pub struct Postgres {
    /// Host name, address, or directory of a socket.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User.
    pub user: String,
    /// Password; empty for none.
    pub password: String,
    /// Database.
    pub database: String,
    /// Whether and how the connection is encrypted.
    pub ssl_mode: SslMode,
    /// Certificates to trust, PEM; none for the system's.
    pub ssl_root_cert: Option<PathBuf>,
    /// Most connections for requests.
    pub connections_max: u32,
}

impl fmt::Display for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.host, self.port, self.database)
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "postgres://{}:[redacted]@{}:{}/{}?sslmode={:?}",
            self.user, self.host, self.port, self.database, self.ssl_mode
        )
    }
}

/// Whether and how a connection to PostgreSQL is encrypted, as libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Where the server insists.
    Allow,
    /// Where the server can.
    Prefer,
    /// Always; the certificate is not checked.
    Require,
    /// Always; the certificate must be signed by one we trust.
    VerifyCa,
    /// Always; the certificate must also be the host's.
    VerifyFull,
}

/// Why the storage could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database can't be reached, or turns us away.
    #[error("{database} can't be opened: {source}")]
    Connect {
        /// Which database, without its password.
        database: String,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// Another process has the file.
    #[error(
        "{path} is in use by another process; an SQLite file can be served by one at a time (use PostgreSQL for several)"
    )]
    InUse {
        /// The file.
        path: String,
    },
    /// The file or its lock can't be made.
    #[error("{path} can't be opened: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A migration failed.
    #[error("the schema can't be brought up to date: {0}")]
    Migrate(#[source] Error),
}

impl OpenError {
    /// Whether the database may come up by itself, so that trying again makes sense.
    #[must_use]
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the enum is foreign and grows"
    )]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Connect { source, .. } => match source {
                // A certificate that is not to be trusted will not be so in a second.
                sqlx::Error::Io(error) => error.kind() != io::ErrorKind::InvalidData,
                sqlx::Error::PoolTimedOut => true,
                sqlx::Error::Database(error) => {
                    error.code().is_some_and(|code| code.starts_with("57P"))
                }
                _ => false,
            },
            Self::Migrate(Error::Unavailable(_)) => true,
            Self::InUse { .. } | Self::File { .. } | Self::Migrate(_) => false,
        }
    }
}

pub(super) async fn connect(backend: &Backend, clock: Clock) -> Result<Store, OpenError> {
    let (writer, reader, background, lock) = match backend {
        Backend::Memory => {
            let pool = sqlite_memory().await?;
            (pool.clone(), pool.clone(), pool, None)
        }
        Backend::Sqlite(path) => {
            let lock = lock_file(path)?;
            let writer = sqlite_file(path, 1, false).await?;
            let reader = sqlite_file(path, SQLITE_READERS, true).await?;
            (writer.clone(), reader, writer, Some(Arc::new(lock)))
        }
        Backend::Postgres(server) => {
            let writer = postgres(server, Use::Write).await?;
            let reader = postgres(server, Use::Read).await?;
            let background = postgres(server, Use::Background).await?;
            (writer, reader, background, None)
        }
    };
    Ok(store([writer, reader, background], clock, lock))
}

pub(super) fn closed(server: &Postgres, clock: Clock) -> Store {
    let pools = [Use::Write, Use::Read, Use::Background];
    let pools = pools.map(|purpose| {
        let pool = postgres_pool(server, purpose).connect_lazy_with(server.options(purpose));
        SqlxPostgresConnector::from_sqlx_postgres_pool(pool)
    });
    store(pools, clock, None)
}

fn store(pools: [DatabaseConnection; 3], clock: Clock, lock: Option<Arc<File>>) -> Store {
    let [writer, reader, background] = pools;
    Store {
        writer,
        reader,
        background,
        clock,
        faults: Faults::default(),
        aside: Aside::default(),
        transactions: TaskTracker::new(),
        is_open: Arc::default(),
        hint_pending: Arc::default(),
        _lock: lock,
    }
}

fn unreachable(database: impl fmt::Display, source: sqlx::Error) -> OpenError {
    OpenError::Connect {
        database: database.to_string(),
        source,
    }
}

/// One connection that is never closed: the database lives and dies with it.
async fn sqlite_memory() -> Result<DatabaseConnection, OpenError> {
    let options = SqliteConnectOptions::new()
        .in_memory(true)
        .foreign_keys(true);
    SqlitePoolOptions::new()
        .max_connections(1)
        .min_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .connect_with(options)
        .await
        .map(SqlxSqliteConnector::from_sqlx_sqlite_pool)
        .map_err(|source| unreachable("the database in memory", source))
}

async fn sqlite_file(
    path: &Path,
    connections: u32,
    read_only: bool,
) -> Result<DatabaseConnection, OpenError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(!read_only)
        .read_only(read_only)
        .journal_mode(SqliteJournalMode::Wal)
        // NORMAL may lose what was acknowledged when the power fails.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);
    SqlitePoolOptions::new()
        .max_connections(connections)
        .min_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .connect_with(options)
        .await
        .map(SqlxSqliteConnector::from_sqlx_sqlite_pool)
        .map_err(|source| unreachable(path.display(), source))
}

/// Takes the lock beside the database file, which the process holds until it ends.
fn lock_file(path: &Path) -> Result<File, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let failed = |source| OpenError::File {
        path: PathBuf::from(&name).display().to_string(),
        source,
    };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&name)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            path: path.display().to_string(),
        }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// What connections to PostgreSQL are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Write,
    Read,
    Background,
}

async fn postgres(server: &Postgres, purpose: Use) -> Result<DatabaseConnection, OpenError> {
    postgres_pool(server, purpose)
        .connect_with(server.options(purpose))
        .await
        .map(SqlxPostgresConnector::from_sqlx_postgres_pool)
        .map_err(|source| unreachable(format_args!("PostgreSQL at {server}"), source))
}

fn postgres_pool(server: &Postgres, purpose: Use) -> PgPoolOptions {
    let connections = match purpose {
        Use::Write | Use::Read => server.connections_max,
        Use::Background => BACKGROUND_CONNECTIONS,
    };
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // Its round trip is put to better use by the check below.
        .test_before_acquire(false);
    match purpose {
        Use::Write | Use::Background => {
            pool.before_acquire(|session, _| Box::pin(is_clean(session)))
        }
        // Nobody opens a transaction there, and none could write in it: there is nothing to clean up.
        // A server that has become a replica is left when the session has grown old.
        Use::Read => pool.max_lifetime(READER_LIFETIME),
    }
}

/// Ends a transaction that a former borrower may have left open, and turns away a session with a
/// server that has become a replica.
async fn is_clean(session: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let row = sqlx::raw_sql("ROLLBACK; SELECT current_setting('transaction_read_only') = 'off'")
        .fetch_one(session)
        .await?;
    row.try_get(0)
}

impl Postgres {
    fn options(&self, purpose: Use) -> PgConnectOptions {
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .username(&self.user)
            .database(&self.database)
            .ssl_mode(self.ssl_mode.into())
            .application_name(match purpose {
                Use::Write => "delos-deploy write",
                Use::Read => "delos-deploy read",
                Use::Background => "delos-deploy background",
            })
            .options([
                (
                    "default_transaction_read_only",
                    if purpose == Use::Read { "on" } else { "off" },
                ),
                ("statement_timeout", "5s"),
                ("lock_timeout", "2s"),
                ("idle_in_transaction_session_timeout", "10s"),
                ("tcp_keepalives_idle", "5"),
                ("tcp_user_timeout", "10s"),
                // A ROLLBACK outside a transaction is what the check before each use wants.
                ("client_min_messages", "error"),
            ]);
        if !self.password.is_empty() {
            options = options.password(&self.password);
        }
        if let Some(path) = &self.ssl_root_cert {
            options = options.ssl_root_cert(path);
        }
        options
    }
}

impl From<SslMode> for PgSslMode {
    fn from(mode: SslMode) -> Self {
        match mode {
            SslMode::Disable => Self::Disable,
            SslMode::Allow => Self::Allow,
            SslMode::Prefer => Self::Prefer,
            SslMode::Require => Self::Require,
            SslMode::VerifyCa => Self::VerifyCa,
            SslMode::VerifyFull => Self::VerifyFull,
        }
    }
}

pub(super) fn gauges(store: &Store) -> Vec<PoolGauge> {
    let mut gauges = vec![gauge("write", &store.writer), gauge("read", &store.reader)];
    if store.is_postgres() {
        gauges.push(gauge("background", &store.background));
    }
    gauges
}

fn gauge(name: &'static str, db: &DatabaseConnection) -> PoolGauge {
    let (db, postgres) = (
        db.clone(),
        db.get_database_backend() == sea_orm::DbBackend::Postgres,
    );
    let read = move || {
        let (size, idle) = if postgres {
            let pool = db.get_postgres_connection_pool();
            (pool.size(), pool.num_idle())
        } else {
            let pool = db.get_sqlite_connection_pool();
            (pool.size(), pool.num_idle())
        };
        let idle = u64::try_from(idle).unwrap_or(u64::MAX);
        (u64::from(size).saturating_sub(idle), idle)
    };
    PoolGauge {
        name,
        read: Box::new(read),
    }
}

impl From<DbErr> for OpenError {
    fn from(error: DbErr) -> Self {
        Self::Migrate(error.into())
    }
}
