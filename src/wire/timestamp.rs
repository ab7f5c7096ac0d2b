//! `google.protobuf.Timestamp`, written the way protobuf's JSON asks for.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};

/// 0001-01-01T00:00:00Z, the first second that protobuf allows.
const SECONDS_MIN: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z, the last second that protobuf allows.
const SECONDS_MAX: i64 = 253_402_300_799;
const NANOS_MAX: i32 = 999_999_999;

/// A moment in UTC: `google.protobuf.Timestamp` on the wire, RFC 3339 in JSON.
///
/// Whoever sends a message can put any numbers into it, so a `Timestamp` is checked where it
/// becomes a [`DateTime`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z, from the year 1 to the year 9999.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds within the second, counted forward: 0 to 999,999,999.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// A [`Timestamp`] that protobuf doesn't allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a moment in the years 0001 to 9999, with nanoseconds from 0 to 999999999")]
pub struct TimestampOutOfRange;

impl From<DateTime<Utc>> for Timestamp {
    fn from(moment: DateTime<Utc>) -> Self {
        // chrono counts a leap second as nanoseconds past the second before it, protobuf not at all.
        let nanos = i32::try_from(moment.timestamp_subsec_nanos()).unwrap_or(NANOS_MAX);
        Self {
            seconds: moment.timestamp(),
            nanos: nanos.min(NANOS_MAX),
        }
    }
}

impl TryFrom<Timestamp> for DateTime<Utc> {
    type Error = TimestampOutOfRange;

    fn try_from(timestamp: Timestamp) -> Result<Self, Self::Error> {
        let Timestamp { seconds, nanos } = timestamp;
        if !(SECONDS_MIN..=SECONDS_MAX).contains(&seconds) || !(0..=NANOS_MAX).contains(&nanos) {
            return Err(TimestampOutOfRange);
        }
        let nanos = u32::try_from(nanos).map_err(|_| TimestampOutOfRange)?;
        Self::from_timestamp(seconds, nanos).ok_or(TimestampOutOfRange)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let moment = DateTime::<Utc>::try_from(*self).map_err(S::Error::custom)?;
        serializer.serialize_str(&moment.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let moment = DateTime::parse_from_rfc3339(&text).map_err(|error| {
            D::Error::custom(format!(
                "`{text}` is not an RFC 3339 date and time such as 2006-01-02T15:04:05Z: {error}"
            ))
        })?;
        let timestamp = Self::from(moment.to_utc());
        // An offset can carry a moment of the year 9999 into the next.
        DateTime::<Utc>::try_from(timestamp).map_err(D::Error::custom)?;
        Ok(timestamp)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use serde_json::{from_value, json, to_value};

    use super::*;

    fn timestamp(seconds: i64, nanos: i32) -> Timestamp {
        Timestamp { seconds, nanos }
    }

    #[test]
    fn is_written_in_utc_with_as_many_digits_as_it_takes() {
        for (value, text) in [
            (timestamp(0, 0), "1970-01-01T00:00:00Z"),
            (timestamp(0, 120_000_000), "1970-01-01T00:00:00.120Z"),
            (timestamp(0, 120), "1970-01-01T00:00:00.000000120Z"),
            (timestamp(0, 12_000), "1970-01-01T00:00:00.000012Z"),
            (timestamp(-1, 500_000_000), "1969-12-31T23:59:59.500Z"),
            (timestamp(SECONDS_MIN, 0), "0001-01-01T00:00:00Z"),
            (
                timestamp(SECONDS_MAX, NANOS_MAX),
                "9999-12-31T23:59:59.999999999Z",
            ),
        ] {
            assert_eq!(to_value(value).unwrap(), json!(text));
            assert_eq!(from_value::<Timestamp>(json!(text)).unwrap(), value);
        }
    }

    #[test]
    fn is_read_with_any_offset() {
        for text in [
            "1970-01-01T02:00:00.5+02:00",
            "1969-12-31T19:30:00.50-04:30",
        ] {
            let value = from_value::<Timestamp>(json!(text)).unwrap();
            assert_eq!(value, timestamp(0, 500_000_000), "{text}");
        }
    }

    #[test]
    fn a_leap_second_is_the_end_of_the_second_before() {
        let value = from_value::<Timestamp>(json!("2016-12-31T23:59:60Z")).unwrap();
        assert_eq!(value, timestamp(1_483_228_799, NANOS_MAX));
    }

    #[test]
    fn what_is_not_a_moment_is_refused() {
        for text in [
            "",
            "yesterday",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-02-30T00:00:00Z",
            "0000-12-31T23:59:59Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "10000-01-01T00:00:00Z",
        ] {
            assert!(from_value::<Timestamp>(json!(text)).is_err(), "{text}");
        }
        assert!(from_value::<Timestamp>(json!(0)).is_err());
    }

    #[test]
    fn what_protobuf_forbids_is_not_written() {
        for value in [
            timestamp(SECONDS_MIN - 1, 0),
            timestamp(SECONDS_MAX + 1, 0),
            timestamp(i64::MIN, 0),
            timestamp(i64::MAX, 0),
            timestamp(0, -1),
            timestamp(59, NANOS_MAX + 1),
        ] {
            assert_eq!(DateTime::<Utc>::try_from(value), Err(TimestampOutOfRange));
            assert!(to_value(value).is_err(), "{value:?}");
        }
    }

    #[test]
    fn survives_chrono_and_the_wire() {
        let value = timestamp(1_700_000_000, 123_456_789);
        let moment = DateTime::<Utc>::try_from(value).unwrap();
        assert_eq!(Timestamp::from(moment), value);

        let theirs = prost_types::Timestamp {
            seconds: value.seconds,
            nanos: value.nanos,
        };
        assert_eq!(value.encode_to_vec(), theirs.encode_to_vec());
    }
}
