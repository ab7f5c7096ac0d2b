//! Abuse: more of everything than the limits allow. Throughout, the service says within a second how
//! it is, and serves whoever keeps to the limits; and afterwards it is as it was.

use std::{
    future::Future,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use delos_deploy::wire::pb;
use futures_util::future::join_all;
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::harness::{
    Storage,
    binary::Binary,
    http::{self, Version},
    rpc::{self, Framing},
    settings,
};

/// How soon the service has to say how it is.
const AT_MOST: Duration = Duration::from_secs(1);
/// How long a flood lasts.
const FLOOD: Duration = Duration::from_millis(1200);
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
const CREATE: &str = "/v1/deployments";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

async fn start(variables: &[(&str, &str)]) -> Binary {
    let mut settings = settings(Storage::Memory, Path::new("")).await;
    for (name, value) in variables {
        settings.insert((*name).into(), (*value).into());
    }
    let service = Binary::start(&settings);
    service.wait_until_ready().await;
    service
}

/// Somebody who asks one thing after the other, on a thread of their own so that the flood does not
/// hold them up; to be stopped.
struct Asker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Asker {
    fn start<F: Future<Output = ()>>(ask: impl Fn() -> F + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut asked = 0;
                while !stopped.load(Ordering::Relaxed) {
                    ask().await;
                    asked += 1;
                    sleep(Duration::from_millis(20)).await;
                }
                asked
            })
        });
        Self { stop, thread }
    }

    /// How often they asked.
    fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Asks on new connections how the service is, and expects to be told within a second.
fn probe(service: &Binary) -> Asker {
    let address = service.address.clone();
    Asker::start(move || {
        let address = address.clone();
        async move {
            let began = Instant::now();
            let ready = timeout(AT_MOST, http::get(&address, "/readyz")).await;
            let ready = ready.unwrap_or_else(|_| panic!("/readyz took {:?}", began.elapsed()));
            assert_eq!(ready.unwrap().status, 200);
            let (path, request) = (
                "/grpc.health.v1.Health/Check",
                HealthCheckRequest::default(),
            );
            let began = Instant::now();
            let check = rpc::call(&address, Framing::Grpc, path, &[], &request);
            let check = timeout(AT_MOST, check).await;
            let check = check.unwrap_or_else(|_| panic!("Check took {:?}", began.elapsed()));
            let answer = check.unwrap().message::<HealthCheckResponse>().unwrap();
            assert_eq!(answer.status, 1);
        }
    })
}

/// A client of one kept connection, over which it asks which version to serve.
fn go_on(service: &Binary, expected: &'static [u16]) -> Asker {
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .build_http();
    let path = "/v1/environments/production/prompts/greeting/version";
    let uri: hyper::Uri = format!("http://{}{path}", service.address).parse().unwrap();
    Asker::start(move || {
        let answer = client.get(uri.clone());
        async move {
            let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
            let status = answer.status().as_u16();
            assert!(expected.contains(&status), "{status}");
        }
    })
}

async fn serve_greeting(service: &Binary, version: i32) {
    let body = json!({"prompt_id": "greeting", "environment": "production", "to_version": version,
        "skip_approval": true});
    service.post(CREATE, body).await;
}

/// Lets a flood come over the service while others ask on, and expects it back as it was.
async fn withstand<T>(
    variables: &[(&str, &str)],
    expected: &'static [u16],
    flood: impl AsyncFnOnce(&str) -> T,
) -> T {
    let service = start(variables).await;
    serve_greeting(&service, 1).await;
    let files = service.open_files();
    let (prober, client) = (probe(&service), go_on(&service, expected));
    // Both have begun.
    sleep(Duration::from_millis(200)).await;
    let outcome = flood(&service.address).await;
    let (probed, asked) = (prober.stop(), client.stop());
    assert!(probed > 2 && asked > 2, "{probed} {asked}");
    // Everything that was held is let go, and ordinary requests are served.
    let until = Instant::now() + PATIENCE;
    while service.open_files() > files + 3 {
        let open = service.open_files();
        assert!(
            Instant::now() < until,
            "{open} files are open, {files} were"
        );
        sleep(Duration::from_millis(50)).await;
    }
    serve_greeting(&service, 2).await;
    outcome
}

/// Does the same many times at once, again and again until the flood is over; how often.
async fn flood<F: Future<Output = ()>>(at_once: usize, attack: impl Fn(usize) -> F) -> usize {
    let until = Instant::now() + FLOOD;
    let many = (0..at_once).map(async |number| {
        let mut rounds = 0;
        while Instant::now() < until {
            attack(number).await;
            rounds += 1;
            sleep(Duration::from_millis(20)).await;
        }
        rounds
    });
    join_all(many).await.into_iter().sum()
}

