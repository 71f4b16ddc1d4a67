//! FHIR times: as written in resources (R4 §2.24.0.1 `dateTime`) and as searched for (§3.1.1.4.7). Pure.

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Date, Month, OffsetDateTime, Time, UtcOffset};

/// Microseconds of a day.
const DAY_US: i64 = 86_400_000_000;
/// The last microsecond of the year 9999.
const LAST_US: i64 = 253_402_300_799_999_999;
const MILLISECONDS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
const MICROSECONDS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// Whether a time can be written: from 1970 to 9999. A device's clock may say anything.
#[must_use]
pub fn is_writable(us: i64) -> bool {
    (0..=LAST_US).contains(&us)
}

fn write(us: i64, format: &[BorrowedFormatItem<'_>]) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(us.clamp(0, LAST_US)) * 1000);
    time.ok().and_then(|time| time.format(format).ok()).unwrap_or_default()
}

/// To the millisecond, in UTC; clamped to what can be written.
#[must_use]
pub fn milliseconds(us: i64) -> String {
    write(us, MILLISECONDS)
}

/// To the microsecond, for waveforms: at 360 Hz a sample lasts 2.778 ms.
#[must_use]
pub fn microseconds(us: i64) -> String {
    write(us, MICROSECONDS)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// One `date=` of a search. The text names a span (a year, a day, a second), and so it compares with an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateFilter {
    compare: Compare,
    /// First microsecond of the span.
    first_us: i64,
    /// First microsecond after it.
    end_us: i64,
}

impl DateFilter {
    /// Takes `[prefix]yyyy[-mm[-dd[Thh:mm[:ss[.f…]](Z|±hh:mm)]]]`; prefixes `eq` `ne` `lt` `le` `gt` `ge`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (compare, date) = match text.get(..2)? {
            "eq" => (Compare::Equal, &text[2..]),
            "ne" => (Compare::NotEqual, &text[2..]),
            "lt" => (Compare::Less, &text[2..]),
            "le" => (Compare::LessOrEqual, &text[2..]),
            "gt" => (Compare::Greater, &text[2..]),
            "ge" => (Compare::GreaterOrEqual, &text[2..]),
            _ => (Compare::Equal, text),
        };
        let (first_us, end_us) = span(date)?;
        Some(Self { compare, first_us, end_us })
    }

    /// Whether an instant meets it.
    #[must_use]
    pub fn matches(&self, us: i64) -> bool {
        let (before, after) = (us < self.first_us, us >= self.end_us);
        match self.compare {
            Compare::Equal => !before && !after,
            Compare::NotEqual => before || after,
            Compare::Less => before,
            Compare::LessOrEqual => !after,
            Compare::Greater => after,
            Compare::GreaterOrEqual => !before,
        }
    }
}

/// As many digits as asked for, and the rest.
fn digits(text: &str, count: usize) -> Option<(u32, &str)> {
    let (number, rest) = text.split_at_checked(count)?;
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((number.parse().ok()?, rest))
}

fn small(text: &str, separator: char) -> Option<(u8, &str)> {
    let (number, rest) = digits(text.strip_prefix(separator)?, 2)?;
    Some((u8::try_from(number).ok()?, rest))
}

fn midnight_us(date: Date) -> i64 {
    date.midnight().assume_utc().unix_timestamp() * 1_000_000
}

/// First microsecond, and first after.
fn span(text: &str) -> Option<(i64, i64)> {
    let (year, rest) = digits(text, 4)?;
    let year = i32::try_from(year).ok()?;
    let day_of = |month, day| Date::from_calendar_date(year, month, day).ok().map(midnight_us);
    if rest.is_empty() {
        return Some((day_of(Month::January, 1)?, day_of(Month::December, 31)? + DAY_US));
    }
    let (month, rest) = small(rest, '-')?;
    let month = Month::try_from(month).ok()?;
    if rest.is_empty() {
        return Some((day_of(month, 1)?, day_of(month, month.length(year))? + DAY_US));
    }
    let (day, rest) = small(rest, '-')?;
    let day = Date::from_calendar_date(year, month, day).ok()?;
    if rest.is_empty() {
        return Some((midnight_us(day), midnight_us(day) + DAY_US));
    }
    time_span(day, rest)
}

