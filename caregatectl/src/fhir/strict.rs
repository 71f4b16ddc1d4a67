//! Reads FHIR JSON that must be understood as a whole: whatever is not asked for is refused, by its FHIRPath.

use serde_json::{Map, Value};
use thiserror::Error;

/// What can't be expressed here, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{path}: {why}")]
pub struct Refusal {
    /// FHIRPath of the element.
    pub path: String,
    /// Why.
    pub why: String,
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Element<'v> {
    path: String,
    value: &'v Value,
}

impl<'v> Element<'v> {
    pub(crate) fn root(name: &str, value: &'v Value) -> Self {
        Self { path: name.to_owned(), value }
    }

    pub(crate) fn refuse(&self, why: impl Into<String>) -> Refusal {
        Refusal { path: self.path.clone(), why: why.into() }
    }

    fn map(&self) -> Result<&'v Map<String, Value>, Refusal> {
        self.value.as_object().ok_or_else(|| self.refuse("must be an element with children"))
    }

    fn at(&self, name: &str, value: &'v Value) -> Self {
        Self { path: format!("{}.{name}", self.path), value }
    }

    /// Refuses each child that is not among `known`.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), Refusal> {
        match self.map()?.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, value)) => Err(self.first(name, value).refuse("a grant can't express this")),
        }
    }

    /// Of a list its first entry, which is what can be pointed at.
    fn first(&self, name: &str, value: &'v Value) -> Self {
        match value.as_array() {
            Some(entries) if !entries.is_empty() => Self { path: format!("{}.{name}[0]", self.path), value },
            Some(_) | None => self.at(name, value),
        }
    }

    pub(crate) fn child(&self, name: &str) -> Result<Option<Self>, Refusal> {
        Ok(self.map()?.get(name).map(|value| self.at(name, value)))
    }

    pub(crate) fn need(&self, name: &str, why: &str) -> Result<Self, Refusal> {
        let missing = || Refusal { path: format!("{}.{name}", self.path), why: why.to_owned() };
        self.child(name)?.ok_or_else(missing)
    }

    /// The entries of a list that must have some.
    pub(crate) fn list(&self, name: &str, why: &str) -> Result<Vec<Self>, Refusal> {
        let list = self.need(name, why)?;
        let entries = list.value.as_array().ok_or_else(|| list.refuse("must be a list"))?;
        if entries.is_empty() {
            return Err(list.refuse(why));
        }
        let entry = |(at, value)| Self { path: format!("{}[{at}]", list.path), value };
        Ok(entries.iter().enumerate().map(entry).collect())
    }

    /// The one entry of a list; a second one is refused.
    pub(crate) fn only_one(&self, name: &str, why: &str) -> Result<Self, Refusal> {
        let mut entries = self.list(name, why)?.into_iter();
        match (entries.next(), entries.next()) {
            (Some(only), None) => Ok(only),
            (_, Some(second)) => Err(second.refuse("a grant has one of these")),
            (None, None) => Err(self.refuse(why)),
        }
    }

    pub(crate) fn text(&self) -> Result<&'v str, Refusal> {
        self.value.as_str().ok_or_else(|| self.refuse("must be text"))
    }

    pub(crate) fn number(&self) -> Result<u64, Refusal> {
        self.value.as_u64().ok_or_else(|| self.refuse("must be a whole number, not below zero"))
    }

    /// Text of a child that must be there.
    pub(crate) fn need_text(&self, name: &str, why: &str) -> Result<&'v str, Refusal> {
        self.need(name, why)?.text()
    }

    /// A Coding's code, which must be of this system.
    pub(crate) fn code(&self, system: &str) -> Result<&'v str, Refusal> {
        self.only(&["system", "code", "display"])?;
        let of = self.need("system", "must be there")?;
        if of.text()? != system {
            return Err(of.refuse(format!("must be {system}")));
        }
        self.need_text("code", "must be there")
    }

    /// A CodeableConcept that must be exactly this code.
    pub(crate) fn concept(&self, system: &str, code: &str) -> Result<(), Refusal> {
        self.only(&["coding", "text"])?;
        let coding = self.only_one("coding", "must be there")?;
        if coding.code(system)? == code { Ok(()) } else { Err(coding.at_code(format!("must be {code}"))) }
    }

    pub(crate) fn at_code(&self, why: impl Into<String>) -> Refusal {
        Refusal { path: format!("{}.code", self.path), why: why.into() }
    }

    /// The value of a Reference by identifier of this system.
    pub(crate) fn identified(&self, system: &str) -> Result<(Self, &'v str), Refusal> {
        self.only(&["identifier", "display", "type"])?;
        let identifier = self.need("identifier", "must name it by identifier")?;
        identifier.identifier(system)
    }

    /// The value of an Identifier of this system.
    pub(crate) fn identifier(&self, system: &str) -> Result<(Self, &'v str), Refusal> {
        self.only(&["system", "value", "use"])?;
        let of = self.need("system", "must be there")?;
        if of.text()? != system {
            return Err(of.refuse(format!("must be {system}")));
        }
        let value = self.need("value", "must be there")?;
        let text = value.text()?;
        Ok((value, text))
    }

    /// A dateTime with its zone, in whole seconds of Unix time.
    pub(crate) fn seconds(&self) -> Result<u64, Refusal> {
        parse_seconds(self.text()?).ok_or_else(|| {
            self.refuse("must be a dateTime to the second, with its zone: 2026-11-25T12:00:00Z")
        })
    }
}

