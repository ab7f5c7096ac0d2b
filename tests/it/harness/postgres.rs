//! A database of its own for each test, on the PostgreSQL that the test run has started.

use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use uuid::Uuid;

/// Where the test run's PostgreSQL listens: `scripts/with-services` sets it.
const PORT: &str = "DELOS_TEST_POSTGRES_PORT";

/// The variables of a service.
type Settings = std::collections::BTreeMap<String, String>;

fn port() -> u16 {
    std::env::var(PORT)
        .ok()
        .and_then(|port| port.parse().ok())
        .unwrap_or_else(|| {
            panic!(
                "{PORT} is not set: run the tests by `make test` or under `scripts/with-services`"
            )
        })
}

fn options(database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port())
        .username("postgres")
        .database(database)
}

/// Makes an empty database; returns the variables of a service over it.
pub(crate) async fn settings() -> Vec<(&'static str, String)> {
    let name = format!("test_{}", Uuid::now_v7().simple());
    let mut admin = PgConnection::connect_with(&options("postgres"))
        .await
        .unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .execute(&mut admin)
        .await
        .unwrap();
    vec![
        ("DELOS_STORAGE_BACKEND", "postgres".into()),
        ("DELOS_DB_HOST", "127.0.0.1".into()),
        ("DELOS_DB_PORT", port().to_string()),
        ("DELOS_DB_USER", "postgres".into()),
        ("DELOS_DB_NAME", name),
    ]
}

/// A connection of the test's own to the database of a service.
pub(crate) async fn connect(settings: &Settings) -> PgConnection {
    PgConnection::connect_with(&options(&settings["DELOS_DB_NAME"]))
        .await
        .unwrap()
}

/// Closes the database of a service, cuts its sessions, and waits until they have ended: a session
/// that is told to end while it is on its way in or idle does so a moment later.
pub(crate) async fn turn_away(settings: &Settings) {
    let name = &settings["DELOS_DB_NAME"];
    run(format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await;
    let mut admin = PgConnection::connect_with(&options("postgres"))
        .await
        .unwrap();
    let sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
    super::until("a session does not end", async || {
        let told = sqlx::query_scalar::<_, bool>(sessions)
            .bind(name)
            .fetch_all(&mut admin)
            .await
            .unwrap();
        told.is_empty()
    })
    .await;
}

/// Opens the database of a service again.
pub(crate) async fn let_in(settings: &Settings) {
    let name = &settings["DELOS_DB_NAME"];
    run(format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await;
}

async fn run(sql: String) {
    let mut admin = PgConnection::connect_with(&options("postgres"))
        .await
        .unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&mut admin)
        .await
        .unwrap();
}
