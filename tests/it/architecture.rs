//! Imports point one way, and each foreign crate stays in its room. `src/lib.rs` has the map.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What each module may import of ours.
const ALLOWED: &[(&str, &[&str])] = &[
    ("domain", &["domain"]),
    ("clock", &["domain"]),
    ("faults", &[]),
    ("telemetry", &[]),
    ("store", &["store", "domain", "clock", "faults"]),
    (
        "traffic",
        &["traffic", "store", "domain", "clock", "telemetry"],
    ),
    (
        "service",
        &[
            "service",
            "evidence",
            "traffic",
            "store",
            "domain",
            "faults",
            "telemetry",
        ],
    ),
    ("evidence", &["evidence", "domain"]),
    ("reconciler", &["service", "store", "domain", "telemetry"]),
    (
        "wire",
        &["wire", "service", "traffic", "store", "domain", "telemetry"],
    ),
    (
        "config",
        &["domain", "evidence", "faults", "store", "telemetry", "wire"],
    ),
];

/// Where a foreign crate may be used.
const ROOMS: &[(&str, &[&str])] = &[
    ("sea_orm", &["store"]),
    ("sqlx", &["store"]),
    ("tonic", &["wire", "server", "telemetry", "evidence"]),
    ("axum", &["wire", "server"]),
    ("prost", &["wire", "evidence"]),
    ("hyper", &["server", "evidence"]),
    ("rustls", &["evidence"]),
    ("redis", &["traffic", "server"]),
];

fn sources() -> Vec<(PathBuf, String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("tests.rs")
            {
                let text = fs::read_to_string(&path).unwrap();
                // Tests at the end of a file may reach further.
                let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
                let inner = path
                    .strip_prefix(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))
                    .unwrap();
                let first = inner
                    .components()
                    .next()
                    .unwrap()
                    .as_os_str()
                    .to_str()
                    .unwrap();
                found.push((path.clone(), first.trim_end_matches(".rs").to_owned(), code));
            }
        }
    }
    assert!(found.len() > 50, "the sources are elsewhere");
    found
}

/// The first words behind `crate::`, also within `use crate::{…}`.
fn ours(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    let word = |text: &str| {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    for after in code.split("crate::").skip(1) {
        let Some(group) = after.strip_prefix('{') else {
            names.push(word(after));
            continue;
        };
        let mut depth = 0;
        let mut start = true;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                c if start && c.is_alphabetic() => {
                    names.push(word(&group[at..]));
                    start = false;
                }
                _ => {}
            }
        }
    }
    names
}

#[test]
fn imports_point_one_way() {
    let mut wrong = Vec::new();
    for (path, module, code) in sources() {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == module) else {
            continue;
        };
        for name in ours(&code) {
            if name != module && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{} imports {name}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn foreign_crates_stay_in_their_rooms() {
    let mut wrong = Vec::new();
    for (path, module, code) in sources() {
        for (foreign, rooms) in ROOMS {
            let used =
                code.contains(&format!("{foreign}::")) && !code.contains(&format!("_{foreign}::"));
            if used && !rooms.contains(&module.as_str()) {
                wrong.push(format!("{} uses {foreign}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_domain_is_pure() {
    for (path, module, code) in sources() {
        if module == "domain" {
            for impure in ["async ", "now()", "now_v7", "std::fs", "tokio"] {
                assert!(!code.contains(impure), "{} has {impure}", path.display());
            }
        }
    }
}

#[test]
fn the_rules_find_what_breaks_them() {
    assert_eq!(
        ours("use crate::{domain::{a, b}, store::{self, Tx}, wire};"),
        ["domain", "store", "wire"]
    );
    assert_eq!(ours("fn f(x: crate::wire::pb::Event) {}"), ["wire"]);
}
