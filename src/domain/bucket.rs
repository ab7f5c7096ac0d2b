//! Who gets the version that is being rolled out.
//!
//! A targeting key has a place between 0 and 99,999 that depends on the deployment and the key
//! alone. The candidate is served to the keys whose place lies below its share, so that a share
//! that grows only adds keys, and each deployment has other keys in front. The hash is that of
//! generation 3 of flagd's `fractional` (`MurmurHash3_x86_32`, seed 0, over the CBOR text string
//! `<deployment id>:<targeting key>`), so that SDKs that evaluate locally agree.

use uuid::Uuid;

use super::traffic::Traffic;

/// How many places there are: a share of one percent is a thousand of them.
pub const PLACES: u32 = 100_000;

/// Which side of a split is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arm {
    /// The version that has been proven.
    Stable,
    /// The version that is being rolled out.
    Candidate,
    /// The version that is being rolled out, asked for as a preview.
    Preview,
}

/// The version to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assignment {
    /// The version.
    pub version: i32,
    /// Which side of the split it is.
    pub arm: Arm,
    /// The deployment that brings or brought it.
    pub deployment_id: Uuid,
}

/// The version to serve for a targeting key (empty for none); none where nothing is served.
#[must_use]
pub fn assign(traffic: &Traffic, targeting_key: &str, preview: bool) -> Option<Assignment> {
    if let Some(candidate) = &traffic.candidate {
        let share = u32::from(candidate.percentage) * (PLACES / 100);
        let is_in = || {
            share > 0
                && !targeting_key.is_empty()
                && place(candidate.deployment_id, targeting_key) < share
        };
        let arm = if preview {
            Some(Arm::Preview)
        } else {
            is_in().then_some(Arm::Candidate)
        };
        if let Some(arm) = arm {
            return Some(Assignment {
                version: candidate.version,
                arm,
                deployment_id: candidate.deployment_id,
            });
        }
    }
    traffic.stable.as_ref().map(|stable| Assignment {
        version: stable.version,
        arm: Arm::Stable,
        deployment_id: stable.deployment_id,
    })
}

/// The place of a targeting key in a deployment, 0 to 99,999.
#[must_use]
pub fn place(deployment_id: Uuid, targeting_key: &str) -> u32 {
    let hash = hash(deployment_id, targeting_key);
    // Below PLACES, since the hash is below 2^32.
    ((u64::from(hash) * u64::from(PLACES)) >> 32) as u32
}

fn hash(deployment_id: Uuid, targeting_key: &str) -> u32 {
    let mut id = Uuid::encode_buffer();
    let id = deployment_id.hyphenated().encode_lower(&mut id);
    let length = id.len() + 1 + targeting_key.len();
    let mut bytes = Vec::with_capacity(5 + length);
    push_text_header(&mut bytes, length);
    bytes.extend_from_slice(id.as_bytes());
    bytes.push(b':');
    bytes.extend_from_slice(targeting_key.as_bytes());
    murmur3(&bytes)
}

/// The header of a CBOR text string (RFC 8949, 3.1) of this many bytes, in its shortest form.
fn push_text_header(bytes: &mut Vec<u8>, length: usize) {
    if let Ok(length) = u8::try_from(length) {
        match length {
            0..24 => bytes.push(0x60 + length),
            24.. => bytes.extend([0x78, length]),
        }
    } else if let Ok(length) = u16::try_from(length) {
        bytes.push(0x79);
        bytes.extend(length.to_be_bytes());
    } else {
        bytes.push(0x7a);
        bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }
}

