//! The seed in shares: any `threshold` of them make it again, fewer say nothing about it (Shamir, "How to share a secret", 1979).
//!
//! ```text
//!   0         8         9       10          14         15      16        48        56
//!   +---------+---------+-------+-----------+----------+-------+---------+---------+
//!   | CGSHARE1| reserved| index | split     | threshold| (0)   | share   | check   |
//!   | 8       | 1       | 1     | 4         | 1        | 1     | 32      | 8       |
//!   +---------+---------+-------+-----------+----------+-------+---------+---------+
//! ```
//! Each byte of the seed is the value at 0 of a polynomial of its own over GF(2^8) (modulus x^8 + x^4 + x^3 + x + 1, as in AES) of degree
//! `threshold` − 1, whose other coefficients are random; a share has its values at `index`, from 1. `split` is random, the same in all
//! shares of one splitting. `check` is the beginning of Keccak-256 over "caregate seed check" and the seed: it tells a wrong share, and of
//! 256 random bits it says nothing that helps to guess them. Arithmetic takes the same time whatever the values are.

use ring::rand::{SecureRandom as _, SystemRandom};
use thiserror::Error;
use zeroize::Zeroizing;

use super::PatientSeed;
use crate::verify::keccak256;

const MAGIC: &[u8; 8] = b"CGSHARE1";
/// Length of a share.
pub const SHARE_BYTES: usize = 56;
/// Most shares: more people than keep a secret.
pub const SHARES_MAX: u8 = 16;

/// One share. Wiped from memory when dropped.
#[derive(Clone)]
pub struct Share {
    split: [u8; 4],
    threshold: u8,
    index: u8,
    values: Zeroizing<[u8; 32]>,
    check: [u8; 8],
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Share({} of those of which {} are needed)", self.index, self.threshold)
    }
}

/// Why there are no shares, or no seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ShareError {
    /// A threshold of 2 to as many shares as there are, 16 at most.
    #[error("{threshold} of {shares} can't be: 2 or more are needed, of {SHARES_MAX} at most")]
    Split {
        /// How many would be needed.
        threshold: u8,
        /// Of how many.
        shares: u8,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// Not the bytes of a share.
    #[error("not a share of a wallet")]
    Form,
    /// Shares of different splittings.
    #[error("the shares are not of one splitting")]
    Mixed,
    /// The same share twice.
    #[error("share {0} is there twice")]
    Twice(u8),
    /// Fewer than are needed.
    #[error("{has} shares, {needed} are needed")]
    TooFew {
        /// How many there are.
        has: usize,
        /// How many it takes.
        needed: u8,
    },
    /// One of them was changed.
    #[error("the shares make no seed: one of them was changed")]
    Changed,
}

/// The product in GF(2^8).
fn times(a: u8, b: u8) -> u8 {
    let (mut a, mut product) = (a, 0);
    for bit in 0..8 {
        product ^= a & 0_u8.wrapping_sub(b >> bit & 1);
        a = a << 1 ^ (0x1b & 0_u8.wrapping_sub(a >> 7));
    }
    product
}

/// The inverse in GF(2^8): the 254th power; 0 for 0.
fn inverse(a: u8) -> u8 {
    let (mut power, mut out) = (a, 1);
    for _ in 1..8 {
        power = times(power, power);
        out = times(out, power);
    }
    out
}

fn check_of(seed: &[u8; 32]) -> [u8; 8] {
    let hash = keccak256(&[b"caregate seed check", seed]);
    let mut check = [0; 8];
    check.copy_from_slice(&hash[..8]);
    check
}

