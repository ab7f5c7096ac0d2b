//! The program itself: its commands, its configuration, what it says and what it keeps to itself.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Output, Stdio},
    thread,
};

use delos_deploy::config;
use serde_json::Value;

use crate::harness::{
    Storage,
    binary::{Binary, command},
    http, postgres, settings,
};

type Settings = BTreeMap<String, String>;

fn variables(values: &[(&str, &str)]) -> Settings {
    let owned = values
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    owned.collect()
}

/// Runs a command to its end.
fn run(settings: &Settings, arguments: &[&str]) -> Output {
    command(settings).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Runs the service until it says something, then stops it; returns all that it said, and how it
/// ended.
fn serve_until(settings: &Settings, said: &str) -> (String, Option<i32>) {
    let mut child = command(settings)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut errors = child.stderr.take().unwrap();
    let errors = thread::spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).unwrap();
        text
    });
    let mut all = String::new();
    let mut is_told = false;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if !is_told && line.contains(said) {
            is_told = true;
            terminate(&child);
        }
        all += &line;
        all.push('\n');
    }
    let code = child.wait().unwrap().code();
    all += &errors.join().unwrap();
    assert!(is_told, "'{said}' is never said:\n{all}");
    (all, code)
}

fn terminate(child: &Child) {
    let pid = child.id().to_string();
    let killed = std::process::Command::new("kill")
        .args(["-TERM", &pid])
        .status();
    assert!(killed.unwrap().success());
}

#[test]
fn help_lists_every_variable_and_command() {
    let help = run(&Settings::new(), &["--help"]);
    assert!(help.status.success());
    let text = stdout(&help);
    for name in ["serve", "migrate", "openapi", "healthcheck"] {
        assert!(text.contains(name), "{name} in {text}");
    }
    assert!(text.contains(&config::help()), "{text}");
    // The variables that the first users of this service know.
    for name in [
        "ENV",
        "VERSION",
        "GRPC_PORT",
        "STORAGE_BACKEND",
        "DB_HOST",
        "DB_PORT",
        "DB_USER",
        "DB_PASSWORD",
        "DB_NAME",
        "DB_SSLMODE",
        "REDIS_URL",
        "OBSERVE_ENDPOINT",
        "LOG_LEVEL",
        "LOG_FORMAT",
        "TRACING_ENABLED",
        "TRACING_SAMPLING",
    ] {
        assert!(text.contains(&format!("DELOS_{name} ")), "{name} in {text}");
    }
}

