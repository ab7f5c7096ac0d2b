//! What an answer of a webhook means. It may come from anybody: whatever is not plainly a number or
//! a verdict is no evidence.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use serde::Deserialize;

use super::call::Answered;
use crate::domain::Timestamp;

/// Longest message that is taken over from an answer, in characters.
const MESSAGE_MAX: usize = 256;
/// The shortest and longest time that somebody may ask to be left alone.
const LEFT_ALONE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// What asking has come to. Texts are for people, and go on after the webhook's name.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// A finite number.
    Value(f64, String),
    /// The verdict.
    Verdict(bool, String),
    /// It will be reported, or nobody answers any more: there is no use in asking again.
    Final(String),
    /// No evidence, and not to be asked again for a while.
    Later(Duration, String),
    /// No evidence.
    Nothing(String),
}

/// What may stand in a body. Other fields are passed over.
#[derive(Debug, Deserialize)]
struct Body {
    value: Option<f64>,
    passed: Option<bool>,
    message: Option<String>,
}

impl Answer {
    pub(super) fn read(answered: &Answered, now: Timestamp) -> Self {
        let status = answered.status;
        match status {
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT => accepted(),
            StatusCode::GONE => {
                Self::Final("answers 410 and is not asked again; it can be reported".into())
            }
            _ if status.is_success() => match &answered.body {
                Some(body) => read_body(body),
                None => Self::Nothing("answers more than is read".into()),
            },
            _ if status.is_redirection() => Self::Nothing(format!(
                "answers {}, and redirects are not followed",
                status.as_u16()
            )),
            _ => {
                let answers = format!("answers {}", status.as_u16());
                match retry_after(&answered.headers, now) {
                    Some(after) => {
                        let seconds = after.as_secs();
                        Self::Later(after, format!("{answers}, asking for {seconds} s of rest"))
                    }
                    None => Self::Nothing(answers),
                }
            }
        }
    }
}

fn accepted() -> Answer {
    Answer::Final("has taken it on; it is to be reported".into())
}

fn read_body(body: &[u8]) -> Answer {
    let text = body.trim_ascii();
    if text.is_empty() {
        return accepted();
    }
    // A list could stand for the fields in their order. What serde says of it would quote it.
    let is_object = text.starts_with(b"{");
    let body = serde_json::from_slice::<Body>(text).ok();
    let Some(body) = body.filter(|_| is_object) else {
        return Answer::Nothing("answers what can't be read: a JSON object with a number `value` or a boolean `passed` was expected".into());
    };
    let message = plain(&body.message.unwrap_or_default());
    let message = if message.is_empty() {
        message
    } else {
        format!(": {message}")
    };
    match (body.value, body.passed) {
        (Some(value), None) => Answer::Value(value, format!("answered {value}{message}")),
        (None, Some(true)) => Answer::Verdict(true, format!("answered that it passed{message}")),
        (None, Some(false)) => Answer::Verdict(false, format!("answered that it failed{message}")),
        (None, None) if is_empty_object(text) => accepted(),
        (None, None) => Answer::Nothing("answers without `value` and without `passed`".into()),
        (Some(_), Some(_)) => Answer::Nothing("answers with both `value` and `passed`".into()),
    }
}

fn is_empty_object(text: &[u8]) -> bool {
    let inner = text.strip_prefix(b"{").and_then(|it| it.strip_suffix(b"}"));
    inner.is_some_and(|inner| inner.trim_ascii().is_empty())
}

/// A text of somebody else's, in one line and without what changes how the rest is shown.
fn plain(text: &str) -> String {
    let changes_direction = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let is_shown = |c: &char| !c.is_control() && !changes_direction(*c);
    let shown = text
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c });
    let shown: String = shown.filter(is_shown).take(MESSAGE_MAX).collect();
    shown.trim().to_owned()
}

