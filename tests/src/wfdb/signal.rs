//! Sample storage (WFDB `signal(5)`), formats 16, 80 and 212, as a pure function of bytes.
//!
//! ```text
//! 16   two bytes, little-endian two's complement
//! 80   one byte, value + 128
//! 212  two samples of 12 bits in three bytes:
//!      byte 0 = a[7..0]   byte 1 = b[11..8] a[11..8]   byte 2 = b[7..0]
//! ```

use thiserror::Error;

/// How samples lie in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// No samples at all: the layout of a variable-layout record.
    Null,
    /// 16-bit.
    F16,
    /// 8-bit offset binary.
    F80,
    /// 12-bit packed in pairs.
    F212,
}

impl Format {
    /// By its number in a header.
    #[must_use]
    pub fn from_number(number: &str) -> Option<Self> {
        match number {
            "0" => Some(Self::Null),
            "16" => Some(Self::F16),
            "80" => Some(Self::F80),
            "212" => Some(Self::F212),
            _ => None,
        }
    }

    /// The stored value that means "no sample": the lowest that the format has.
    #[must_use]
    pub fn missing(self) -> i16 {
        match self {
            Self::Null | Self::F16 => i16::MIN,
            Self::F80 => -128,
            Self::F212 => -2048,
        }
    }

    /// Bytes that hold this many samples.
    #[must_use]
    pub fn bytes(self, samples: usize) -> usize {
        match self {
            Self::Null => 0,
            Self::F16 => samples.saturating_mul(2),
            Self::F80 => samples,
            Self::F212 => samples.saturating_mul(3).div_ceil(2),
        }
    }

    /// Whole samples in this many bytes.
    #[must_use]
    pub fn samples(self, bytes: usize) -> usize {
        match self {
            Self::Null => 0,
            Self::F16 => bytes / 2,
            Self::F80 => bytes,
            Self::F212 => bytes / 3 * 2 + usize::from(bytes % 3 == 2),
        }
    }
}

/// Why samples can't be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SignalError {
    /// The file ends before the last sample.
    #[error("{samples} samples need {needed} bytes, there are {found}")]
    Truncated {
        /// How many were asked for.
        samples: usize,
        /// The bytes that those take.
        needed: usize,
        /// The bytes that there are.
        found: usize,
    },
    /// A layout has no samples.
    #[error("format 0 holds no samples")]
    Null,
}

/// The first `count` stored samples, unchanged: the format's [`Format::missing`] is still in them.
pub fn decode_signal(format: Format, bytes: &[u8], count: usize) -> Result<Vec<i16>, SignalError> {
    let needed = format.bytes(count);
    let Some(bytes) = bytes.get(..needed) else {
        return Err(SignalError::Truncated { samples: count, needed, found: bytes.len() });
    };
    match format {
        Format::Null => Err(SignalError::Null),
        Format::F16 => {
            let (pairs, _rest) = bytes.as_chunks::<2>();
            Ok(pairs.iter().map(|pair| i16::from_le_bytes(*pair)).collect())
        }
        Format::F80 => Ok(bytes.iter().map(|byte| i16::from(*byte) - 128).collect()),
        Format::F212 => {
            let mut samples = Vec::with_capacity(count + 1);
            for group in bytes.chunks(3) {
                let at = |i: usize| u16::from(group.get(i).copied().unwrap_or(0));
                samples.push(sign_extend_12(at(0) | (at(1) & 0x0f) << 8));
                samples.push(sign_extend_12(at(2) | (at(1) & 0xf0) << 4));
            }
            samples.truncate(count);
            Ok(samples)
        }
    }
}

fn sign_extend_12(value: u16) -> i16 {
    (value << 4).cast_signed() >> 4
}

/// The header's checksum over stored samples: their sum modulo 2^16.
#[must_use]
pub fn checksum(samples: impl Iterator<Item = i16>) -> u16 {
    samples.fold(0, |sum: u16, sample| sum.wrapping_add(sample.cast_unsigned()))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Encodes as the format has it; the inverse of the decoder, for tests that build files.
    pub(crate) fn encode(format: Format, samples: &[i16]) -> Vec<u8> {
        let byte = |value: i16| value.to_le_bytes()[0];
        match format {
            Format::Null => Vec::new(),
            Format::F16 => samples.iter().flat_map(|s| s.to_le_bytes()).collect(),
            Format::F80 => samples.iter().map(|s| byte(s + 128)).collect(),
            Format::F212 => {
                let mut bytes = Vec::new();
                for pair in samples.chunks(2) {
                    let (a, b) = (pair[0], pair.get(1).copied().unwrap_or(0));
                    bytes.extend([byte(a), byte((a >> 8) & 0x0f | ((b >> 4) & 0xf0))]);
                    if pair.len() == 2 {
                        bytes.push(byte(b));
                    }
                }
                bytes
            }
        }
    }

    #[test]
    fn golden_bytes() {
        // MIT-BIH record 100 begins with e3 33 f3: MLII 995, V5 1011.
        assert_eq!(decode_signal(Format::F212, &[0xe3, 0x33, 0xf3], 2).unwrap(), [995, 1011]);
        assert_eq!(decode_signal(Format::F212, &[0x00, 0x08, 0x00], 1).unwrap(), [-2048]);
        assert_eq!(decode_signal(Format::F80, &[0, 127, 128, 255], 4).unwrap(), [-128, -1, 0, 127]);
        assert_eq!(decode_signal(Format::F16, &[0x00, 0x80, 0xff, 0xff], 2).unwrap(), [i16::MIN, -1]);
    }

    #[test]
    fn a_short_file_is_named() {
        let error = decode_signal(Format::F212, &[1, 2, 3], 3).unwrap_err();
        assert_eq!(error, SignalError::Truncated { samples: 3, needed: 5, found: 3 });
        assert_eq!(decode_signal(Format::Null, &[], 0), Err(SignalError::Null));
    }

    proptest! {
        #[test]
        fn round_trip(format in prop_oneof![Just(Format::F16), Just(Format::F80), Just(Format::F212)],
                      values in proptest::collection::vec(any::<i16>(), 0..50)) {
            let limit = i32::from(format.missing());
            let samples: Vec<i16> = values.iter()
                .map(|v| i16::try_from(i32::from(*v).rem_euclid(-2 * limit) + limit).unwrap()).collect();
            let bytes = encode(format, &samples);
            prop_assert_eq!(bytes.len(), format.bytes(samples.len()));
            prop_assert_eq!(format.samples(bytes.len()), samples.len());
            prop_assert_eq!(decode_signal(format, &bytes, samples.len()).unwrap(), samples);
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64), count in any::<usize>()) {
            for format in [Format::Null, Format::F16, Format::F80, Format::F212] {
                let _decoded = decode_signal(format, &bytes, count);
            }
        }
    }
}
