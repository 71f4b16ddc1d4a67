//! What a blob's records hold: rules, lists, groups, meters (ADR 17). The helper writes them as words; the programs read them.

use super::key::KEY_WORDS;

/// A rule's first word of its value.
pub const RULE_VALUE: usize = 0;
/// Its first word of the mask.
pub const RULE_MASK: usize = KEY_WORDS;
/// Slot of its counter (32), flags (16), table to go to (8; [`NO_TABLE`] for none).
pub const RULE_HEAD: usize = 2 * KEY_WORDS;
/// What `write-metadata` writes, already under its mask.
pub const RULE_METADATA: usize = RULE_HEAD + 1;
/// The bits that it writes.
pub const RULE_METADATA_MASK: usize = RULE_HEAD + 2;
/// Actions to apply: a [`list`].
pub const RULE_APPLY: usize = RULE_HEAD + 3;
/// Actions to write: a [`list`].
pub const RULE_WRITE: usize = RULE_HEAD + 4;
/// Place of its meter and 1, 0 for none (32); with [`RULE_ONLY_OUTPUT`] the port (32).
pub const RULE_METER: usize = RULE_HEAD + 5;
/// Words of a rule, one of them to spare.
pub const RULE_WORDS: usize = RULE_HEAD + 8;

/// Flag: clear the action set.
pub const RULE_CLEAR: u16 = 1;
/// Flag: there is one action, in either list, an output, and no other instruction.
pub const RULE_ONLY_OUTPUT: u16 = 2;
/// No table to go to.
pub const NO_TABLE: u8 = 0xff;

/// Packs a rule's head.
#[must_use]
pub const fn rule_head(slot: u32, flags: u16, goto: u8) -> u64 {
    slot as u64 | (flags as u64) << 32 | (goto as u64) << 48
}

/// A list of actions: the place of its first in the blob's actions, and how many.
#[must_use]
pub const fn list(first: u32, count: u16) -> u64 {
    first as u64 | (count as u64) << 32
}

/// A group's words: kind (8, OpenFlow's number), buckets (8), place of the first bucket (16 from bit 16); of a group that takes all,
/// place of the first that leads to the gateway's stack, and 1 (16 from bit 32), 0 for none.
/// A group's counter is at its place; a bucket's too.
pub const GROUP_WORDS: usize = 1;

/// Packs a group. `kind` is `enum ofp_group_type` (OpenFlow 1.3.5 §5.6.1).
#[must_use]
pub const fn group(kind: u8, buckets: u8, first: u16, to_stack: u16) -> u64 {
    kind as u64 | (buckets as u64) << 8 | (first as u64) << 16 | (to_stack as u64) << 32
}

/// `OFPGT_ALL`
pub const GROUP_ALL: u8 = 0;
/// `OFPGT_SELECT`
pub const GROUP_SELECT: u8 = 1;
/// `OFPGT_INDIRECT`
pub const GROUP_INDIRECT: u8 = 2;
/// `OFPGT_FF`
pub const GROUP_FAST_FAILOVER: u8 = 3;

/// A bucket's [`list`], in the order of an action set.
pub const BUCKET_LIST: usize = 0;
/// The bucket is live while a port of these is: bit *n* for port *n*; all ones where it is always.
pub const BUCKET_WATCH: usize = 1;
/// Of a select group: 32 bits of hash below it, and not below an earlier bucket's, choose it. The last of weight is 2^32, and one
/// of weight 0 has what the one before it has.
pub const BUCKET_BELOW: usize = 2;
/// Words of a bucket.
pub const BUCKET_WORDS: usize = 4;

/// Bits of [`remark_of`] for one table.
const REMARK_BITS: u32 = 2;
/// Steps beyond three change nothing: there are three drop precedences (RFC 2597 §6).
const REMARK_MAX: u32 = (1 << REMARK_BITS) - 1;

/// What a meter of a table has decided for a frame, as a punt carries it: steps of drop precedence, by table.
#[must_use]
#[inline(always)]
pub const fn remark_of(table: u32, steps: u32) -> u32 {
    let steps = if steps > REMARK_MAX { REMARK_MAX } else { steps };
    steps << (REMARK_BITS * (table & 7))
}

/// The steps that meters of a table add; 0 for none.
#[must_use]
pub const fn remark_in(remarks: u32, table: u8) -> u8 {
    (remarks >> (REMARK_BITS * (table as u32 & 7)) & REMARK_MAX) as u8
}

/// Bands of a meter.
pub const BANDS_MAX: usize = 4;
/// A meter's number of bands.
pub const METER_BANDS: usize = 0;
/// Words of a [`Band`].
pub const BAND_WORDS: usize = 3;
/// The first band's words; bands are in falling order of their rates.
pub const METER_FIRST: usize = 1;
/// Words of a meter.
pub const METER_WORDS: usize = 16;

const BANDS: u32 = 4;
const _: () = assert!(BANDS as usize == BANDS_MAX);

/// Buckets of a meter's bands, in the array of them: by meter and band.
#[must_use]
#[inline(always)]
pub const fn meter_bucket(meter: u32, band: u32) -> u32 {
    meter * BANDS + band
}

/// Counters of a meter, in the array of them: all of it, then its bands.
#[must_use]
#[inline(always)]
pub const fn meter_counter(meter: u32) -> u32 {
    meter * (BANDS + 1)
}

