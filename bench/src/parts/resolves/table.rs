//! What it costs to have many prompts in the table.

use crate::{
    Failure,
    calls::{
        Known, seed,
        traffic::{self, ENVIRONMENT},
    },
    cli::Settings,
    figures::Row,
    parts::line::{Asks, Line},
    process::{self, Server, Storage},
    progress,
};

const PART: &str = "table";
/// The smaller table.
const FEW: usize = 10;

/// Measures; the first row is the peer.
pub(super) async fn measure(settings: &Settings) -> Result<Vec<Row>, Failure> {
    let few = process::service(&Storage::Memory).await?;
    let many = process::service(&Storage::Memory).await?;
    let mut lines = [line(&few, FEW).await?, line(&many, settings.prompts).await?];
    for round in 1..=settings.rounds {
        for line in &mut lines {
            progress(&format!("{PART}, round {round}: {}", line.row.name));
            line.measure(settings).await?;
        }
    }
    let [few, many] = lines;
    let (few, mut many) = (few.row, many.row);
    many.compare(&few);
    Ok(vec![few, many])
}

async fn line(server: &Server, count: usize) -> Result<Line, Failure> {
    progress(&format!("{PART}: creating {count}"));
    let prompts: Vec<String> = (0..count)
        .map(|number| format!("answer-{number:05}"))
        .collect();
    seed::versions(server.port, ENVIRONMENT, &prompts).await?;
    let questions = prompts
        .iter()
        .map(|prompt| traffic::question(prompt, "user-1"));
    let known = Known::learn(&mut traffic::connect(server.port).await?, questions).await?;
    let is_right = prompts.iter().zip(known.answers()).all(|(prompt, answer)| {
        answer.version == 1 && answer.attributes.get("gen_ai.prompt.name") == Some(prompt)
    });
    if !is_right {
        return Err("ResolveVersion answered another prompt or version than was deployed".into());
    }
    let name = format!("gRPC, {count} prompts");
    Ok(Line::new(PART, &name, server, Asks::Grpc(known)))
}
