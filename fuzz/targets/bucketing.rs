//! Who gets which version: the same whenever it is asked, and more users with a larger share, never
//! others.
#![no_main]

use delos_deploy::domain::{
    bucket::{Arm, PLACES, assign, place},
    ids::{Environment, PromptId},
    traffic::{Candidate, Stable, Traffic},
};
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;

fuzz_target!(|input: (u128, u8, u8, &str)| {
    let (id, one, other, key) = input;
    let (less, more) = (one.min(other) % 101, one.max(other).min(100));
    let less = less.min(more);
    let (id, old) = (Uuid::from_u128(id), Uuid::from_u128(!id));
    let name = |text| Environment::parse(text).expect("a name");
    let prompt = PromptId::parse("p").expect("an id");
    let with = |percentage| Traffic {
        stable: Some(Stable {
            version: 1,
            deployment_id: old,
        }),
        candidate: Some(Candidate {
            version: 2,
            percentage,
            deployment_id: id,
        }),
        ..Traffic::none(prompt.clone(), name("e"))
    };
    let at = place(id, key);
    assert!(at < PLACES);
    let of = |percentage| {
        let assigned = assign(&with(percentage), key, false).expect("something is served");
        assert_eq!(Some(assigned), assign(&with(percentage), key, false));
        let (version, deployment) = match assigned.arm {
            Arm::Stable => (1, old),
            Arm::Candidate | Arm::Preview => (2, id),
        };
        assert_eq!(
            (assigned.version, assigned.deployment_id),
            (version, deployment)
        );
        assigned.arm
    };
    let (few, many) = (of(less), of(more));
    assert!(
        few == Arm::Stable || many == Arm::Candidate,
        "{less} {more} {at}"
    );
    assert_eq!(of(0), Arm::Stable);
    let with_all = if key.is_empty() {
        Arm::Stable
    } else {
        Arm::Candidate
    };
    assert_eq!(of(100), with_all);
    let preview = assign(&with(less), key, true).expect("something is served");
    assert_eq!(preview.arm, Arm::Preview);
});