#[test]
fn every_bad_value_is_named_and_stops_the_start() {
    let bad = [
        ("DELOS_GRPC_PORT", "90050"),
        ("DELOS_STORAGE_BACKEND", "mysql"),
        ("DELOS_TRACING_SAMPLING", "2"),
    ];
    for arguments in [&[][..], &["serve"], &["migrate"], &["healthcheck"]] {
        let output = run(&variables(&bad), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = stderr(&output);
        assert_eq!(said.lines().count(), bad.len(), "{said}");
        for ((name, value), takes) in bad.iter().zip([
            "a port, 0 to 65535",
            "memory, sqlite or postgres",
            "0.0 to 1.0",
        ]) {
            let line = said.lines().find(|line| line.contains(name)).unwrap();
            assert!(line.contains(value) && line.contains(takes), "{line}");
        }
        assert_eq!(stdout(&output), "");
    }
    let unknown = run(&Settings::new(), &["destroy"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("destroy"));
}

#[test]
fn a_variable_that_is_none_of_the_service_s_is_warned_about() {
    let settings = variables(&[
        ("DELOS_GRPC_PORT", "0"),
        ("DELOS_GRPC_PROT", "9005"),
        ("DELOS_TRACING_ENABLED", "false"),
        ("DELOS_DRAIN_SECONDS", "0"),
    ]);
    let (said, code) = serve_until(&settings, "\"serving\"");
    assert_eq!(code, Some(0));
    let warning = said
        .lines()
        .find(|line| line.contains("DELOS_GRPC_PROT"))
        .unwrap();
    let warning: Value = serde_json::from_str(warning).unwrap();
    assert_eq!(warning["level"], "WARN");
    assert!(!warning["message"].as_str().unwrap().contains("9005"));
}

#[test]
fn openapi_prints_the_committed_document() {
    // Whatever the configuration.
    let output = run(&variables(&[("DELOS_GRPC_PORT", "nonsense")]), &["openapi"]);
    assert!(output.status.success());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
    assert!(stdout(&output) == std::fs::read_to_string(path).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_prepares_a_storage_once_and_can_be_run_again() {
    for storage in [Storage::SqliteFile, Storage::Postgres] {
        let files = tempfile::tempdir().unwrap();
        let settings = settings(storage, files.path()).await;
        for _ in 0..2 {
            let output = run(&settings, &["migrate"]);
            assert!(output.status.success(), "{}", stderr(&output));
            assert!(stdout(&output).contains("the schema is up to date"));
        }
        let service = Binary::start(&settings);
        service.wait_until_ready().await;
        let output = run(&settings, &["migrate"]);
        // An SQLite file belongs to one process at a time.
        assert_eq!(output.status.success(), storage == Storage::Postgres);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_older_than_the_schema_can_be_started_again() {
    let files = tempfile::tempdir().unwrap();
    let settings = settings(Storage::Postgres, files.path()).await;
    assert!(run(&settings, &["migrate"]).status.success());
    let mut database = postgres::connect(&settings).await;
    let of_the_next_release = "INSERT INTO seaql_migrations VALUES ('m99991231_000001_later', 0)";
    sqlx::raw_sql(of_the_next_release)
        .execute(&mut database)
        .await
        .unwrap();
    let output = run(&settings, &["migrate"]);
    assert!(output.status.success(), "{}", stderr(&output));
    Binary::start(&settings).wait_until_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn healthcheck_tells_by_its_exit_code_whether_the_service_is_ready() {
    let files = tempfile::tempdir().unwrap();
    let mut settings = settings(Storage::Memory, files.path()).await;
    settings.insert("DELOS_DRAIN_SECONDS".into(), "600".into());
    let mut service = Binary::start(&settings);
    service.wait_until_ready().await;
    let port = service.address.rsplit(':').next().unwrap().to_owned();
    settings.insert("DELOS_GRPC_PORT".into(), port);
    let check = |address: &str| {
        let mut settings = settings.clone();
        settings.insert("DELOS_LISTEN_ADDR".into(), address.into());
        run(&settings, &["healthcheck"])
    };
    for address in ["127.0.0.1", "0.0.0.0"] {
        assert_eq!(check(address).status.code(), Some(0), "{address}");
    }
    service.terminate();
    service.wait_for_line(|line| line["message"] == "stopping");
    let stopping = check("127.0.0.1");
    assert_eq!(stopping.status.code(), Some(1));
    assert!(stderr(&stopping).contains("503"), "{}", stderr(&stopping));
    service.kill();
    let gone = check("127.0.0.1");
    assert_eq!(gone.status.code(), Some(1));
    assert!(!stderr(&gone).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_file_or_port_is_refused() {
    let files = tempfile::tempdir().unwrap();
    let mut settings = settings(Storage::SqliteFile, files.path()).await;
    let service = Binary::start(&settings);
    let second = run(&settings, &[]);
    assert_eq!(second.status.code(), Some(1));
    let said = stderr(&second);
    assert!(
        said.contains(&settings["DELOS_SQLITE_PATH"]) && said.contains("in use by another process"),
        "{said}"
    );

    let port = service.address.rsplit(':').next().unwrap().to_owned();
    settings.insert("DELOS_GRPC_PORT".into(), port);
    settings.insert("DELOS_STORAGE_BACKEND".into(), "memory".into());
    let second = run(&settings, &[]);
    assert_eq!(second.status.code(), Some(1));
    assert!(
        stderr(&second).contains(&service.address),
        "{}",
        stderr(&second)
    );
    service.wait_until_ready().await;
}

const CANARY: &str = "canary-7f3a9c";

/// The variables of a service that could give its passwords away.
fn talkative(settings: &Settings, changes: &[(&str, &str)]) -> Settings {
    let mut settings = settings.clone();
    settings.extend(variables(&[
        ("DELOS_DB_PASSWORD", CANARY),
        (
            "DELOS_REDIS_URL",
            &format!("redis://user:{CANARY}@cache:6379"),
        ),
        ("DELOS_LOG_LEVEL", "debug"),
    ]));
    settings.extend(variables(changes));
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_says_no_password_in_its_log_or_its_answers() {
    let files = tempfile::tempdir().unwrap();
    let postgres = settings(Storage::Postgres, files.path()).await;
    let mut all = String::new();
    // Serving, on every format; a database that is not there yet; one that can't be found.
    for (changes, until) in [
        (&[][..], "\"serving\""),
        (&[("DELOS_LOG_FORMAT", "text")][..], "serving"),
        (&[("DELOS_DB_PORT", "1")][..], "does not answer yet"),
        (
            &[("DELOS_DB_HOST", "no-such-host.invalid")][..],
            "does not answer yet",
        ),
    ] {
        let (said, code) = serve_until(&talkative(&postgres, changes), until);
        assert_eq!(code, Some(0), "{said}");
        all += &said;
    }
    // What it tells those who ask.
    let service = Binary::start(&talkative(&postgres, &[]));
    for path in [
        "/metrics",
        "/readyz",
        "/v1/health",
        "/v1/deployments",
        "/openapi.json",
    ] {
        let answer = http::get(&service.address, path).await.unwrap();
        all += answer.text();
    }
    assert!(!all.contains(CANARY), "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_says_no_password_also_where_it_fails() {
    let files = tempfile::tempdir().unwrap();
    let postgres = settings(Storage::Postgres, files.path()).await;
    // A database that turns us away, a configuration that can't be used, and the commands.
    for (changes, arguments, code) in [
        (
            &[("DELOS_DB_NAME", "no_such_database")][..],
            &["serve"][..],
            1,
        ),
        (
            &[("DELOS_DB_NAME", "no_such_database")][..],
            &["migrate"][..],
            1,
        ),
        (
            &[("DELOS_DB_USER", "nobody_at_all")][..],
            &["migrate"][..],
            1,
        ),
        (
            &[("DELOS_DB_SSLMODE", "verify-full")][..],
            &["migrate"][..],
            1,
        ),
        (
            &[
                ("DELOS_DB_SSLROOTCERT", "/no/such/file"),
                ("DELOS_DB_SSLMODE", "verify-ca"),
            ][..],
            &["migrate"][..],
            2,
        ),
        (
            &[("DELOS_REDIS_URL", "http://:canary-7f3a9c@cache")][..],
            &["serve"][..],
            2,
        ),
        (&[("DELOS_GRPC_PORT", "many")][..], &["serve"][..], 2),
        (&[][..], &["migrate"][..], 0),
        (&[][..], &["--help"][..], 0),
        (&[][..], &["openapi"][..], 0),
        (&[("DELOS_GRPC_PORT", "1")][..], &["healthcheck"][..], 1),
    ] {
        let output = run(&talkative(&postgres, changes), arguments);
        let said = stdout(&output) + &stderr(&output);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?} {changes:?}: {said}"
        );
        assert!(!said.is_empty());
        assert!(!said.contains(CANARY), "{said}");
    }
}
