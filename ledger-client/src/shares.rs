//! A secret of 32 bytes in shares: any `threshold` of them make it again, fewer say nothing about it (Shamir, "How to share a secret",
//! 1979). The wallet's seed and a gateway's patient root are kept so (ADR 28).
//!
//! ```text
//!   0         8         9       10          14         15      16        48        56          72
//!   +---------+---------+-------+-----------+----------+-------+---------+---------+-----------+
//!   | CGSHARE1| reserved| index | split     | threshold| (0)   | share   | check   |           |   of a wallet's seed
//!   | CGROOTS1| reserved| index | split     | threshold| (0)   | share   | check   | patient   |   of a patient's root
//!   | 8       | 1       | 1     | 4         | 1        | 1     | 32      | 8       | 16        |
//!   +---------+---------+-------+-----------+----------+-------+---------+---------+-----------+
//! ```
//! Each byte of the secret is the value at 0 of a polynomial of its own over GF(2^8) (modulus x^8 + x^4 + x^3 + x + 1, as in AES) of degree
//! `threshold` − 1, whose other coefficients are random; a share has its values at `index`, from 1. `split` is random, the same in all
//! shares of one splitting. `check` is the beginning of Keccak-256 over "caregate seed check" and the seed, or
//! "caregate root check", patient and root: it tells a wrong share, and of
//! 256 random bits it says nothing that helps to guess them. Arithmetic takes the same time whatever the values are.

use caregate_protocol::id::PatientId;
use ring::rand::{SecureRandom as _, SystemRandom};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::verify::keccak256;

const SEED_MAGIC: &[u8; 8] = b"CGSHARE1";
const ROOT_MAGIC: &[u8; 8] = b"CGROOTS1";
/// Length of a share of a wallet's seed.
pub const SHARE_BYTES: usize = 56;
/// Length of a share of a patient's root.
pub const ROOT_SHARE_BYTES: usize = SHARE_BYTES + 16;
/// Most shares: more people than keep a secret.
pub const SHARES_MAX: u8 = 16;

/// Whose secret it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// The seed of a patient's wallet.
    Seed,
    /// A gateway's root of this patient.
    Root(PatientId),
}

impl Of {
    fn check(self, secret: &[u8; 32]) -> [u8; 8] {
        let hash = match self {
            Self::Seed => keccak256(&[b"caregate seed check", secret]),
            Self::Root(patient) => keccak256(&[b"caregate root check", &patient.0, secret]),
        };
        let mut check = [0; 8];
        check.copy_from_slice(&hash[..8]);
        check
    }
}

/// One share. Wiped from memory when dropped.
#[derive(Clone)]
pub struct Share {
    of: Of,
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
    #[error("not a share")]
    Form,
    /// Shares of one thing where those of another are wanted.
    #[error(
        "a share of something else: of a wallet where a patient's root is wanted, of the root of another patient, or the reverse"
    )]
    Other,
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
    #[error("the shares make no secret: one of them was changed")]
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

/// Splits a secret.
///
/// # Errors
/// [`ShareError::Split`], [`ShareError::Random`].
pub fn split(of: Of, secret: &[u8; 32], threshold: u8, shares: u8) -> Result<Vec<Share>, ShareError> {
    if threshold < 2 || threshold > shares || shares > SHARES_MAX {
        return Err(ShareError::Split { threshold, shares });
    }
    let random = |bytes: &mut [u8]| SystemRandom::new().fill(bytes).map_err(|_source| ShareError::Random);
    let mut split = [0; 4];
    random(&mut split)?;
    // Of each byte of the secret the coefficients from x on.
    let mut above = Zeroizing::new(vec![[0; 32]; usize::from(threshold) - 1]);
    above.iter_mut().try_for_each(|coefficients| random(coefficients))?;
    let share = |index: u8| {
        let mut values = Zeroizing::new([0; 32]);
        for (at, value) in values.iter_mut().enumerate() {
            // Horner's rule, from the highest power down.
            let higher = above.iter().rev().fold(0, |sum, coefficients| times(sum, index) ^ coefficients[at]);
            *value = times(higher, index) ^ secret[at];
        }
        Share { of, split, threshold, index, values, check: of.check(secret) }
    };
    Ok((1..=shares).map(share).collect())
}

/// The secret of which these are shares. More than are needed must fit as well.
///
/// # Errors
/// [`ShareError`]; each way in which shares are wrong is one of its own.
pub fn combine(of: Of, shares: &[Share]) -> Result<Zeroizing<[u8; 32]>, ShareError> {
    if shares.iter().any(|share| share.of != of) {
        return Err(ShareError::Other);
    }
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
    // Each run of as many as are needed makes the secret, so that each share is looked at.
    for some in shares.windows(needed) {
        if of.check(&at_zero(some)) != first.check {
            return Err(ShareError::Changed);
        }
    }
    Ok(at_zero(&shares[..needed]))
}