fn parse_seconds(text: &str) -> Option<u64> {
    let digits = |range: std::ops::Range<usize>| -> Option<u8> {
        let part = text.get(range)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?
    };
    let (century, year) = (digits(0..2)?, digits(2..4)?);
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|(at, byte)| text.as_bytes().get(*at) != Some(byte)) {
        return None;
    }
    let month = time::Month::try_from(digits(5..7)?).ok()?;
    let date =
        time::Date::from_calendar_date(i32::from(century) * 100 + i32::from(year), month, digits(8..10)?)
            .ok()?;
    let clock = time::Time::from_hms(digits(11..13)?, digits(14..16)?, digits(17..19)?).ok()?;
    let zone = text.get(19..)?;
    let offset_s = match zone.as_bytes() {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (i64::from(digits(20..22)?), i64::from(digits(23..25)?));
            if hours > 14 || minutes > 59 {
                return None;
            }
            (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let local = time::PrimitiveDateTime::new(date, clock).assume_utc().unix_timestamp();
    u64::try_from(local.checked_sub(offset_s)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_whole_seconds_with_a_zone() {
        assert_eq!(parse_seconds("2026-09-21T14:13:20Z"), Some(1_790_000_000));
        assert_eq!(parse_seconds("2026-09-21T16:13:20+02:00"), Some(1_790_000_000));
        assert_eq!(parse_seconds("2026-09-21T10:43:20-03:30"), Some(1_790_000_000));
        for wrong in [
            "",
            "2026",
            "2026-09",
            "2026-09-21",
            "2026-09-21T14:13Z",
            "2026-09-21T14:13:20",
            "2026-09-21T14:13:20.5Z",
            "2026-13-21T14:13:20Z",
            "2026-02-30T14:13:20Z",
            "2026-09-21T24:00:00Z",
            "2026-09-21T14:13:20+1:00",
            "2026-09-21T14:13:20+15:00",
            "1969-12-31T23:59:59Z",
            "+026-09-21T14:13:20Z",
            "2026-09-21t14:13:20Z",
            "2026-09-21T14:13:20Zé",
            "é026-09-21T14:13:20Z",
        ] {
            assert_eq!(parse_seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_not_asked_for_is_pointed_at() {
        let value = serde_json::json!({ "a": { "b": [{ "c": 1 }], "d": [] } });
        let a = Element::root("R", &value).need("a", "").unwrap();
        assert_eq!(a.only(&["d"]).unwrap_err().path, "R.a.b[0]");
        assert_eq!(a.only(&["b"]).unwrap_err().path, "R.a.d");
        assert_eq!(a.list("b", "").unwrap()[0].need("x", "why").unwrap_err().to_string(), "R.a.b[0].x: why");
        assert_eq!(a.list("d", "empty").unwrap_err().path, "R.a.d");
    }
}