/// Sends bytes, and reads until the service has closed the connection or the time is up.
async fn send_and_listen(address: &str, bytes: &[u8], listen: Duration) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The service may close before it has read all.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(listen, stream.read_to_end(&mut answer)).await;
    answer
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;

/// A request's headers, with the static table of HPACK alone.
fn headers(is_post: bool, path: &str) -> Vec<u8> {
    let literal = |index: &[u8], value: &str| {
        let length = u8::try_from(value.len()).unwrap();
        [index, &[length], value.as_bytes()].concat()
    };
    let (method, content_type) = if is_post {
        (0x83, literal(&[0x0f, 0x10], "application/json"))
    } else {
        (0x82, Vec::new())
    };
    let authority = literal(&[0x01], "localhost");
    let path = literal(&[0x04], path);
    [&[method, 0x86][..], &authority, &path, &content_type].concat()
}

/// The kinds of the frames in what a service has sent over HTTP/2.
fn kinds(mut bytes: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let [a, b, c, kind, ..] = bytes {
        kinds.push(*kind);
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        bytes = bytes.get(9 + length..).unwrap_or_default();
    }
    kinds
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_there_are_places() {
    let limit = [("DELOS_MAX_CONNECTIONS", "50")];
    withstand(&limit, &[200], async |address| {
        let held = (0..600).map(async |_| TcpStream::connect(address).await.unwrap());
        let held = join_all(held).await;
        // Who comes beyond the limit is told to come back, in their own protocol.
        let told = std::sync::atomic::AtomicU32::new(0);
        flood(1, async |_| {
            let path = "/v1/deployments";
            for version in [Version::Http1, Version::Http2] {
                let body = Full::new(Bytes::new());
                let sent = http::exchange(version, address, "GET", path, &[], body);
                // One that was slow to ask is closed before, and comes again.
                let Ok(answer) = timeout(PATIENCE, sent).await.unwrap() else {
                    return;
                };
                assert_eq!(answer.status, 429, "{answer:?}");
                assert_eq!(answer.header("retry-after"), "1");
                assert_eq!(answer.json()["reason"], "BUSY");
            }
            let (path, message) = (
                "/delos.deploy.v1.DeployService/GetDeployment",
                pb::GetDeploymentRequest::default(),
            );
            for framing in Framing::ALL {
                let sent = rpc::call(address, framing, path, &[], &message);
                let Ok(reply) = timeout(PATIENCE, sent).await.unwrap() else {
                    return;
                };
                assert_eq!(reply.status.code(), Code::ResourceExhausted, "{reply:?}");
            }
            told.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        })
        .await;
        assert!(told.into_inner() > 0);
        drop(held);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_come_and_go_faster_than_they_are_served() {
    let limit = [("DELOS_MAX_CONNECTIONS", "20")];
    let came = withstand(&limit, &[200], async |address| {
        flood(60, async |number| {
            let request: &[u8] = match number % 3 {
                0 => b"",
                1 => b"GET /v1/deployments HTTP/1.1\r\nHost: a\r\n\r\n",
                _ => b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
            };
            send_and_listen(address, request, Duration::from_millis(100)).await;
        })
        .await
    });
    assert!(came.await > 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_streams_than_a_connection_may_have() {
    let refused = withstand(&[], &[200, 429], async |address| {
        let mut bytes = PREFACE.to_vec();
        for number in 0..1000 {
            // Each waits for its body, which never comes.
            let stream = number * 2 + 1;
            bytes.extend(frame(HEADERS, END_HEADERS, stream, &headers(true, CREATE)));
        }
        let bytes = &bytes;
        let listen = async |_| send_and_listen(address, bytes, FLOOD).await;
        join_all((0..5).map(listen)).await
    });
    for answer in refused.await {
        let kinds = kinds(&answer);
        let resets = kinds.iter().filter(|kind| **kind == RST_STREAM).count();
        assert!(resets > 100 || kinds.contains(&GOAWAY), "{kinds:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_opened_and_reset() {
    let floods = withstand(&[], &[200], async |address| {
        let mut bytes = PREFACE.to_vec();
        for number in 0..10_000 {
            let stream = number * 2 + 1;
            let ask = headers(false, "/v1/deployments");
            bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &ask));
            bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        }
        flood(10, async |_| {
            // The service closes the connection, long before all that is answered.
            let answer = send_and_listen(address, &bytes, PATIENCE).await;
            let kinds = kinds(&answer);
            let answered = kinds.iter().filter(|kind| **kind == HEADERS).count();
            assert!(answered < 5000, "{answered}");
        })
        .await
    });
    assert!(floods.await >= 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_without_an_end() {
    let refused = withstand(&[], &[200], async |address| {
        let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
        let attack = async |number: usize| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let (framing, piece) = if number.is_multiple_of(2) {
                ("Transfer-Encoding: chunked", &chunk)
            } else {
                ("Content-Length: 99999999999", &chunk)
            };
            let path = if number.is_multiple_of(3) {
                "/v1/traces"
            } else {
                CREATE
            };
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{framing}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut sent = 0;
            let end = Instant::now() + PATIENCE;
            while Instant::now() < end && stream.write_all(piece).await.is_ok() {
                sent += piece.len();
            }
            sent
        };
        join_all((0..30).map(attack)).await
    });
    for sent in refused.await {
        // Beyond the limit only what the system's buffers hold.
        assert!(sent < 32 * 1024 * 1024, "{sent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_trickle_in() {
    let limit = [("DELOS_MAX_CONNECTIONS", "100")];
    withstand(&limit, &[200], async |address| {
        let trickle = async |_| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let end = Instant::now() + FLOOD;
            let _ = stream
                .write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n")
                .await;
            while Instant::now() < end && stream.write_all(b"x").await.is_ok() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        join_all((0..400).map(trickle)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_trickle_in() {
    let limit = [("DELOS_MAX_REQUESTS", "100")];
    // They have all the places: whoever else comes is told to come back.
    withstand(&limit, &[200, 429], async |address| {
        let trickle = async |_| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = format!(
                "POST {CREATE} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
                 Content-Length: 1000000\r\n\r\n"
            );
            let _ = stream.write_all(head.as_bytes()).await;
            let end = Instant::now() + FLOOD;
            while Instant::now() < end && stream.write_all(b" ").await.is_ok() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        let busy = async {
            sleep(FLOOD / 2).await;
            http::get(address, "/v1/deployments").await.unwrap().status
        };
        let (_, busy) = tokio::join!(join_all((0..400).map(trickle)), busy);
        assert_eq!(busy, 429);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_mean_nothing() {
    let sent = withstand(&[], &[200], async |address| {
        flood(50, async |number| {
            let mut random = StdRng::seed_from_u64(number as u64);
            let mut noise = vec![0; random.random_range(1..4000)];
            random.fill(&mut noise[..]);
            let bytes = match number % 4 {
                0 => noise,
                // Half a hello of TLS.
                1 => [
                    &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
                    &noise[..9],
                ]
                .concat(),
                2 => [PREFACE, &noise].concat(),
                _ => {
                    // Frames of every kind, whose payloads are noise.
                    let frames = noise.chunks(40).zip(0_u8..).map(|(noise, number)| {
                        frame(number % 11, noise[0], u32::from(number % 5), noise)
                    });
                    [PREFACE.to_vec(), frames.collect::<Vec<_>>().concat()].concat()
                }
            };
            let answer = send_and_listen(address, &bytes, Duration::from_millis(200)).await;
            assert!(!answer.starts_with(b"HTTP/1.1 2"), "{number}");
        })
        .await
    });
    assert!(sent.await > 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_at_once_than_can_be_worked_on() {
    let limit = [("DELOS_MAX_REQUESTS", "16")];
    let (rest, grpc) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    withstand(&limit, &[200, 429], async |address| {
        // A connection each, so that all are there at once.
        let post = async |number: usize| {
            let body =
                json!({"prompt_id": format!("p{number}"), "environment": "e", "to_version": 1});
            let answer = http::post(address, CREATE, &body).await.unwrap();
            assert!(answer.status != 429 || answer.header("retry-after") == "1");
            rest.lock().unwrap().push(answer.status);
        };
        let call = async |number: usize| {
            let path = "/delos.deploy.v1.DeployService/CreateDeployment";
            let message = pb::CreateDeploymentRequest {
                prompt_id: format!("g{number}"),
                environment: "e".into(),
                to_version: 1,
                ..Default::default()
            };
            let reply = rpc::call(address, Framing::Grpc, path, &[], &message).await;
            grpc.lock().unwrap().push(reply.unwrap().status.code());
        };
        tokio::join!(flood(75, post), flood(75, call));
    })
    .await;
    let (rest, grpc) = (rest.into_inner().unwrap(), grpc.into_inner().unwrap());
    let created = rest.iter().filter(|status| **status == 201).count();
    let shed = rest.iter().filter(|status| **status == 429).count();
    assert!(created > 0 && shed > 0, "{created} {shed}");
    assert_eq!(created + shed, rest.len());
    let created = grpc.iter().filter(|code| **code == Code::Ok).count();
    let shed = grpc.iter().filter(|code| **code == Code::ResourceExhausted);
    let shed = shed.count();
    assert!(created > 0 && shed > 0, "{created} {shed}");
    assert_eq!(created + shed, grpc.len());
}
