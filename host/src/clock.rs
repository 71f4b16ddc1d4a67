//! The one place where a daemon reads a clock. Logic is given `now` and never comes here.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Unix time in microseconds; negative before 1970.
#[must_use]
pub fn now_us() -> i64 {
    // i64 microseconds last until the year 294 246.
    match system_now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |us| -us),
    }
}

/// Unix time in milliseconds; negative before 1970.
#[must_use]
pub fn now_ms() -> i64 {
    now_us().div_euclid(1000)
}

/// Unix time in seconds; 0 before 1970.
#[must_use]
pub fn now_s() -> u64 {
    u64::try_from(now_us() / 1_000_000).unwrap_or(0)
}

/// The monotonic clock, for spans that a clock adjustment must not change.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this module is the I/O shell's clock")]
pub fn monotonic() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "this module is the I/O shell's clock")]
fn system_now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_file_system() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let made = file.as_file().metadata().unwrap().modified().unwrap();
        let made_ms = i64::try_from(made.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
        assert!((now_ms() - made_ms).abs() < 60_000);
        assert!((now_us() / 1000 - now_ms()).abs() < 60_000);
        assert!(now_s().abs_diff(u64::try_from(made_ms / 1000).unwrap()) < 60);
    }

    #[test]
    fn monotonic_does_not_go_back() {
        let first = monotonic();
        assert!(monotonic() >= first);
    }
}
