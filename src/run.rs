//! Runs a command: arguments → configuration → telemetry → work.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::{Cli, Command},
    clock::Clock,
    config::Config,
    server::{self, DATABASE_PATIENCE, Server, Stop},
    store::{Backend, OpenError, Store},
    telemetry::Telemetry,
    traffic::{Cache, Cached},
    wire::openapi,
};

/// Why a command ended badly, for the operator.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs the command and says how it ended.
#[must_use]
pub fn main(cli: &Cli) -> ExitCode {
    let command = cli.command.unwrap_or(Command::Serve);
    if command == Command::Openapi {
        return print_openapi();
    }
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(bad) => {
            for value in bad {
                complain(&value);
            }
            return ExitCode::from(2);
        }
    };
    let outcome = match command {
        Command::Healthcheck => healthcheck(&config),
        Command::Migrate => run(migrate(config)),
        Command::Serve | Command::Openapi => run(serve(config)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure);
            ExitCode::FAILURE
        }
    }
}

fn complain(what: &dyn std::fmt::Display) {
    // Where even this fails there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "delos-deploy: {what}");
}

fn run(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

fn print_openapi() -> ExitCode {
    let printed = openapi::document()
        .to_pretty_json()
        .map_err(std::io::Error::other)
        .and_then(|document| writeln!(std::io::stdout(), "{document}"));
    if printed.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn migrate(config: Config) -> Result<(), Failure> {
    let telemetry = Telemetry::start(&config.telemetry)?;
    telemetry.install();
    let store = open(&config.storage).await?;
    tracing::info!(storage = ?config.storage, "the schema is up to date");
    store.close().await;
    telemetry.shutdown().await;
    Ok(())
}

async fn serve(config: Config) -> Result<(), Failure> {
    let telemetry = Arc::new(Telemetry::start(&config.telemetry)?);
    telemetry.install();
    for name in &config.unknown {
        tracing::warn!(
            "{name} is no variable of this service and is passed over; --help lists them"
        );
    }
    if !config.listen.address.is_loopback() {
        tracing::warn!(
            address = %config.listen.address,
            "callers are not authenticated: whoever can reach this address can deploy"
        );
    }
    // Signals are caught from here on, also those that come while the database is waited for.
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let cache = server::cache(&config)?;
    let (store, cached) = tokio::select! {
        opened = open_or_read(&config.storage, cache.as_ref()) => opened?,
        _ = term.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let store = store.with_faults(config.faults.clone());
    let server = tokio::select! {
        bound = Server::bind(&config, store, cache, Arc::clone(&telemetry)) => bound?,
        _ = term.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    if let Some(cached) = cached {
        server.service().traffic().fill_unproven(cached);
    }
    let stop = server.stopper();
    let signals = async move {
        tokio::select! {
            _ = term.recv() => stop.stop(Stop::Drained),
            _ = interrupt.recv() => stop.stop(Stop::AtOnce),
        }
        // A second signal does not wait.
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.stop(Stop::AtOnce);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = server.run() => {}
        () = signals => {}
    }
    telemetry.shutdown().await;
    Ok(())
}

/// Opens the storage; a database that does not answer yet is waited for.
async fn open(backend: &Backend) -> Result<Store, OpenError> {
    Ok(open_or_read(backend, None).await?.0)
}

/// Opens the storage. While a database does not answer, what the cache has is served; where it has
/// nothing, the database is waited for.
async fn open_or_read(
    backend: &Backend,
    cache: Option<&Cache>,
) -> Result<(Store, Option<Cached>), OpenError> {
    let since = Instant::now();
    let mut told = false;
    loop {
        let error = match Store::open(backend, Clock::System).await {
            Ok(store) => return Ok((store, None)),
            Err(error) => error,
        };
        if !error.may_pass() || since.elapsed() >= DATABASE_PATIENCE {
            return Err(error);
        }
        if let (Backend::Postgres(server), Some(cache)) = (backend, cache)
            && let Some(cached) = cache.read(&Clock::System).await
        {
            tracing::warn!(%error, age = ?cached.age, "the database does not answer; what Redis has is served until it does");
            return Ok((Store::closed(server, Clock::System), Some(cached)));
        }
        if !told {
            tracing::warn!(%error, "the database does not answer yet; waiting for it");
            told = true;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Asks `/readyz` of the service on this machine.
fn healthcheck(config: &Config) -> Result<(), Failure> {
    const PATIENCE: Duration = Duration::from_secs(3);
    let address = match config.listen.address {
        IpAddr::V4(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V4(_) | IpAddr::V6(_) => config.listen.address,
    };
    let address = SocketAddr::new(address, config.listen.port);
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") {
        Ok(())
    } else {
        let status = answer.lines().next().unwrap_or("no answer");
        Err(format!("{address} is not ready: {status}").into())
    }
}
