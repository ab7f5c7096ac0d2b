//! Holds what REST answers against the committed OpenAPI document.

use std::{collections::HashMap, sync::LazyLock};

use jsonschema::Validator;
use serde_json::Value;

use super::http::Answer;

/// The committed document.
pub(crate) static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json"))
            .unwrap();
    serde_json::from_str(&text).unwrap()
});

type Responses = HashMap<String, Option<Validator>>;

/// The responses of each operation by status: the schema of its body.
static OPERATIONS: LazyLock<Vec<(String, Vec<String>, Responses)>> = LazyLock::new(|| {
    let mut operations = Vec::new();
    for (path, item) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let responses = operation["responses"].as_object().unwrap();
            let responses = responses.iter().map(|(status, response)| {
                let content = response["content"].as_object();
                let schema = content
                    .and_then(|content| content.values().next())
                    .map(|media| &media["schema"]);
                (status.clone(), schema.map(validator))
            });
            let segments = path.split('/').map(str::to_owned).collect();
            operations.push((method.to_uppercase(), segments, responses.collect()));
        }
    }
    operations
});

fn validator(schema: &Value) -> Validator {
    let mut schema = schema.clone();
    schema["components"] = DOCUMENT["components"].clone();
    jsonschema::draft202012::new(&schema).unwrap()
}

/// Panics where an answer is not what the document says.
pub(crate) fn check(method: &str, path: &str, answer: &Answer) {
    let path = path.split('?').next().unwrap();
    let is_foreign = path.contains("/ofrep/") || matches!(path, "/v1/traces" | "/v1/logs");
    if !path.starts_with("/v1/") && !is_foreign {
        return;
    }
    let operation = OPERATIONS
        .iter()
        .find(|(verb, template, _)| verb == method && fits(template, path));
    let Some((_, _, responses)) = operation else {
        assert!(
            matches!(answer.status, 404 | 405),
            "{method} {path} is served and not documented: {answer:?}"
        );
        return;
    };
    let status = answer.status.to_string();
    let schema = responses.get(&status).unwrap_or_else(|| {
        panic!("{method} {path}: status {status} is not documented: {answer:?}")
    });
    let Some(schema) = schema else {
        assert!(
            answer.body.is_empty(),
            "{method} {path} {status}: a body that is not documented"
        );
        return;
    };
    // OFREP's failures, and OTLP's, are their own and no problems.
    let expected = if answer.status < 400 || is_foreign {
        "application/json"
    } else {
        "application/problem+json"
    };
    assert_eq!(answer.header("content-type"), expected, "{method} {path}");
    let body = answer.json();
    let errors: Vec<_> = schema
        .iter_errors(&body)
        .map(|error| error.to_string())
        .collect();
    assert!(
        errors.is_empty(),
        "{method} {path} {status}: {errors:?} in {body}"
    );
}

fn fits(template: &[String], path: &str) -> bool {
    let segments: Vec<_> = path.split('/').collect();
    segments.len() == template.len()
        && segments
            .iter()
            .zip(template)
            .all(|(segment, template)| template.starts_with('{') || template == segment)
}
