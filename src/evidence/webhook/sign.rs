//! Signatures after Standard Webhooks 1.0: HMAC-SHA256 over id, time and body as they are sent.

use std::{fmt, str::FromStr};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Shortest and longest key, in bytes.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// What calls are signed with: one key, or several while one takes the place of another. Not shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Keys(Vec<Vec<u8>>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl FromStr for Keys {
    type Err = ();

    /// Reads `whsec_` and base64 of 24 to 64 bytes, once or more, separated by commas or spaces.
    fn from_str(text: &str) -> Result<Self, ()> {
        let keys = text.split([',', ' ']).filter(|key| !key.is_empty());
        let keys: Option<_> = keys
            .map(|key| {
                let key = BASE64_STANDARD.decode(key.strip_prefix("whsec_")?).ok()?;
                KEY_BYTES.contains(&key.len()).then_some(key)
            })
            .collect();
        keys.map(Self).ok_or(())
    }
}

impl Keys {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The header `webhook-signature`: one signature a key.
    pub(super) fn sign(&self, id: &str, unix_seconds: i64, body: &[u8]) -> String {
        let signatures = self.0.iter().map(|key| {
            // It takes keys of any length.
            let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key");
            mac.update(format!("{id}.{unix_seconds}.").as_bytes());
            mac.update(body);
            format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The one that the specification's own libraries are tested by.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn the_published_vector_is_signed_as_published() {
        let keys: Keys = SECRET.parse().unwrap();
        let signed = keys.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn while_keys_change_each_signs() {
        let new = format!("whsec_{}", BASE64_STANDARD.encode([7; 32]));
        let keys: Keys = format!("{new}, {SECRET}").parse().unwrap();
        let signed = keys.sign("id", 1, b"body");
        let each: Vec<_> = signed.split(' ').collect();
        assert_eq!(each.len(), 2);
        for (secret, signature) in [new.as_str(), SECRET].into_iter().zip(each) {
            let alone: Keys = secret.parse().unwrap();
            assert_eq!(alone.sign("id", 1, b"body"), signature);
        }
    }

    #[test]
    fn a_key_that_can_not_be_is_refused_and_none_is_shown() {
        let of = |bytes: usize| format!("whsec_{}", BASE64_STANDARD.encode(vec![7; bytes]));
        for good in [of(24), of(64), String::new()] {
            assert!(good.parse::<Keys>().is_ok(), "{good}");
        }
        for wrong in [
            of(23),
            of(65),
            "whsec_".into(),
            "whsec_?".into(),
            "hunter2".into(),
        ] {
            assert!(wrong.parse::<Keys>().is_err(), "{wrong}");
        }
        let keys: Keys = SECRET.parse().unwrap();
        assert_eq!(format!("{keys:?}"), "[redacted]");
    }
}