/// Lagrange's interpolation at 0; subtraction is addition here.
fn at_zero(shares: &[Share]) -> Zeroizing<[u8; 32]> {
    let mut secret = Zeroizing::new([0; 32]);
    for one in shares {
        let others = shares.iter().filter(|other| other.index != one.index);
        let weight = others
            .fold(1, |product, other| times(product, times(other.index, inverse(other.index ^ one.index))));
        secret.iter_mut().zip(one.values.iter()).for_each(|(sum, value)| *sum ^= times(*value, weight));
    }
    secret
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

    /// Of what it is a share.
    #[must_use]
    pub fn of(&self) -> Of {
        self.of
    }

    /// Its bytes: [`SHARE_BYTES`] or [`ROOT_SHARE_BYTES`].
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        // With its length at once: a vector that grew would leave a share behind.
        let mut out = Zeroizing::new(Vec::with_capacity(ROOT_SHARE_BYTES));
        out.extend_from_slice(match self.of {
            Of::Seed => SEED_MAGIC,
            Of::Root(_) => ROOT_MAGIC,
        });
        out.extend_from_slice(&[0, self.index]);
        out.extend_from_slice(&self.split);
        out.extend_from_slice(&[self.threshold, 0]);
        out.extend_from_slice(self.values.as_slice());
        out.extend_from_slice(&self.check);
        if let Of::Root(patient) = self.of {
            out.extend_from_slice(&patient.0);
        }
        out
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`ShareError::Form`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ShareError> {
        let (head, patient) = bytes.split_at_checked(SHARE_BYTES).ok_or(ShareError::Form)?;
        let of = if head.starts_with(SEED_MAGIC) && patient.is_empty() {
            Of::Seed
        } else if head.starts_with(ROOT_MAGIC) {
            Of::Root(PatientId(patient.try_into().map_err(|_length| ShareError::Form)?))
        } else {
            return Err(ShareError::Form);
        };
        let (index, threshold) = (head[9], head[14]);
        let is_one = head[8] == 0 && head[15] == 0;
        if !is_one || !(1..=SHARES_MAX).contains(&index) || !(2..=SHARES_MAX).contains(&threshold) {
            return Err(ShareError::Form);
        }
        let (mut split, mut check, mut values) = ([0; 4], [0; 8], Zeroizing::new([0; 32]));
        split.copy_from_slice(&head[10..14]);
        values.copy_from_slice(&head[16..48]);
        check.copy_from_slice(&head[48..]);
        Ok(Self { of, split, threshold, index, values, check })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seed() -> [u8; 32] {
        std::array::from_fn(|at| u8::try_from(at * 7 % 251).unwrap())
    }

    fn split(secret: &[u8; 32], threshold: u8, shares: u8) -> Result<Vec<Share>, ShareError> {
        super::split(Of::Seed, secret, threshold, shares)
    }

    fn combine(shares: &[Share]) -> Result<Zeroizing<[u8; 32]>, ShareError> {
        super::combine(Of::Seed, shares)
    }

    fn is_seed(combined: Result<Zeroizing<[u8; 32]>, ShareError>) -> bool {
        combined.is_ok_and(|combined| *combined == seed())
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
        let two = include_bytes!("../../fuzz/seeds/wallet_share/two");
        let shares: Vec<_> = two.chunks(SHARE_BYTES).map(|bytes| Share::decode(bytes).unwrap()).collect();
        let seed: [u8; 32] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        assert_eq!(*combine(&shares).unwrap(), seed);
        let two = include_bytes!("../../fuzz/seeds/wallet_share/root");
        let shares: Vec<_> =
            two.chunks(ROOT_SHARE_BYTES).map(|bytes| Share::decode(bytes).unwrap()).collect();
        assert_eq!(*super::combine(Of::Root(PatientId([0xa7; 16])), &shares).unwrap(), seed);
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
        assert_ne!(*at_zero(&shares[..2]), seed());
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

    #[test]
    fn a_root_is_of_its_patient_and_no_seed() {
        let (ann, ben) = (PatientId([1; 16]), PatientId([2; 16]));
        let of_ann = super::split(Of::Root(ann), &seed(), 2, 3).unwrap();
        let bytes = of_ann[0].encode();
        assert_eq!((bytes.len(), Share::decode(&bytes).unwrap().of()), (ROOT_SHARE_BYTES, Of::Root(ann)));
        assert_eq!(*super::combine(Of::Root(ann), &of_ann[1..]).unwrap(), seed());
        for wrong in [Of::Root(ben), Of::Seed] {
            assert_eq!(super::combine(wrong, &of_ann).map(|_| ()), Err(ShareError::Other));
        }
        // A share that was made another patient's.
        let renamed = of_ann.iter().map(|share| Share { of: Of::Root(ben), ..share.clone() });
        let renamed: Vec<_> = renamed.collect();
        assert_eq!(super::combine(Of::Root(ben), &renamed).map(|_| ()), Err(ShareError::Changed));
        assert_eq!(Share::decode(&bytes[..SHARE_BYTES]).map(|_| ()), Err(ShareError::Form));
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
            let shares = split(&bytes, threshold, 6).unwrap();
            let read: Vec<_> = shares.iter().map(|one| Share::decode(one.encode().as_slice()).unwrap()).collect();
            prop_assert_eq!(*combine(&read).unwrap(), bytes);
            prop_assert_eq!(Share::decode(&shares[0].encode()[1..]).map(|_| ()), Err(ShareError::Form));
        }
    }
}
