//! A rollout under simulated traffic, from beginning to end: `make demo`.
//!
//! It starts the service and an Eval server of its own, and brings four versions of a prompt to
//! users who ask for it all the time: the first at once, the others as canaries behind a quality
//! gate. One is better, one is worse for users though not on examples, and one is worse on
//! examples. Nobody moves a rollout or takes it back but the service. The demo says what happens as
//! it happens, and fails where something ends otherwise than it should.
//!
//! `versions` is what the versions are like, `users` asks and reports, `eval` is the Eval server,
//! `service` starts the service, `team` is who deploys, `traffic` watches what is served, `story`
//! is what is done one after the other, `evidence` and `say` put it into words.

mod eval;
mod evidence;
mod say;
mod service;
mod story;
mod team;
mod traffic;
mod users;
mod versions;

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};

use eval::Eval;
use say::Say;
use service::Service;
use story::Story;

/// Why the demo did not end as it should.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The prompt, the environment and the dataset of the demo.
const PROMPT: &str = "support-answer";
const ENVIRONMENT: &str = "production";
const DATASET: &str = "golden-set";
/// It takes about half a minute; where it takes that much longer something does not happen.
const LIMIT: Duration = Duration::from_secs(180);

#[tokio::main]
async fn main() -> ExitCode {
    match demo().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say::line(format_args!("\ndemo: {failure}"));
            ExitCode::FAILURE
        }
    }
}

async fn demo() -> Result<(), Failure> {
    let say = Say::from_now();
    let directory = tempfile::tempdir()?;
    let eval = Eval::bind(say).await?;
    let service = Service::start(directory.path(), eval.address()?).await?;
    let what = format!("serves on {}, with its storage in memory", service.address);
    say.that("service", what);
    let ended = tokio::select! {
        ended = story(say, service.address) => ended,
        ended = eval.serve() => ended.and(Err("the Eval server ended".into())),
        () = tokio::time::sleep(LIMIT) => {
            Err(format!("it has not ended after {} s", LIMIT.as_secs()).into())
        }
        // The service gets the signal too, and the directory is to be removed.
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    ended.map_err(|failure: Failure| {
        format!(
            "{failure}\nThe service's last words:\n{}",
            service.last_lines()
        )
        .into()
    })
}

/// Everything, while somebody watches the traffic.
async fn story(say: Say, address: SocketAddr) -> Result<(), Failure> {
    let channel = connect(address).await?;
    let (tell, told) = mpsc::unbounded_channel();
    let watching = traffic::watch(connect(address).await?, say, tell);
    let mut story = Story::new(say, &channel, told);
    tokio::select! {
        ended = story.tell() => ended,
        ended = watching => ended,
    }
}

async fn connect(address: SocketAddr) -> Result<Channel, Failure> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint.connect().await?)
}
