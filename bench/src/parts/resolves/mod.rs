//! Which version to serve: the service over gRPC, REST and OFREP against bare servers, at full load
//! and at half of it; and with few and many prompts in its table.

use delos_deploy::wire::pb::ResolveVersionResponse;
use prost::Message as _;
use serde::Serialize;

use super::line::{Asks, Line};
use crate::{
    Failure,
    calls::{
        self, Known, json,
        ofrep::{self, Evaluation},
        seed,
        traffic::{self, ENVIRONMENT, PROMPT},
    },
    cli::Settings,
    figures::Row,
    process::{self, Server, Storage},
    progress,
};

mod table;

const PART: &str = "resolves";
const HALF: &str = "half load";

/// Measures; every other row is the peer of the one after it.
pub(crate) async fn measure(settings: &Settings) -> Result<Vec<Row>, Failure> {
    let [tonic, axum] = [process::echo().await?, process::axum().await?];
    let service = process::service(&Storage::Memory).await?;
    seed::rollouts(service.port, ENVIRONMENT, &[PROMPT.to_owned()]).await?;
    let mut lines = [
        grpc("gRPC: bare tonic", &tonic).await?,
        grpc("gRPC", &service).await?,
        rest("REST: bare axum", &axum).await?,
        rest("REST", &service).await?,
        ofrep("OFREP: bare axum", &axum).await?,
        ofrep("OFREP", &service).await?,
    ];
    check(&lines)?;
    let mut halves: Vec<Row> = lines
        .iter()
        .map(|line| Row::new(HALF, &line.row.name))
        .collect();
    for round in 1..=settings.rounds {
        for line in &mut lines {
            progress(&format!("{PART}, round {round}: {}", line.row.name));
            line.measure(settings).await?;
        }
        for (line, half) in lines.iter().zip(&mut halves) {
            progress(&format!("{HALF}, round {round}: {}", half.name));
            half.rounds.push(line.at_half_load(settings).await?);
        }
    }
    let mut rows: Vec<Row> = lines.into_iter().map(|line| line.row).collect();
    for pair in rows.chunks_exact_mut(2) {
        if let [peer, ours] = pair {
            ours.compare(peer);
        }
    }
    drop(service);
    Ok([rows, halves, table::measure(settings).await?].concat())
}

/// Every protocol must serve the new version to the same tenth of the keys.
fn check(lines: &[Line]) -> Result<(), Failure> {
    let served = lines.iter().map(|line| line.asks.versions());
    let served: Vec<_> = served.skip(1).step_by(2).collect();
    calls::check_is_a_tenth("the service", &served[0])?;
    if served.iter().all(|versions| *versions == served[0]) {
        Ok(())
    } else {
        Err("the protocols serve different versions to the same targeting key".into())
    }
}

async fn grpc(name: &str, server: &Server) -> Result<Line, Failure> {
    let questions = traffic::targeting_keys().map(|key| traffic::question(PROMPT, &key));
    let known = Known::learn(&mut traffic::connect(server.port).await?, questions).await?;
    let sizes = known.answers().map(ResolveVersionResponse::encoded_len);
    Ok(Line::new(
        PART,
        &sized(name, sizes),
        server,
        Asks::Grpc(known),
    ))
}

async fn rest(name: &str, server: &Server) -> Result<Line, Failure> {
    let mut client = json::Client::open(server.port).await?;
    let questions = traffic::targeting_keys().map(|key| traffic::rest_question(&key));
    let known = Known::learn(&mut client, questions).await?;
    let sizes = known.answers().map(json_length);
    Ok(Line::new(
        PART,
        &sized(name, sizes),
        server,
        Asks::Rest(known),
    ))
}

async fn ofrep(name: &str, server: &Server) -> Result<Line, Failure> {
    let mut client = json::Client::<Evaluation>::open(server.port).await?;
    let questions = traffic::targeting_keys().map(|key| ofrep::question(&key));
    let known = Known::learn(&mut client, questions).await?;
    let sizes = known.answers().map(json_length);
    Ok(Line::new(
        PART,
        &sized(name, sizes),
        server,
        Asks::Ofrep(known),
    ))
}

fn json_length(answer: &impl Serialize) -> usize {
    serde_json::to_string(answer).map_or(0, |text| text.len())
}

/// The name with the size of the largest answer, which must be alike for a comparison to say
/// something.
fn sized(name: &str, sizes: impl Iterator<Item = usize>) -> String {
    format!("{name}, {} bytes", sizes.max().unwrap_or_default())
}
