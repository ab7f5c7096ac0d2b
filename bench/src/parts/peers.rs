//! The evaluation of one flag at ten percent: the service over OFREP against other flag servers.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::line::{Asks, Line};
use crate::{
    Failure,
    calls::{
        self, Known, json as questions,
        ofrep::{self, Evaluation},
        seed,
        traffic::{self, ENVIRONMENT, PROMPT},
        unleash,
    },
    cli::Settings,
    figures::Row,
    load::http::{self, Connection},
    process::{self, Server, Storage, peers},
    progress,
};

const PART: &str = "peers";

/// Measures; the ratios are the service's, to each of the others.
pub(crate) async fn measure(settings: &Settings) -> Result<Vec<Row>, Failure> {
    let service = process::service(&Storage::Memory).await?;
    seed::rollouts(service.port, ENVIRONMENT, &[PROMPT.to_owned()]).await?;
    let directory = tempfile::tempdir()?;
    let mut others = Vec::new();
    if let Some(program) = found("unleash-edge", peers::unleash_edge()) {
        others.push(unleash_edge(&program, directory.path()).await?);
    }
    if let Some(program) = found("fast-feature", peers::fast_feature()) {
        others.push(fast_feature(&program).await?);
    }
    if others.is_empty() {
        return Ok(Vec::new());
    }
    let mut lines = vec![ofrep("OFREP", &service).await?];
    let (_servers, others): (Vec<_>, Vec<_>) = others.into_iter().unzip();
    lines.extend(others);
    for line in &lines {
        calls::check_is_a_tenth(&line.row.name, &line.asks.versions())?;
    }
    for round in 1..=settings.rounds {
        for line in &mut lines {
            progress(&format!("{PART}, round {round}: {}", line.row.name));
            line.measure(settings).await?;
        }
    }
    let mut rows: Vec<Row> = lines.into_iter().map(|line| line.row).collect();
    if let [ours, others @ ..] = rows.as_mut_slice() {
        for other in others {
            other.ratio = Some(ours.ratio_to(other));
        }
    }
    Ok(rows)
}

/// Says so where a peer is missing.
fn found(name: &str, program: Option<PathBuf>) -> Option<PathBuf> {
    if program.is_none() {
        progress(&format!(
            "{PART}: {name} is left out; scripts/install-bench-peers installs it"
        ));
    }
    program
}

async fn unleash_edge(program: &Path, directory: &Path) -> Result<(Server, Line), Failure> {
    let toggles = directory.join("toggles.json");
    std::fs::write(&toggles, unleash::toggles())?;
    let server = peers::start_unleash_edge(program, &toggles).await?;
    let mut client = questions::Client::open(server.port).await?;
    let asked = traffic::targeting_keys().map(|user| unleash::question(&user));
    let known = Known::learn(&mut client, asked).await?;
    let line = Line::new(PART, "unleash-edge", &server, Asks::Unleash(known));
    Ok((server, line))
}

async fn fast_feature(program: &Path) -> Result<(Server, Line), Failure> {
    let server = peers::start_fast_feature(program).await?;
    let flag = json!({
        "key": PROMPT,
        "variants": { "v1": 1, "v2": 2 },
        "default_variant": "v1",
        "targeting": { "fractional": [["v2", 10], ["v1", 90]] },
    });
    let request = http::request("POST", "/admin/api/flags", "", &flag.to_string());
    let mut connection = Connection::open(server.port).await?;
    let answer = connection.ask(&request).await?;
    if answer.status != 201 {
        let said = String::from_utf8_lossy(answer.body);
        return Err(format!("fast-feature took no flag: {said}").into());
    }
    let line = ofrep("fast-feature", &server).await?;
    Ok((server, line))
}

async fn ofrep(name: &str, server: &Server) -> Result<Line, Failure> {
    let mut client = questions::Client::<Evaluation>::open(server.port).await?;
    let asked = traffic::targeting_keys().map(|key| ofrep::question(&key));
    let known = Known::learn(&mut client, asked).await?;
    Ok(Line::new(PART, name, server, Asks::Ofrep(known)))
}
