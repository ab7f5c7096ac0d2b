//! The one listener: its limits, its deadlines, and how it stops.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    time::{Duration, Instant},
};

use bytes::Bytes;
use delos_deploy::wire::pb;
use futures_util::future::join_all;
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use serde_json::json;
use sqlx::Connection as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::harness::{
    App, Storage, audit,
    binary::Binary,
    http::{self, Version},
    on_every_storage, postgres,
    rpc::{self, Framing},
    settings,
};

const CREATE: &str = "/delos.deploy.v1.DeployService/CreateDeployment";
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn deployment() -> pb::CreateDeploymentRequest {
    pb::CreateDeploymentRequest {
        prompt_id: "greeting".into(),
        to_version: 1,
        environment: "production".into(),
        skip_approval: true,
        ..Default::default()
    }
}

/// Creates a deployment; says how that went.
async fn create(address: &str, framing: Framing, headers: &[(&str, &str)]) -> Code {
    let message = deployment();
    let reply = rpc::call(address, framing, CREATE, headers, &message);
    let reply = timeout(PATIENCE, reply).await.unwrap();
    reply.unwrap().status.code()
}

/// A body that never comes.
fn never() -> impl http_body::Body<Data = Bytes, Error = Infallible> + Send + Unpin {
    StreamBody::new(futures_util::stream::pending::<
        Result<Frame<Bytes>, Infallible>,
    >())
}