/// How long to leave somebody alone who says so, in seconds or as a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let after = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = chrono::DateTime::parse_from_rfc2822(text).ok()?;
            (at.to_utc() - now).to_std().unwrap_or_default()
        }
    };
    Some(after.clamp(LEFT_ALONE.0, LEFT_ALONE.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn read(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Answer {
        let headers = headers.iter().map(|(name, value)| {
            let value = http::HeaderValue::from_static(value);
            (http::HeaderName::from_static(name), value)
        });
        let answered = Answered {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.collect(),
            body: Some(body.to_owned().into()),
        };
        Answer::read(&answered, now())
    }

    #[test]
    fn a_number_or_a_verdict_is_an_answer() {
        for (body, answer) in [
            (
                r#"{"value": 0.93}"#,
                Answer::Value(0.93, "answered 0.93".into()),
            ),
            (
                r#" {"value": -1e3, "more": [1]} "#,
                Answer::Value(-1000.0, "answered -1000".into()),
            ),
            (
                r#"{"passed": true, "message": "by\u0000 \nhand\u202e"}"#,
                Answer::Verdict(true, "answered that it passed: by  hand".into()),
            ),
            (
                r#"{"passed": false}"#,
                Answer::Verdict(false, "answered that it failed".into()),
            ),
        ] {
            assert_eq!(read(200, &[], body), answer, "{body}");
        }
        let long = format!(r#"{{"value": 1, "message": "{}"}}"#, "é".repeat(2000));
        let Answer::Value(_, said) = read(201, &[], &long) else {
            panic!("{long}");
        };
        assert!(said.chars().count() < 300, "{said}");
    }

    #[test]
    fn who_takes_it_on_is_not_asked_again() {
        for (status, body) in [
            (202, "queued"),
            (204, ""),
            (200, ""),
            (200, " { } "),
            (202, r#"{"value": 1}"#),
            (410, ""),
        ] {
            let answer = read(status, &[], body);
            assert!(
                matches!(answer, Answer::Final(_)),
                "{status} {body}: {answer:?}"
            );
        }
    }

    #[test]
    fn whatever_else_is_said_is_no_evidence_and_is_not_repeated() {
        for body in [
            "hunter2",
            "NaN",
            "null",
            "[]",
            "[0.9, null, null]",
            "0.93",
            r#"{"value": NaN}"#,
            r#"{"value": Infinity}"#,
            r#"{"value": 1e999}"#,
            r#"{"value": -1e999}"#,
            r#"{"value": "0.93"}"#,
            r#"{"value": true}"#,
            r#"{"value": null}"#,
            r#"{"value": [0.93]}"#,
            r#"{"value": 0.1, "value": 0.93}"#,
            r#"{"value": 0.93, "passed": true}"#,
            r#"{"passed": "true"}"#,
            r#"{"passed": 1}"#,
            r#"{"ok": true}"#,
            r#"{"Value": 0.93}"#,
            r#"{"value": 0.93, "message": 7}"#,
            r#"{"value": 0.93"#,
            r#"{"value": 0.93} trailing"#,
            "\u{feff}{\"value\": 0.93}",
            "<html>502</html>",
        ] {
            let Answer::Nothing(said) = read(200, &[], body) else {
                panic!("{body}");
            };
            assert!(!said.contains("hunter2"), "{said}");
        }
        for status in [
            301, 302, 303, 307, 308, 400, 401, 403, 404, 408, 422, 429, 500, 502, 503,
        ] {
            let answer = read(
                status,
                &[("location", "http://169.254.169.254/")],
                r#"{"value": 1}"#,
            );
            assert!(matches!(answer, Answer::Nothing(_)), "{status}: {answer:?}");
        }
    }

    #[test]
    fn who_asks_for_rest_has_it_within_limits() {
        for (value, seconds) in [
            ("60", 60),
            ("0", 1),
            ("999999999", 3600),
            ("Thu, 01 Jan 2026 00:02:00 GMT", 120),
            ("Wed, 31 Dec 2025 00:00:00 GMT", 1),
        ] {
            for status in [429, 503] {
                let answer = read(status, &[("retry-after", value)], "");
                let Answer::Later(after, _) = answer else {
                    panic!("{answer:?}");
                };
                assert_eq!(after.as_secs(), seconds, "{value}");
            }
        }
        for wrong in ["soon", "-1", "1.5", ""] {
            let answer = read(503, &[("retry-after", wrong)], "");
            assert!(matches!(answer, Answer::Nothing(_)), "{wrong}: {answer:?}");
        }
    }
}