/// `MurmurHash3_x86_32` with seed 0, as Austin Appleby published it.
fn murmur3(bytes: &[u8]) -> u32 {
    const C1: u32 = 0xcc9e_2d51;
    const C2: u32 = 0x1b87_3593;
    let scramble = |block: u32| block.wrapping_mul(C1).rotate_left(15).wrapping_mul(C2);
    let (blocks, tail) = bytes.as_chunks::<4>();
    let mut hash = 0_u32;
    for block in blocks {
        hash ^= scramble(u32::from_le_bytes(*block));
        hash = hash
            .rotate_left(13)
            .wrapping_mul(5)
            .wrapping_add(0xe654_6b64);
    }
    let tail = tail
        .iter()
        .rev()
        .fold(0_u32, |tail, byte| tail << 8 | u32::from(*byte));
    hash ^= scramble(tail);
    // The length counts modulo 2^32.
    hash ^= bytes.len() as u32;
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::domain::{
        ids::{Environment, PromptId},
        traffic::{Candidate, Stable},
    };

    const DEPLOYMENT: Uuid = Uuid::from_u128(0x0192_f0c4_7a10_7c3e_9b1d_2f6a_5d8e_4c01);

    fn split(percentage: u8) -> Traffic {
        let mut traffic = Traffic::none(
            PromptId::parse("p").unwrap(),
            Environment::parse("e").unwrap(),
        );
        traffic.stable = Some(Stable {
            version: 6,
            deployment_id: Uuid::nil(),
        });
        traffic.candidate = Some(Candidate {
            version: 7,
            percentage,
            deployment_id: DEPLOYMENT,
        });
        traffic
    }

    /// The published vectors: an SDK that evaluates locally must come to the same places.
    #[test]
    fn vectors() {
        let long = "a".repeat(300);
        let vectors = [
            ("user-1", 3_140_443_700, 73_119),
            ("user-5", 474_219_177, 11_041),
            ("user-7", 2_091_976_406, 48_707),
            ("user-8", 1_126_574_520, 26_230),
            ("alice@example.com", 880_750_489, 20_506),
            (
                "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
                2_794_215_111,
                65_057,
            ),
            ("tenant:7/req:000123", 4_130_870_832, 96_179),
            ("x", 3_969_463_168, 92_421),
            (&long, 3_529_481_148, 82_177),
            ("naïve-ユーザー", 841_723_172, 19_597),
        ];
        for (key, expected_hash, expected_place) in vectors {
            assert_eq!(hash(DEPLOYMENT, key), expected_hash, "{key}");
            assert_eq!(place(DEPLOYMENT, key), expected_place, "{key}");
        }
    }

    #[test]
    fn murmur3_as_others_compute_it() {
        for (text, expected) in [
            ("ejOoVL", 0),
            ("bY9fO-", 1),
            ("SI7p-", 2_147_483_647),
            ("6LvT0", 2_147_483_648),
            ("ceQdGm", 4_294_967_295),
        ] {
            assert_eq!(murmur3(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn without_a_key_the_stable_version_and_a_preview_before_the_switch() {
        assert_eq!(assign(&split(99), "", false).unwrap().arm, Arm::Stable);
        let preview = assign(&split(0), "", true).unwrap();
        assert_eq!((preview.version, preview.arm), (7, Arm::Preview));
        let mut nothing = split(0);
        nothing.stable = None;
        assert_eq!(assign(&nothing, "user-1", false), None);
    }

    proptest! {
        #[test]
        fn who_is_in_stays_in(key in ".{1,40}", low in 0_u8..=99, more in 0_u8..=99) {
            let high = low.saturating_add(more).min(99);
            let is_in = |share| assign(&split(share), &key, false).unwrap().arm == Arm::Candidate;
            prop_assert!(!is_in(low) || is_in(high));
            prop_assert_eq!(is_in(low), place(DEPLOYMENT, &key) < u32::from(low) * 1000);
        }
    }

    #[test]
    fn the_share_of_keys_is_the_share_asked_for() {
        for share in [1_u8, 5, 10, 25, 50, 75, 99] {
            let keys = 20_000;
            let served = (0..keys)
                .filter(|key| {
                    assign(&split(share), &format!("user-{key}"), false)
                        .unwrap()
                        .arm
                        == Arm::Candidate
                })
                .count();
            let expected = f64::from(share) / 100.0;
            let observed = served as f64 / f64::from(keys);
            // Four standard deviations.
            let tolerance = 4.0 * (expected * (1.0 - expected) / f64::from(keys)).sqrt();
            assert!(
                (observed - expected).abs() < tolerance,
                "{share} %: {observed}"
            );
        }
    }
}
