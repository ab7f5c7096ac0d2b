//! That nothing breaks, that what is broken on purpose is found, and that a seed says it all.

use std::collections::BTreeSet;

use delos_deploy::faults::Bug;
use dst::{
    crew::{Seeds, on_stage},
    play::play,
    search::{Bounds, search},
};

/// Within how many seeds each bug has to be found.
const PATIENCE: u64 = 300;

#[test]
fn nothing_breaks_and_everything_happens() {
    let seeds = Seeds {
        from: 0,
        count: 120,
        bug: None,
    };
    let played = seeds.play(2).unwrap();
    assert!(played.broken.is_none(), "{:#?}", played.broken);
    let counts = played.counts;
    let kinds = [
        counts.lost,
        counts.crashes,
        counts.stops,
        counts.pauses,
        counts.answers,
        counts.events,
    ];
    assert!(kinds.iter().all(|count| *count > 20), "{counts:?}");
}

#[test]
fn every_bug_is_found() {
    for bug in Bug::ALL {
        let seeds = Seeds {
            from: 0,
            count: PATIENCE,
            bug: Some(bug),
        };
        let found = seeds.play(2).unwrap().broken;
        assert!(found.is_some(), "{bug:?} is not found");
    }
}

#[test]
fn the_same_happens_whenever_a_seed_is_played() {
    let traces = |seeds: Vec<u64>| {
        on_stage(async move |stage| {
            let mut traces = BTreeSet::new();
            for seed in seeds {
                traces.insert((seed, play(stage, seed, None).await?.trace.lines));
            }
            Ok(traces)
        })
    };
    let first = traces((0..12).collect()).unwrap();
    let again = traces((0..12).rev().collect()).unwrap();
    assert_eq!(first, again);
}

#[test]
fn every_interleaving_holds_and_a_bug_shows() {
    let bounds = Bounds::SMALL;
    let found = on_stage(async |stage| Ok(search(stage, bounds, None).await?)).unwrap();
    assert!(found.broken.is_none(), "{:#?}", found.broken);
    assert!(found.paths > 10, "{found:?}");
    let bug = Some(Bug::SkipsFence);
    let found = on_stage(async |stage| Ok(search(stage, bounds, bug).await?)).unwrap();
    assert!(found.broken.is_some(), "{found:?}");
}