/// Splits a seed.
///
/// # Errors
/// [`ShareError::Split`], [`ShareError::Random`].
pub fn split(seed: &PatientSeed, threshold: u8, shares: u8) -> Result<Vec<Share>, ShareError> {
    if threshold < 2 || threshold > shares || shares > SHARES_MAX {
        return Err(ShareError::Split { threshold, shares });
    }
    let random = |bytes: &mut [u8]| SystemRandom::new().fill(bytes).map_err(|_source| ShareError::Random);
    let mut split = [0; 4];
    random(&mut split)?;
    // Of each byte of the seed the coefficients from x on.
    let mut above = Zeroizing::new(vec![[0; 32]; usize::from(threshold) - 1]);
    above.iter_mut().try_for_each(|coefficients| random(coefficients))?;
    let share = |index: u8| {
        let mut values = Zeroizing::new([0; 32]);
        for (at, value) in values.iter_mut().enumerate() {
            // Horner's rule, from the highest power down.
            let higher = above.iter().rev().fold(0, |sum, coefficients| times(sum, index) ^ coefficients[at]);
            *value = times(higher, index) ^ seed.as_bytes()[at];
        }
        Share { split, threshold, index, values, check: check_of(seed.as_bytes()) }
    };
    Ok((1..=shares).map(share).collect())
}

/// The seed of which these are shares. More than are needed must fit as well.
///
/// # Errors
/// [`ShareError`].
pub fn combine(shares: &[Share]) -> Result<PatientSeed, ShareError> {
    let first = shares.first().ok_or(ShareError::TooFew { has: 0, needed: 2 })?;
    for (nth, one) in shares.iter().enumerate() {
        if (one.split, one.threshold, one.check) != (first.split, first.threshold, first.check) {
            return Err(ShareError::Mixed);
        }
        if shares[..nth].iter().any(|before| before.index == one.index) {
            return Err(ShareError::Twice(one.index));
        }
    }
    let needed = usize::from(first.threshold);
    if shares.len() < needed {
        return Err(ShareError::TooFew { has: shares.len(), needed: first.threshold });
    }
    // Each run of as many as are needed makes the seed, so that each share is looked at.
    for some in shares.windows(needed) {
        let seed = at_zero(some);
        if check_of(&seed) != first.check {
            return Err(ShareError::Changed);
        }
    }
    Ok(PatientSeed::from_bytes(*at_zero(&shares[..needed])))
}

/// Lagrange's interpolation at 0; subtraction is addition here.
fn at_zero(shares: &[Share]) -> Zeroizing<[u8; 32]> {
    let mut seed = Zeroizing::new([0; 32]);
    for one in shares {
        let others = shares.iter().filter(|other| other.index != one.index);
        let weight = others
            .fold(1, |product, other| times(product, times(other.index, inverse(other.index ^ one.index))));
        seed.iter_mut().zip(one.values.iter()).for_each(|(sum, value)| *sum ^= times(*value, weight));
    }
    seed
}

impl Share {
    /// Its place among the shares, from 1.
    #[must_use]
    pub fn index(&self) -> u8 {
        self.index
    }