fn time_span(day: Date, text: &str) -> Option<(i64, i64)> {
    let (hour, rest) = small(text, 'T')?;
    let (minute, mut rest) = small(rest, ':')?;
    let (mut second, mut length_us, mut fraction_us) = (0, 60_000_000, 0);
    if rest.starts_with(':') {
        (second, rest) = small(rest, ':')?;
        length_us = 1_000_000;
        if let Some(fraction) = rest.strip_prefix('.') {
            let count = fraction.bytes().take_while(u8::is_ascii_digit).count();
            let shown = count.min(6);
            let (number, _) = digits(fraction, shown).filter(|_| shown > 0)?;
            length_us = 10_i64.pow(6 - u32::try_from(shown).ok()?);
            fraction_us = i64::from(number) * length_us;
            rest = &fraction[count..];
        }
    }
    // A `+` that was not escaped in the URL has become a space.
    let offset = match rest.split_at_checked(1)? {
        ("Z", "") => UtcOffset::UTC,
        (sign @ ("+" | "-" | " "), offset) => {
            let (hours, rest) = digits(offset, 2)?;
            let (minutes, rest) = small(rest, ':')?;
            let minutes = i32::try_from(hours * 60 + u32::from(minutes)).ok().filter(|_| rest.is_empty())?;
            UtcOffset::from_whole_seconds(if sign == "-" { -60 * minutes } else { 60 * minutes }).ok()?
        }
        _ => return None,
    };
    let time = Time::from_hms(hour, minute, second).ok()?;
    let first = OffsetDateTime::new_in_offset(day, time, offset).unix_timestamp() * 1_000_000 + fraction_us;
    Some((first, first + length_us))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-09-21T14:13:20Z.
    const US: i64 = 1_790_000_000_000_000;

    #[test]
    fn written_to_the_millisecond_in_utc() {
        assert_eq!(milliseconds(US + 12_999), "2026-09-21T14:13:20.012Z");
        assert_eq!(microseconds(US + 12_999), "2026-09-21T14:13:20.012999Z");
        assert_eq!(milliseconds(i64::MIN), "1970-01-01T00:00:00.000Z");
        assert_eq!(milliseconds(i64::MAX), "9999-12-31T23:59:59.999Z");
        assert!(is_writable(0) && is_writable(LAST_US) && !is_writable(-1) && !is_writable(LAST_US + 1));
    }

    #[test]
    fn spans_are_as_long_as_what_was_written() {
        let length = |text| span(text).map(|(first, end)| end - first);
        assert_eq!(length("2024"), Some(366 * DAY_US));
        assert_eq!(length("2024-02"), Some(29 * DAY_US));
        assert_eq!(length("2026-12"), Some(31 * DAY_US));
        assert_eq!(length("2026-02-28"), Some(DAY_US));
        assert_eq!(length("2026-09-21T14:13Z"), Some(60_000_000));
        assert_eq!(span("2026-09-21T14:13:20Z"), Some((US, US + 1_000_000)));
        assert_eq!(span("2026-09-21T16:13:20.012+02:00"), Some((US + 12_000, US + 13_000)));
        assert_eq!(span("2026-09-21T16:13:20.0120009 02:00"), Some((US + 12_000, US + 12_001)));
        assert_eq!(span("2026-09-21T14:13:20-00:30").unwrap().0, US + 1_800_000_000);
    }

    #[test]
    fn the_last_year_is_one() {
        for text in ["9999", "9999-12", "9999-12-31", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999Z"] {
            assert_eq!(span(text).map(|(_, end)| end), Some(LAST_US + 1), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "2",
            "26",
            "2026-",
            "2026-13",
            "2026-02-30",
            "2026-1-1",
            "2026-09-21T",
            "2026-09-21T14Z",
            "2026-09-21T14:13",
            "2026-09-21T24:00Z",
            "2026-09-21T14:13:20.Z",
            "2026-09-21T14:13:20Z ",
            "2026-09-21T14:13+2",
            "ap2026",
            "sa2026-01-01",
            "+202-01",
            "geé2026",
        ] {
            assert_eq!(DateFilter::parse(text), None, "{text}");
        }
    }

    #[test]
    fn prefixes_compare_with_the_span() {
        let [before, first, last, after] = [US - 1, US, US + 999_999, US + 1_000_000];
        let cases = [
            ("", [false, true, true, false]),
            ("eq", [false, true, true, false]),
            ("ne", [true, false, false, true]),
            ("lt", [true, false, false, false]),
            ("le", [true, true, true, false]),
            ("gt", [false, false, false, true]),
            ("ge", [false, true, true, true]),
        ];
        for (prefix, expected) in cases {
            let filter = DateFilter::parse(&format!("{prefix}2026-09-21T14:13:20Z")).unwrap();
            assert_eq!([before, first, last, after].map(|us| filter.matches(us)), expected, "{prefix}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_found(us in 0..LAST_US) {
            prop_assert!(DateFilter::parse(&milliseconds(us)).unwrap().matches(us));
            prop_assert!(DateFilter::parse(&microseconds(us)).unwrap().matches(us));
        }

        #[test]
        fn no_text_panics(text in "(eq|ge|x)?[0-9TZ:.+ é-]{0,30}") {
            prop_assert!(DateFilter::parse(&text).is_none_or(|filter| filter.first_us < filter.end_us));
        }
    }
}