/// Remaining fraction's bits of [`Band::cost`].
pub const COST_SHIFT: u32 = 16;
/// Frames that a band lets through at once at least: a full one must pass while another has just passed.
const BURST_BYTES_MIN: u64 = 2 * 1518;

/// One band of a meter, a token bucket as the time at which it would be full (GCRA; [`crate::meter`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Band {
    /// What a byte, or a frame where frames are counted, takes: nanoseconds times 2^[`COST_SHIFT`].
    pub cost: u64,
    /// What the whole bucket holds, in nanoseconds.
    pub burst_ns: u64,
    /// Steps of drop precedence to add (`OFPMBT_DSCP_REMARK`); none drops.
    pub remark: Option<u8>,
    /// Whether frames are counted and not bytes.
    pub counts_frames: bool,
}

impl Band {
    /// A band with this rate and burst: kbit/s and kbit, or packets. Without burst it is a tenth of a second's, and two frames at
    /// least. A rate of 0 lets nothing through.
    #[must_use]
    pub fn new(rate: u32, burst: u32, counts_frames: bool, remark: Option<u8>) -> Self {
        if rate == 0 {
            return Self { cost: 1 << COST_SHIFT, burst_ns: 0, remark, counts_frames };
        }
        let rate = u64::from(rate);
        // Nanoseconds of a packet, or of a byte.
        let unit_ns: u64 = if counts_frames { 1_000_000_000 } else { 8_000_000 };
        let cost = ((unit_ns << COST_SHIFT) / rate).max(1);
        let least = (cost * if counts_frames { 2 } else { BURST_BYTES_MIN }) >> COST_SHIFT;
        let wanted = if burst == 0 { 100_000_000 } else { u64::from(burst) * 1_000_000_000 / rate };
        Self { cost, burst_ns: wanted.max(least), remark, counts_frames }
    }

    /// Its words.
    #[must_use]
    pub const fn pack(&self) -> [u64; BAND_WORDS] {
        let remark = match self.remark {
            Some(steps) => 1 | (steps as u64) << 8,
            None => 0,
        };
        [remark | (self.counts_frames as u64) << 16, self.cost, self.burst_ns]
    }

    /// Reads its words.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "fields of the word, each cut to its width")]
    pub const fn unpack(words: [u64; BAND_WORDS]) -> Self {
        let [head, cost, burst_ns] = words;
        let remark = if head & 1 == 0 { None } else { Some((head >> 8) as u8) };
        Self { cost, burst_ns, remark, counts_frames: head >> 16 & 1 != 0 }
    }

    /// The bucket after a frame of so many bytes; none where the frame exceeds the rate. A bucket that was never used is 0, and one
    /// that is further in the future than any honest one is a torn store, taken for a full one.
    #[must_use]
    #[inline(always)]
    pub const fn take(&self, bucket: u64, now_ns: u64, bytes: u64) -> Option<u64> {
        let units = if self.counts_frames { 1 } else { bytes & 0xffff };
        let cost = (self.cost.wrapping_mul(units)) >> COST_SHIFT;
        let due = if bucket <= now_ns || bucket - now_ns > self.burst_ns { now_ns } else { bucket };
        if cost > self.burst_ns || due - now_ns > self.burst_ns - cost { None } else { Some(due + cost) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(band: Band, frames: u64, gap_ns: u64, bytes: u64) -> u64 {
        let (mut bucket, mut passed) = (0, 0);
        for n in 0..frames {
            if let Some(next) = band.take(bucket, 1_000 + n * gap_ns, bytes) {
                bucket = next;
                passed += 1;
            }
        }
        passed
    }

    #[test]
    fn a_band_lets_its_rate_through() {
        // 10 s at 2,000/s, 1,000/s let through: a tenth of a second at once.
        assert_eq!(passed(Band::new(1_000, 0, true, None), 20_000, 500_000, 1), 10_000 + 99);
        // 10 s of 1,500 bytes at 1,750/s are 21,000 kbit/s.
        let bytes = passed(Band::new(10_000, 0, false, None), 17_500, 571_428, 1_500) * 1_500;
        assert!((12_500_000..12_650_000).contains(&bytes), "{bytes}");
        assert_eq!(passed(Band::new(5, 3, true, None), 1_000, 1, 1), 3);
        assert_eq!(passed(Band::new(0, 0, true, None), 1_000, 1, 1), 0);
        // A full frame passes the slowest.
        assert_eq!(passed(Band::new(1, 1, false, None), 3, 1, 1_518), 2);
    }

    #[test]
    fn bands_survive_packing() {
        for remark in [None, Some(0), Some(3)] {
            for counts_frames in [false, true] {
                let band = Band::new(77, 8, counts_frames, remark);
                assert_eq!(Band::unpack(band.pack()), band);
            }
        }
    }

    #[test]
    fn each_tables_remark_is_its_own() {
        let remarks = remark_of(0, 1) | remark_of(3, 0) | remark_of(6, 200) | remark_of(7, 2);
        assert_eq!([0, 1, 3, 6, 7].map(|table| remark_in(remarks, table)), [1, 0, 0, 3, 2]);
    }

    #[test]
    fn a_torn_store_is_no_ban() {
        let band = Band::new(1_000, 10, true, None);
        let now = 1 << 40;
        assert!(band.take(now + (1 << 32), now, 60).is_some());
        assert_eq!(band.take(now + 10_000_000, now, 60), None, "an empty bucket is no torn one");
    }
}
