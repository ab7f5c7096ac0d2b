//! The OpenAPI document is the committed one, and holds together.

use std::collections::BTreeSet;

use delos_deploy::wire::openapi::document;
use serde_json::Value;

use crate::harness::openapi::DOCUMENT;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");

/// Each operation: method, path, and what is said of it.
fn operations() -> impl Iterator<Item = (&'static str, &'static str, &'static Value)> {
    let paths = DOCUMENT["paths"].as_object().unwrap();
    paths.iter().flat_map(|(path, item)| {
        let item = item.as_object().unwrap();
        item.iter()
            .map(move |(method, operation)| (method.as_str(), path.as_str(), operation))
    })
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// Every `$ref` within a value.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value) {
                    ("$ref", Value::String(target)) => found.push(target),
                    _ => references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_committed_document_is_the_generated_one() {
    let generated = document().to_pretty_json().unwrap() + "\n";
    let committed = std::fs::read_to_string(PATH).unwrap();
    assert!(
        generated == committed,
        "openapi/openapi.json is out of date: run `delos-deploy openapi > openapi/openapi.json` and commit it"
    );
}

#[test]
fn every_reference_leads_somewhere() {
    let mut found = Vec::new();
    references(&DOCUMENT, &mut found);
    assert!(!found.is_empty());
    for target in &found {
        let pointer = target.strip_prefix('#').unwrap();
        assert!(DOCUMENT.pointer(pointer).is_some(), "{target}");
    }
    let schemas = DOCUMENT["components"]["schemas"].as_object().unwrap();
    for name in schemas.keys() {
        let target = format!("#/components/schemas/{name}");
        assert!(found.contains(&target.as_str()), "{name} is never used");
    }
}

#[test]
fn every_operation_is_described() {
    let tags: Vec<_> = DOCUMENT["tags"].as_array().unwrap().iter().collect();
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations() {
        let id = text(operation, "operationId");
        assert!(!id.is_empty() && ids.insert(id), "{method} {path}: {id}");
        let said = [text(operation, "summary"), text(operation, "description")].concat();
        assert!(!said.is_empty(), "{id}");
        let tag = operation["tags"][0].as_str().unwrap();
        assert!(tags.iter().any(|known| known["name"] == tag), "{id}: {tag}");
        for (status, response) in operation["responses"].as_object().unwrap() {
            assert!(!text(response, "description").is_empty(), "{id} {status}");
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = text(parameter, "name");
            assert!(!text(parameter, "description").is_empty(), "{id} {name}");
            assert!(parameter["schema"].is_object(), "{id} {name}");
        }
    }
}

#[test]
fn the_parameters_of_every_operation_match_its_path() {
    for (method, path, operation) in operations() {
        let in_template: Vec<_> = path
            .split('/')
            .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        let parameters = operation["parameters"].as_array();
        let parameters: Vec<_> = parameters.into_iter().flatten().collect();
        let in_path: Vec<_> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| text(parameter, "name"))
            .collect();
        let sorted = |names: Vec<_>| names.into_iter().collect::<BTreeSet<_>>();
        assert_eq!(in_path.len(), in_template.len(), "{method} {path}");
        assert_eq!(sorted(in_path), sorted(in_template), "{method} {path}");
        let mut names = BTreeSet::new();
        for parameter in parameters {
            let is_required = parameter["required"] == true;
            assert!(is_required || parameter["in"] != "path", "{parameter}");
            assert!(names.insert(text(parameter, "name")), "{parameter} twice");
        }
        assert_eq!(operation.get("requestBody").is_some(), method == "post");
    }
}
