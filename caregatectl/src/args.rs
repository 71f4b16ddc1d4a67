//! Values on the command line.

use caregate_protocol::id::{DataClass, RecipientId};
use caregate_protocol::policy::{Pseudonym, Purpose, RecipientKind, class_bit};

pub(crate) fn parse_classes(text: &str) -> Result<u32, String> {
    if text == "all" {
        return Ok(DataClass::ALL.iter().fold(0, |mask, class| mask | class_bit(*class)));
    }
    text.split(',').try_fold(0, |mask, name| {
        let class = DataClass::from_name(name);
        let class = class.ok_or("classes are alarm, vitals, waveform, activity, sensitive, or all")?;
        Ok(mask | class_bit(class))
    })
}

pub(crate) fn parse_purposes(text: &str) -> Result<u32, String> {
    text.split(',').try_fold(0, |mask, name| {
        let purpose = Purpose::ALL.into_iter().find(|purpose| purpose.as_str() == name);
        let purpose = purpose.ok_or("purposes are treatment, research, patient-request")?;
        Ok(mask | purpose.bit())
    })
}

pub(crate) fn parse_kind(text: &str) -> Result<RecipientKind, String> {
    match text {
        "treating" => Ok(RecipientKind::Treating),
        "other" => Ok(RecipientKind::Other),
        _ => Err("a kind is treating or other".to_owned()),
    }
}

pub(crate) fn parse_bytes<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut bytes)
        .map_err(|_source| format!("must be {N} bytes in hexadecimal"))?;
    Ok(bytes)
}

pub(crate) fn parse_pseudonym(text: &str) -> Result<Pseudonym, String> {
    parse_bytes(text).map(Pseudonym)
}

pub(crate) fn class_names(mask: u32) -> String {
    let names =
        DataClass::ALL.into_iter().filter(|class| mask & class_bit(*class) != 0).map(DataClass::as_str);
    names.collect::<Vec<_>>().join(",")
}

pub(crate) fn purpose_names(mask: u32) -> String {
    let names = Purpose::ALL.into_iter().filter(|purpose| mask & purpose.bit() != 0).map(Purpose::as_str);
    names.collect::<Vec<_>>().join(",")
}

/// A domain's address as people write it.
pub(crate) fn address(id: &RecipientId) -> String {
    format!("0x{id}")
}

pub(crate) fn hex0x(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

/// Seconds of Unix time as people write it, in UTC.
pub(crate) fn utc(seconds: u64) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    let time = i64::try_from(seconds).ok().and_then(|s| time::OffsetDateTime::from_unix_timestamp(s).ok());
    time.and_then(|time| time.format(format).ok()).unwrap_or_else(|| seconds.to_string())
}

/// Unix time in seconds.
pub(crate) fn now_s() -> u64 {
    u64::try_from(caregate_host::clock::now_ms().div_euclid(1000)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_read_as_they_are_written() {
        for text in ["alarm", "alarm,vitals", "vitals,sensitive"] {
            assert_eq!(class_names(parse_classes(text).unwrap()), text);
        }
        assert_eq!(class_names(parse_classes("all").unwrap()).split(',').count(), 5);
        assert_eq!(
            purpose_names(parse_purposes("treatment,patient-request").unwrap()),
            "treatment,patient-request"
        );
        for text in ["", "alarms", "alarm,", "all,alarm"] {
            assert!(parse_classes(text).is_err(), "{text}");
        }
        assert!(parse_purposes("fun").is_err() && parse_kind("friend").is_err());
    }

    #[test]
    fn bytes_have_their_length() {
        assert_eq!(parse_bytes::<2>("0xBEef"), Ok([0xbe, 0xef]));
        assert_eq!(parse_bytes::<2>("beef0"), Err("must be 2 bytes in hexadecimal".to_owned()));
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(1_790_000_000), "2026-09-21T14:13:20Z");
        assert_eq!(utc(u64::MAX), u64::MAX.to_string());
    }
}
