//! What power cuts come to, and how a test tells of them.

use crate::Syncs;

/// Counts over all rounds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Promises that were given.
    pub acked: u64,
    /// Of them, not found afterwards.
    pub lost: u64,
    /// Found twice.
    pub duplicated: u64,
    /// Bytes that nobody wrote, numbers used twice, chains that do not hold: and nothing was said of it.
    pub undetected_corruptions: u64,
    /// Damage that was reported where there was none.
    pub false_alarms: u64,
    /// How often the power failed.
    pub power_cuts: u64,
    /// Bits that were flipped besides.
    pub flips: u64,
}

impl Tally {
    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        self.acked += other.acked;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.undetected_corruptions += other.undetected_corruptions;
        self.false_alarms += other.false_alarms;
        self.power_cuts += other.power_cuts;
        self.flips += other.flips;
    }
}

/// Runs the rounds with syncs and without: `run` takes which, a seed and their number (`rounds`, or `CAREGATE_CHAOS_ROUNDS`). The seed is
/// `CAREGATE_SEED`, or another each time. The last line is for `cargo xtask chaos`.
///
/// # Panics
/// With syncs something was lost, doubled, changed or wrongly reported; or nothing was promised; or without syncs nothing was lost.
#[expect(clippy::print_stdout, reason = "of tests")]
pub fn prove(part: &str, rounds: u64, run: impl Fn(Syncs, u64, u64) -> Tally) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("CAREGATE_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let rounds = number("CAREGATE_CHAOS_ROUNDS").unwrap_or(rounds);
    println!("CAREGATE_SEED={seed}");
    let (tally, without) = (run(Syncs::Real, seed, rounds), run(Syncs::TakenOut, seed, rounds));
    let Tally { acked, lost, duplicated, undetected_corruptions, false_alarms, power_cuts, flips } = tally;
    println!(
        "chaos: {{\"part\":\"{part}\",\"acked\":{acked},\"lost\":{lost},\"duplicated\":{duplicated},\
         \"undetected_corruptions\":{undetected_corruptions},\"power_cuts\":{power_cuts},\"flips\":{flips},\
         \"lost_without_sync\":{}}}",
        without.lost
    );
    assert_eq!((lost, duplicated, undetected_corruptions, false_alarms), (0, 0, 0, 0), "{tally:?}");
    assert!(acked > 0 && without.lost > 0, "the test proves nothing: {tally:?}, {without:?}");
}