    /// How many it takes.
    #[must_use]
    pub fn threshold(&self) -> u8 {
        self.threshold
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<[u8; SHARE_BYTES]> {
        let mut out = Zeroizing::new([0; SHARE_BYTES]);
        out[..8].copy_from_slice(MAGIC);
        out[9] = self.index;
        out[10..14].copy_from_slice(&self.split);
        out[14] = self.threshold;
        out[16..48].copy_from_slice(self.values.as_slice());
        out[48..].copy_from_slice(&self.check);
        out
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`ShareError::Form`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ShareError> {
        let bytes: &[u8; SHARE_BYTES] = bytes.try_into().map_err(|_source| ShareError::Form)?;
        let (index, threshold) = (bytes[9], bytes[14]);
        let is_one = bytes[..8] == *MAGIC && bytes[8] == 0 && bytes[15] == 0;
        if !is_one || !(1..=SHARES_MAX).contains(&index) || !(2..=SHARES_MAX).contains(&threshold) {
            return Err(ShareError::Form);
        }
        let (mut split, mut check, mut values) = ([0; 4], [0; 8], Zeroizing::new([0; 32]));
        split.copy_from_slice(&bytes[10..14]);
        values.copy_from_slice(&bytes[16..48]);
        check.copy_from_slice(&bytes[48..]);
        Ok(Self { split, threshold, index, values, check })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seed() -> PatientSeed {
        PatientSeed::from_bytes(std::array::from_fn(|at| u8::try_from(at * 7 % 251).unwrap()))
    }

    fn is_seed(combined: Result<PatientSeed, ShareError>) -> bool {
        combined.is_ok_and(|combined| combined.as_bytes() == seed().as_bytes())
    }

    /// FIPS 197, §4.2 and §4.2.1; and that each inverse is one.
    #[test]
    fn the_field_is_aess() {
        assert_eq!((times(0x57, 0x83), times(0x57, 0x13), times(0x57, 0x02)), (0xc1, 0xfe, 0xae));
        assert_eq!(inverse(0x53), 0xca);
        assert!((1..=255).all(|a| times(a, inverse(a)) == 1) && inverse(0) == 0);
    }

    /// Shares 1 and 3 that another program made of the bytes 0 to 31: Shamir's rule and Keccak written down anew, in Python.
    #[test]
    fn shares_of_another_program_make_the_seed() {
        let two = include_bytes!("../../../fuzz/seeds/wallet_share/two");
        let shares: Vec<_> = two.chunks(SHARE_BYTES).map(|bytes| Share::decode(bytes).unwrap()).collect();
        let seed: [u8; 32] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        assert_eq!(combine(&shares).unwrap().as_bytes(), &seed);
    }

    #[test]
    fn any_three_of_five_make_it_and_no_two_do() {
        let shares = split(&seed(), 3, 5).unwrap();
        for chosen in 0..32_u32 {
            let some: Vec<_> =
                shares.iter().filter(|one| chosen >> (one.index - 1) & 1 == 1).cloned().collect();
            assert_eq!(is_seed(combine(&some)), some.len() >= 3, "{some:?}");
        }
        let two = combine(&shares[..2]).map(|_| ());
        assert_eq!(two, Err(ShareError::TooFew { has: 2, needed: 3 }));
        // What two interpolate to is not the seed, though the check would know it.
        assert_ne!(at_zero(&shares[..2]).as_slice(), seed().as_bytes());
    }

    #[test]
    fn shares_of_the_same_seed_differ_from_splitting_to_splitting() {
        let [one, two] = [(); 2].map(|()| split(&seed(), 2, 2).unwrap());
        assert_ne!(one[0].values, two[0].values);
        assert_eq!(combine(&[one[0].clone(), two[1].clone()]).map(|_| ()), Err(ShareError::Mixed));
        assert_eq!(combine(&[one[0].clone(), one[0].clone()]).map(|_| ()), Err(ShareError::Twice(1)));
        assert!(is_seed(combine(&one)) && is_seed(combine(&two)));
    }

    #[test]
    fn what_can_not_be_split_is_refused() {
        for (threshold, shares) in [(0, 3), (1, 3), (4, 3), (2, 17)] {
            let refused = split(&seed(), threshold, shares).map(|_| ()).unwrap_err();
            assert_eq!(refused, ShareError::Split { threshold, shares });
        }
        assert_eq!(combine(&[]).map(|_| ()), Err(ShareError::TooFew { has: 0, needed: 2 }));
    }

    proptest! {
        /// A share that was changed in any bit is told, also where it is one more than is needed.
        #[test]
        fn a_changed_share_makes_no_seed(which in 0..4_usize, at in 0..SHARE_BYTES, bit in 0..8_u8) {
            let mut shares = split(&seed(), 3, 4).unwrap();
            let mut bytes = shares[which].encode();
            bytes[at] ^= 1 << bit;
            if let Ok(changed) = Share::decode(bytes.as_slice()) {
                shares[which] = changed;
                prop_assert!(!is_seed(combine(&shares)));
            }
        }

        #[test]
        fn shares_are_read_as_they_were_written(bytes: [u8; 32], threshold in 2..=6_u8) {
            let seed = PatientSeed::from_bytes(bytes);
            let shares = split(&seed, threshold, 6).unwrap();
            let read: Vec<_> = shares.iter().map(|one| Share::decode(one.encode().as_slice()).unwrap()).collect();
            prop_assert_eq!(*combine(&read).unwrap().as_bytes(), bytes);
            prop_assert_eq!(Share::decode(&shares[0].encode()[1..]).map(|_| ()), Err(ShareError::Form));
        }
    }
}
