//! Token buckets as one number: the time at which the bucket would be full again (GCRA, ITU-T I.371 §A.1).
//!
//! A store of eight bytes is the whole state, there is no division (armv7's JIT has none of 64 bits), and what a race between
//! processors loses is a token or two. Where such a store is two of four bytes (armv7), a torn one can be seconds in the
//! future; it is recognised, since an honest one never is, and taken for a full bucket.

/// A rate and a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meter {
    /// Between two tokens.
    pub interval_ns: u64,
    /// How much earlier than due a frame may come: one interval less than the bucket holds.
    pub tolerance_ns: u64,
}

impl Meter {
    /// So many a second, so many at once.
    #[must_use]
    pub const fn new(per_second: u64, burst: u64) -> Self {
        let interval_ns = 1_000_000_000 / per_second;
        Self { interval_ns, tolerance_ns: interval_ns * (burst - 1) }
    }

    /// The bucket after one token was taken at `now_ns`; none where it is empty. A bucket that was never used is 0.
    #[must_use]
    #[inline(always)]
    pub fn take(&self, bucket: u64, now_ns: u64) -> Option<u64> {
        let is_full = bucket <= now_ns || bucket - now_ns > self.tolerance_ns + self.interval_ns;
        let due = if is_full { now_ns } else { bucket };
        if due - now_ns > self.tolerance_ns { None } else { Some(due + self.interval_ns) }
    }
}

/// Of one source address: what a device says of itself in a second, and five at once since it says it in bursts.
pub const SOURCE: Meter = Meter::new(5, 5);
/// Of all strangers together: a network that is switched on, and no flood.
pub const STRANGERS: Meter = Meter::new(100, 100);
/// Of frames to the controller: a rule that sends it all traffic must not have its own sessions reported for ever.
pub const PACKET_IN: Meter = Meter::new(100, 100);

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `count` frames that come every `gap_ns` are let through.
    fn passed(meter: Meter, count: u64, gap_ns: u64) -> u64 {
        let (mut bucket, mut passed) = (0, 0);
        for n in 0..count {
            if let Some(next) = meter.take(bucket, 1_000 + n * gap_ns) {
                bucket = next;
                passed += 1;
            }
        }
        passed
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        assert_eq!(passed(SOURCE, 1_000, 1), 5);
        // A minute at 1,000 a second.
        assert_eq!(passed(SOURCE, 60_000, 1_000_000), 5 + 299);
        assert_eq!(passed(STRANGERS, 60_000, 1_000_000), 100 + 5_999);
        // Below the rate nothing is lost.
        assert_eq!(passed(SOURCE, 100, 200_000_000), 100);
    }

    #[test]
    fn an_idle_bucket_holds_no_more_than_a_burst() {
        let mut bucket = SOURCE.take(0, 5).unwrap();
        let later = 3_600_000_000_000;
        let mut passed = 0;
        while let Some(next) = SOURCE.take(bucket, later) {
            bucket = next;
            passed += 1;
        }
        assert_eq!(passed, 5);
    }

    #[test]
    fn a_torn_store_is_no_ban() {
        let now = 1 << 40;
        assert!(SOURCE.take(now + (1 << 32), now).is_some());
        assert!(SOURCE.take(u64::MAX, now).is_some());
        assert_eq!(SOURCE.take(now + 1_000_000_000, now), None, "an empty bucket is no torn one");
    }
}