async fn connect(address: &str) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// Sends bytes and reads until the service closes the connection.
async fn say(address: &str, bytes: &[u8]) -> String {
    let mut stream = connect(address).await;
    // The service may close before it has read all.
    let _ = stream.write_all(bytes).await;
    read_to_end(&mut stream).await
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset ends the connection as well.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("the service closes the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends a request on a connection that stays open, and reads its answer.
async fn ask(stream: &mut TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = timeout(PATIENCE, stream.read(&mut answer)).await.unwrap();
    answer.truncate(read.unwrap());
    String::from_utf8(answer).unwrap()
}

async fn expect_alive(address: &str) {
    assert_eq!(http::get(address, "/healthz").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_too_large_or_too_many_are_refused() {
    let app = App::start(Storage::Memory).await;
    let start = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let large = format!("{start}x-large: {}\r\n\r\n", "x".repeat(20_000));
    let many: String = (0..101)
        .map(|number| format!("x-{number}: 1\r\n"))
        .collect();
    let path = format!(
        "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "x".repeat(20_000)
    );
    for request in [large, format!("{start}{many}\r\n"), path] {
        let answer = say(&app.address, request.as_bytes()).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
    let good = format!("{start}x-good: {}\r\n\r\n", "x".repeat(8_000));
    let answer = say(&app.address, good.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let large = "x".repeat(20_000);
    let headers = [("x-large", large.as_str())];
    let body = Full::new(Bytes::new());
    let sent = http::exchange(
        Version::Http2,
        &app.address,
        "GET",
        "/healthz",
        &headers,
        body,
    );
    if let Ok(answer) = timeout(PATIENCE, sent).await.unwrap() {
        assert_eq!(answer.status, 431);
    }
    expect_alive(&app.address).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_is_refused() {
    let app = App::start(Storage::Memory).await;
    for nonsense in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\r\n\r\n\r\n\0\0\0",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nthis is no frame, and it goes on for a while",
        b"POST /v1/deployments HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/deployments HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    ] {
        let answer = say(&app.address, nonsense).await;
        assert!(!answer.contains(" 200 ") && !answer.contains(" 201 "), "{answer}");
    }
    expect_alive(&app.address).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_does_not_go_on_is_closed() {
    let app = App::start(Storage::Memory).await;
    let stalls: [&[u8]; 5] = [
        b"",
        b"GET /heal",
        b"GET /healthz HTTP/1.1\r\nHost: loc",
        b"PRI * HT",
        // HTTP/2, with its settings, and no request.
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ];
    let began = Instant::now();
    let closed = stalls.map(async |bytes| {
        say(&app.address, bytes).await;
        began.elapsed()
    });
    // As does one whose second request stalls.
    let second = async {
        let mut stream = connect(&app.address).await;
        let answer = ask(&mut stream, "/healthz").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        stream.write_all(b"GET /heal").await.unwrap();
        read_to_end(&mut stream).await;
        began.elapsed()
    };
    let (mut after, second) = tokio::join!(join_all(closed), second);
    after.push(second);
    for (number, elapsed) in after.iter().enumerate() {
        let seconds = elapsed.as_secs_f64();
        assert!((9.0..13.0).contains(&seconds), "{number}: {after:?}");
    }
    expect_alive(&app.address).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_takes_too_long_is_given_up() {
    let variables = [("DELOS_REQUEST_TIMEOUT_SECONDS", "1")];
    let app = App::start_with(Storage::Memory, &variables).await;
    let headers = [("content-type", "application/json")];
    let path = "/v1/deployments";
    for version in [Version::Http1, Version::Http2] {
        let sent = http::exchange(version, &app.address, "POST", path, &headers, never());
        let answer = timeout(PATIENCE, sent).await.unwrap().unwrap();
        assert_eq!(answer.status, 504, "{answer:?}");
        assert_eq!(answer.json()["reason"], "DEADLINE_EXCEEDED");
    }
    // A caller can't ask for more than the service gives.
    for framing in Framing::ALL {
        let headers = [("grpc-timeout", "1H")];
        let sent = rpc::send(&app.address, framing, CREATE, &headers, never());
        let reply = timeout(PATIENCE, sent).await.unwrap().unwrap();
        assert_eq!(reply.status.code(), Code::DeadlineExceeded);
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_s_deadline_is_honoured() {
    let app = App::start(Storage::Memory).await;
    for framing in Framing::ALL {
        for asked in ["1n", "50m"] {
            let headers = [("grpc-timeout", asked)];
            let sent = rpc::send(&app.address, framing, CREATE, &headers, never());
            let reply = timeout(PATIENCE, sent).await.unwrap().unwrap();
            assert_eq!(reply.http_status, 200);
            assert_eq!(reply.status.code(), Code::DeadlineExceeded, "{framing:?}");
        }
        // A malformed one is taken as not there.
        let headers = [("grpc-timeout", "soon")];
        assert_eq!(create(&app.address, framing, &headers).await, Code::Ok);
    }
    app.finish().await;
}

on_every_storage! {
    async fn a_write_whose_deadline_passes_is_done_whole_or_not_at_all(app: &App) {
        let call = async |micros: u32| {
            let asked = format!("{micros}u");
            let headers = [("grpc-timeout", asked.as_str())];
            create(&app.address, Framing::Grpc, &headers).await
        };
        let outcomes = join_all((0..60).map(|number| call(number * 500 + 1))).await;
        let given_up = |code: &&Code| **code == Code::DeadlineExceeded;
        assert!(outcomes.iter().all(|code| matches!(code, Code::Ok | Code::DeadlineExceeded)));
        assert!(outcomes.iter().any(|code| given_up(&code)));

        // Every write that was begun ends, and no connection is left inside a transaction.
        assert_eq!(create(&app.address, Framing::Grpc, &[]).await, Code::Ok);
        let listed = app.rest("GET", "/v1/deployments?limit=1000", None).await.json();
        let listed = listed["deployments"].as_array().unwrap().clone();
        assert!(listed.len() > outcomes.iter().filter(|code| !given_up(code)).count());
        for deployment in listed {
            assert_eq!(deployment["status"], "DEPLOYMENT_STATUS_COMPLETED");
            let events = audit::events(&mut app.audit().await, deployment["id"].as_str().unwrap()).await;
            assert_eq!(events.len(), 4);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_waits_beyond_its_deadline_is_not_lost_halfway() {
    let app = App::start(Storage::Postgres).await;
    let mut other = postgres::connect(app.settings()).await;
    let mut lock = other.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE deployments IN EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    for framing in Framing::ALL {
        let headers = [("grpc-timeout", "100m")];
        assert_eq!(
            create(&app.address, framing, &headers).await,
            Code::DeadlineExceeded
        );
    }
    lock.rollback().await.unwrap();
    // The writes that waited are done before one that comes after them.
    assert_eq!(create(&app.address, Framing::Grpc, &[]).await, Code::Ok);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_four_mebibytes_is_refused() {
    let app = App::start(Storage::Memory).await;
    let mut large = deployment();
    for framing in Framing::ALL {
        large.prompt_id = "x".repeat(5 * 1024 * 1024);
        let sent = rpc::call(&app.address, framing, CREATE, &[], &large);
        // The service may end the connection before all is sent.
        if let Ok(reply) = timeout(PATIENCE, sent).await.unwrap() {
            assert_eq!(reply.status.code(), Code::ResourceExhausted, "{reply:?}");
        }
        // One that lies about its length.
        let lie = Full::new(Bytes::from_static(b"\0\xff\xff\xff\xffabc"));
        if framing != Framing::WebText {
            let sent = rpc::send(&app.address, framing, CREATE, &[], lie);
            let reply = timeout(PATIENCE, sent).await.unwrap().unwrap();
            assert_ne!(reply.status.code(), Code::Ok);
        }
        large.prompt_id = "x".repeat(3 * 1024 * 1024);
        let reply = rpc::call(&app.address, framing, CREATE, &[], &large);
        let status = reply.await.unwrap().status;
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert_eq!(create(&app.address, framing, &[]).await, Code::Ok);
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_http_versions_are_spoken_on_the_one_port() {
    let app = App::start(Storage::Memory).await;
    for version in [Version::Http1, Version::Http2] {
        for path in ["/healthz", "/v1/health", "/metrics", "/docs/"] {
            let body = Full::new(Bytes::new());
            let answer = http::exchange(version, &app.address, "GET", path, &[], body);
            assert_eq!(answer.await.unwrap().status, 200, "{version:?} {path}");
        }
    }
    app.finish().await;
}

/// The settings that the service announces on an HTTP/2 connection, by their numbers.
async fn http2_settings(address: &str) -> BTreeMap<u16, u32> {
    const SETTINGS: u8 = 4;
    let mut stream = connect(address).await;
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(hello).await.unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], SETTINGS);
    let mut settings = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
    stream.read_exact(&mut settings).await.unwrap();
    settings
        .chunks(6)
        .map(|setting| {
            let (number, value) = setting.split_at(2);
            (
                u16::from_be_bytes(number.try_into().unwrap()),
                u32::from_be_bytes(value.try_into().unwrap()),
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_has_at_most_a_hundred_requests_at_a_time() {
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    const MAX_HEADER_LIST_SIZE: u16 = 6;
    let app = App::start(Storage::Memory).await;
    let announced = http2_settings(&app.address).await;
    assert_eq!(announced[&MAX_CONCURRENT_STREAMS], 100);
    assert_eq!(announced[&MAX_HEADER_LIST_SIZE], 16 * 1024);

    // A client that has more to ask waits for its turn.
    let client = app.deploy().await;
    let calls = (0..300).map(|_| {
        let mut client = client.clone();
        async move { client.health(pb::HealthRequest {}).await }
    });
    for answer in join_all(calls).await {
        assert_eq!(answer.unwrap().into_inner().status, "healthy");
    }
    app.finish().await;
}

async fn start(variables: &[(&str, &str)]) -> Binary {
    let nowhere = std::path::Path::new("");
    let mut settings = settings(Storage::Memory, nowhere).await;
    for (name, value) in variables {
        settings.insert((*name).into(), (*value).into());
    }
    Binary::start(&settings)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_too_many_is_told_how_the_service_is_and_to_come_back() {
    let service = start(&[("DELOS_MAX_CONNECTIONS", "2")]).await;
    let mut first = connect(&service.address).await;
    let mut second = connect(&service.address).await;
    for stream in [&mut first, &mut second] {
        assert!(ask(stream, "/healthz").await.starts_with("HTTP/1.1 200"));
    }
    for (path, status) in [("/healthz", "200"), ("/v1/deployments", "429")] {
        let mut third = connect(&service.address).await;
        let answer = ask(&mut third, path).await.to_ascii_lowercase();
        assert!(
            answer.starts_with(&format!("http/1.1 {status}")),
            "{answer}"
        );
        assert!(answer.contains("connection: close"), "{answer}");
        read_to_end(&mut third).await;
    }
    let answer = ask(&mut second, "/v1/deployments").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(first);
    let until = Instant::now() + PATIENCE;
    loop {
        let mut third = connect(&service.address).await;
        let answer = ask(&mut third, "/v1/deployments").await;
        if answer.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(Instant::now() < until, "{answer}");
    }
}

/// What `grpc.health.v1` says of a service; the empty name is the whole server.
async fn serving(address: &str, service: &str) -> Result<i32, tonic::Status> {
    let service = service.to_owned();
    let path = "/grpc.health.v1.Health/Check";
    let request = HealthCheckRequest { service };
    let reply = rpc::call(address, Framing::Grpc, path, &[], &request).await;
    let answer = reply.unwrap().message::<HealthCheckResponse>()?;
    Ok(answer.status)
}

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;
const SERVICES: [&str; 3] = [
    "",
    "delos.deploy.v1.DeployService",
    "delos.deploy.v1.AuditService",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_announced_and_requests_are_served_until_the_drain_time_is_over() {
    const DRAIN: Duration = Duration::from_secs(2);
    let mut service = start(&[("DELOS_DRAIN_SECONDS", "2")]).await;
    let address = service.address.clone();
    service.wait_until_ready().await;
    for name in SERVICES {
        assert_eq!(serving(&address, name).await.unwrap(), SERVING, "{name}");
    }
    let unknown = serving(&address, "no.such.Service").await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    // A connection that does nothing must not hold up the stop.
    let mut idle = connect(&address).await;
    ask(&mut idle, "/healthz").await;

    let began = Instant::now();
    service.terminate();
    service.wait_for_line(|line| line["message"] == "stopping");
    let answer = http::get(&address, "/readyz").await.unwrap();
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["reason"], "NOT_READY");
    assert!(
        answer.json()["detail"]
            .as_str()
            .unwrap()
            .contains("stopping")
    );
    for name in SERVICES {
        let status = serving(&address, name).await.unwrap();
        assert_eq!(status, NOT_SERVING, "{name}");
    }
    expect_alive(&address).await;
    assert_eq!(create(&address, Framing::Grpc, &[]).await, Code::Ok);
    assert!(began.elapsed() < DRAIN, "it took too long to ask all that");

    let status = service.wait();
    assert_eq!(status.code(), Some(0));
    let elapsed = began.elapsed();
    assert!(
        (DRAIN..DRAIN + Duration::from_secs(5)).contains(&elapsed),
        "{elapsed:?}"
    );
    assert!(TcpStream::connect(&address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_is_finished_before_the_service_stops() {
    let mut service = start(&[]).await;
    let body = json!({"prompt_id": "greeting", "environment": "production", "to_version": 1});
    let body = body.to_string();
    let mut stream = connect(&service.address).await;
    let head = format!(
        "POST /v1/deployments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The service has read the head, and waits for the body.
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    service.terminate();
    service.wait_for_line(|line| line["message"] == "stopping");
    stream.write_all(body.as_bytes()).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert_eq!(service.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_does_not_wait_for_the_drain_time() {
    let mut service = start(&[("DELOS_DRAIN_SECONDS", "600")]).await;
    service.terminate();
    service.wait_for_line(|line| line["message"] == "stopping");
    expect_alive(&service.address).await;
    service.terminate();
    assert_eq!(service.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchers_of_the_health_service_are_told_of_the_stop_and_do_not_hold_it_up() {
    use tonic_health::pb::health_client::HealthClient;

    let mut service = start(&[("DELOS_DRAIN_SECONDS", "1")]).await;
    service.wait_until_ready().await;
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", service.address));
    let mut client = HealthClient::new(channel.unwrap().connect().await.unwrap());
    let mut watches = Vec::new();
    for name in SERVICES {
        let service = name.to_owned();
        let watch = client.watch(HealthCheckRequest { service }).await.unwrap();
        watches.push(watch.into_inner());
    }
    for watch in &mut watches {
        assert_eq!(watch.message().await.unwrap().unwrap().status, SERVING);
    }
    let began = Instant::now();
    service.terminate();
    for watch in &mut watches {
        let told = timeout(PATIENCE, watch.message()).await.unwrap().unwrap();
        assert_eq!(told.unwrap().status, NOT_SERVING);
    }
    for watch in &mut watches {
        let end = timeout(PATIENCE, watch.message()).await.unwrap();
        assert!(matches!(end, Ok(None)), "{end:?}");
    }
    assert_eq!(service.wait().code(), Some(0));
    let elapsed = began.elapsed();
    assert!(elapsed < Duration::from_secs(6), "{elapsed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_message_are_the_caller_s_fault() {
    let app = App::start(Storage::Memory).await;
    for framing in [Framing::Grpc, Framing::Web] {
        // A frame of three bytes that begin a field and break off.
        let garbage = Full::new(Bytes::from_static(b"\0\0\0\0\x03\x0a\xff\xff"));
        let sent = rpc::send(&app.address, framing, CREATE, &[], garbage);
        let status = sent.await.unwrap().status;
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_json_to_a_grpc_path_is_told_where_to_go() {
    let app = App::start(Storage::Memory).await;
    let headers = [("content-type", "application/json")];
    for version in [Version::Http1, Version::Http2] {
        let body = Full::new(Bytes::from_static(b"{}"));
        let path = "/delos.deploy.v1.DeployService/GetDeployment";
        let answer = http::exchange(version, &app.address, "POST", path, &headers, body);
        let answer = answer.await.unwrap();
        assert_eq!(
            (answer.status, &answer.json()["reason"]),
            (415, &"NOT_GRPC".into())
        );
    }
    app.finish().await;
}
