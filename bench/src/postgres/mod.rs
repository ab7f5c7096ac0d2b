//! Databases on the PostgreSQL of this run, by way of `psql`.

use tokio::process::Command;

use crate::{Failure, process::Storage};

pub(crate) mod hints;
pub(crate) mod pgbench;

/// A new database, for a service with that many connections for requests.
pub(crate) async fn create(
    port: u16,
    database: &str,
    connections: usize,
) -> Result<Storage, Failure> {
    query(port, "postgres", &format!("CREATE DATABASE {database}")).await?;
    Ok(Storage::Postgres {
        port,
        database: database.to_owned(),
        connections,
    })
}

/// The answer of a statement, columns divided by `|`.
pub(crate) async fn query(port: u16, database: &str, sql: &str) -> Result<String, Failure> {
    let output = Command::new("psql")
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres"])
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
        .args(["-d", database, "-c", sql])
        .output()
        .await
        .map_err(|error| format!("psql can't be run: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(format!("psql: {said}").into())
    }
}
