//! How an environment is kept in Redis: JSON, checked as if a stranger had written it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Stored;
use crate::domain::{
    ids::{self, PromptId},
    traffic::{Candidate, Stable, Traffic},
};

/// Another format than this one is not read: a replica of another release has written it.
const FORMAT: u32 = 1;

/// Why what is kept can't be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("it is no JSON of this form: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it is of format {0}, not {FORMAT}")]
    Format(u32),
    #[error("{0}")]
    Value(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    format: u32,
    revision: i64,
    prompts: Vec<Row>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    prompt_id: String,
    revision: i64,
    stable: Option<Version>,
    candidate: Option<Version>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Version {
    version: i32,
    deployment_id: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    percentage: Option<u8>,
}

/// An environment, to be kept.
pub(super) fn write(revision: i64, traffic: &[Arc<Traffic>]) -> Result<String, serde_json::Error> {
    let prompts = traffic.iter().map(|row| Row {
        prompt_id: row.prompt_id.to_string(),
        revision: row.revision,
        stable: row.stable.as_ref().map(|stable| Version {
            version: stable.version,
            deployment_id: stable.deployment_id,
            percentage: None,
        }),
        candidate: row.candidate.as_ref().map(|candidate| Version {
            version: candidate.version,
            deployment_id: candidate.deployment_id,
            percentage: Some(candidate.percentage),
        }),
    });
    serde_json::to_string(&Kept {
        format: FORMAT,
        revision,
        prompts: prompts.collect(),
    })
}

/// An environment, as it was kept.
pub(super) fn read(environment: &str, text: &str) -> Result<Stored, Unreadable> {
    let environment = ids::Environment::parse(environment).map_err(Unreadable::Value)?;
    let kept: Kept = serde_json::from_str(text)?;
    if kept.format != FORMAT {
        return Err(Unreadable::Format(kept.format));
    }
    let traffic: Result<_, _> = kept
        .prompts
        .iter()
        .map(|row| split(row, &environment))
        .collect();
    Ok(Stored::of(environment.as_str(), traffic?, kept.revision))
}

fn split(row: &Row, environment: &ids::Environment) -> Result<Traffic, Unreadable> {
    let prompt_id = PromptId::parse(&row.prompt_id).map_err(Unreadable::Value)?;
    let mut traffic = Traffic::none(prompt_id, environment.clone());
    traffic.revision = row.revision;
    traffic.stable = row.stable.map(stable).transpose()?;
    traffic.candidate = row.candidate.map(candidate).transpose()?;
    Ok(traffic)
}

fn stable(kept: Version) -> Result<Stable, Unreadable> {
    Ok(Stable {
        version: version(kept.version)?,
        deployment_id: kept.deployment_id,
    })
}

fn candidate(kept: Version) -> Result<Candidate, Unreadable> {
    let percentage = kept.percentage.filter(|percentage| *percentage < 100);
    Ok(Candidate {
        version: version(kept.version)?,
        percentage: percentage
            .ok_or_else(|| Unreadable::Value("a candidate has no percentage below 100".into()))?,
        deployment_id: kept.deployment_id,
    })
}

fn version(version: i32) -> Result<i32, Unreadable> {
    if version > 0 {
        return Ok(version);
    }
    Err(Unreadable::Value(format!("{version} is no version")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let environment = ids::Environment::parse("production").unwrap();
        let mut served = Traffic::none(PromptId::parse("a").unwrap(), environment.clone());
        served.revision = 7;
        served.stable = Some(Stable {
            version: 1,
            deployment_id: Uuid::from_u128(1),
        });
        served.candidate = Some(Candidate {
            version: 2,
            percentage: 0,
            deployment_id: Uuid::from_u128(2),
        });
        let mut ended = Traffic::none(PromptId::parse("b").unwrap(), environment);
        ended.revision = 3;
        let rows = [Arc::new(served.clone()), Arc::new(ended.clone())];
        let text = write(9, &rows).unwrap();
        let expected = Stored::of("production", vec![served, ended], 9);
        assert_eq!(read("production", &text).unwrap(), expected);
    }

    #[test]
    fn what_nobody_of_us_has_written_is_not_read() {
        let row = |stable: &str, candidate: &str| {
            format!(
                r#"{{"format":1,"revision":1,"prompts":[{{"prompt_id":"a","revision":1,"stable":{stable},"candidate":{candidate}}}]}}"#
            )
        };
        let version = |version: i32, percentage: &str| {
            format!(
                r#"{{"version":{version},"deployment_id":"{}"{percentage}}}"#,
                Uuid::nil()
            )
        };
        let whole = row(&version(1, ""), &version(2, r#","percentage":10"#));
        assert!(read("production", &whole).is_ok());
        assert!(read("no name", &whole).is_err());
        for text in [
            String::new(),
            "{}".into(),
            whole.replace("\"format\":1", "\"format\":2"),
            whole.replace("\"a\"", "\"no name\""),
            row(&version(0, ""), "null"),
            row("null", &version(2, "")),
            row("null", &version(2, r#","percentage":100"#)),
            row("null", &version(2, r#","percentage":-1"#)),
        ] {
            assert!(read("production", &text).is_err(), "{text}");
        }
    }
}
