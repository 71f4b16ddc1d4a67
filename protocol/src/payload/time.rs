//! Dates and times of RFC 3339 §5.6, to Unix microseconds.

const DAY_S: i64 = 86_400;

/// Unix microseconds, if the text is a date and time with an offset. What is finer than a microsecond is cut; a leap second is the
/// one before it.
pub(super) fn rfc3339_us(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let (date, rest) = bytes.split_at_checked(10)?;
    let (separator, rest) = rest.split_first()?;
    let (clock, rest) = rest.split_at_checked(8)?;
    if date[4] != b'-'
        || date[7] != b'-'
        || !b"Tt ".contains(separator)
        || clock[2] != b':'
        || clock[5] != b':'
    {
        return None;
    }
    let (year, month, day) = (number(&date[..4])?, number(&date[5..7])?, number(&date[8..])?);
    let (hour, minute, second) = (number(&clock[..2])?, number(&clock[3..5])?, number(&clock[6..])?);
    if !(1..=12).contains(&month) || day < 1 || day > days_of(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (micros, rest) = fraction(rest)?;
    let seconds = days_from_epoch(year, month, day) * DAY_S + hour * 3600 + minute * 60 + second.min(59);
    Some((seconds - offset_s(rest)?) * 1_000_000 + micros)
}

fn number(digits: &[u8]) -> Option<i64> {
    let digit = |sum: i64, byte: &u8| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0'));
    digits.iter().try_fold(0, digit)
}

/// `.25` is 250,000; what follows.
fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = rest.strip_prefix(b".") else { return Some((0, rest)) };
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if digits.is_empty() {
        return None;
    }
    let micros =
        (0..6).try_fold(0, |sum, at| number(digits.get(at..=at).unwrap_or(b"0")).map(|d| sum * 10 + d))?;
    Some((micros, rest))
}

/// `Z`, or as in `+05:30`.
fn offset_s(rest: &[u8]) -> Option<i64> {
    match rest {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            let seconds = (hours <= 23 && minutes <= 59).then_some(hours * 3600 + minutes * 60)?;
            Some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar.
fn days_from_epoch(year: i64, month: i64, day: i64) -> i64 {
    let before = year - 1;
    let years = before * 365 + before / 4 - before / 100 + before / 400;
    let months: i64 = (1..month).map(|month| days_of(year, month)).sum();
    // 719,162 days are before 1970-01-01.
    years + months + day - 1 - 719_162
}

#[cfg(test)]
mod tests {
    use super::rfc3339_us;

    #[test]
    fn moments_are_what_they_are() {
        // By GNU date -u -d … +%s.
        let cases = [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-09-21T14:13:20Z", 1_790_000_000_000_000),
            ("2026-09-21T16:13:20.25+02:00", 1_790_000_000_250_000),
            ("2024-02-29 23:59:60z", 1_709_251_199_000_000),
            ("2013-02-05T07:25:00.1234567-08:00", 1_360_077_900_123_456),
            ("1969-12-31T23:59:59Z", -1_000_000),
            ("9999-12-31T23:59:59Z", 253_402_300_799_000_000),
        ];
        for (text, us) in cases {
            assert_eq!(rfc3339_us(text), Some(us), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "2026-09-21",
            "2026-09-21T14:13:20",
            "2026-9-21T14:13:20Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-09-31T00:00:00Z",
            "2026-09-21T24:00:00Z",
            "2026-09-21T14:60:00Z",
            "2026-09-21T14:13:61Z",
            "2026-09-21T14:13:20.Z",
            "2026-09-21T14:13:20+2:00",
            "2026-09-21T14:13:20+24:00",
            "2026-09-21T14:13:20Zx",
            "+026-09-21T14:13:20Z",
            "2026-09-21Ť14:13:20Z",
        ] {
            assert_eq!(rfc3339_us(text), None, "{text}");
        }
    }
}
