//! A strict cursor over CBOR (RFC 8949) for what devices send: minicbor finds the items, this names what was wrong.
//!
//! Maps and arrays may be of definite or indefinite length, since small encoders write either. Strings are definite.

use minicbor::Decoder;
use minicbor::data::Type;
use minicbor::decode::Error;

use super::DecodeError;

/// Most entries of one map: three times what any format here defines.
pub(super) const MAP_ENTRIES_MAX: usize = 32;
/// Tag of a decimal fraction (RFC 8949 §3.4.4), which SenML allows for numbers (RFC 8428 §6).
const DECIMAL_FRACTION: u64 = 4;
/// Largest power of ten of a decimal fraction, either way; no quantity needs more.
const EXPONENT_MAX: i64 = 64;

pub(super) struct Cursor<'b> {
    decoder: Decoder<'b>,
}

/// How many items of a map or array are left.
pub(super) enum Left {
    Known(u64),
    UntilBreak,
}

impl<'b> Cursor<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { decoder: Decoder::new(bytes) }
    }

    pub(super) fn at(&self) -> usize {
        self.decoder.position()
    }

    fn wrong(&self, source: &Error, key: &'static str, expected: &'static str, at: usize) -> DecodeError {
        if source.is_end_of_input() {
            return DecodeError::Truncated { at: self.decoder.input().len() };
        }
        DecodeError::Type { key, expected, at: Some(at) }
    }

    /// Starts a map, or an array, where `key` says what it is.
    pub(super) fn map(&mut self, key: &'static str) -> Result<Left, DecodeError> {
        let at = self.at();
        match self.decoder.map() {
            Ok(length) => Ok(length.map_or(Left::UntilBreak, Left::Known)),
            Err(source) => Err(self.wrong(&source, key, "a map", at)),
        }
    }

    pub(super) fn array(&mut self, key: &'static str) -> Result<Left, DecodeError> {
        let at = self.at();
        match self.decoder.array() {
            Ok(length) => Ok(length.map_or(Left::UntilBreak, Left::Known)),
            Err(source) => Err(self.wrong(&source, key, "an array", at)),
        }
    }

    /// Whether another item follows in this map or array; takes the break of one of indefinite length.
    pub(super) fn more(&mut self, left: &mut Left) -> Result<bool, DecodeError> {
        match left {
            Left::Known(0) => Ok(false),
            Left::Known(n) => {
                *n -= 1;
                Ok(true)
            }
            Left::UntilBreak => match self.decoder.input().get(self.at()) {
                Some(0xff) => {
                    self.decoder.set_position(self.at() + 1);
                    Ok(false)
                }
                Some(_) => Ok(true),
                None => Err(DecodeError::Truncated { at: self.at() }),
            },
        }
    }

    pub(super) fn text(&mut self, key: &'static str) -> Result<&'b str, DecodeError> {
        let at = self.at();
        self.decoder.str().map_err(|source| self.wrong(&source, key, "text", at))
    }

    pub(super) fn bytes(&mut self, key: &'static str) -> Result<&'b [u8], DecodeError> {
        let at = self.at();
        self.decoder.bytes().map_err(|source| self.wrong(&source, key, "a byte string", at))
    }

    pub(super) fn unsigned(&mut self, key: &'static str) -> Result<u64, DecodeError> {
        let at = self.at();
        self.decoder.u64().map_err(|source| self.wrong(&source, key, "a whole number from 0", at))
    }

    pub(super) fn integer(&mut self, key: &'static str) -> Result<i64, DecodeError> {
        let at = self.at();
        self.decoder.i64().map_err(|source| self.wrong(&source, key, "a whole number", at))
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self.decoder.datatype(), Ok(Type::String | Type::StringIndef))
    }

    /// An integer, a float of any width or a decimal fraction, as a finite number.
    pub(super) fn number(&mut self, key: &'static str) -> Result<f64, DecodeError> {
        const EXPECTED: &str = "a number";
        let at = self.at();
        let number = match self.decoder.input().get(at) {
            Some(0x00..=0x3b) => match self.decoder.int() {
                #[expect(clippy::cast_precision_loss, reason = "a reading has fewer digits than a double")]
                Ok(n) => i128::from(n) as f64,
                Err(source) => return Err(self.wrong(&source, key, EXPECTED, at)),
            },
            Some(0xf9) => self.half(at)?,
            Some(0xfa..=0xfb) => {
                self.decoder.f64().map_err(|source| self.wrong(&source, key, EXPECTED, at))?
            }
            Some(0xc4) => self.decimal(key, at)?,
            Some(_) => return Err(DecodeError::Type { key, expected: EXPECTED, at: Some(at) }),
            None => return Err(DecodeError::Truncated { at }),
        };
        if number.is_finite() { Ok(number) } else { Err(DecodeError::NotFinite { key }) }
    }

    /// A half-precision float (RFC 8949 appendix D).
    fn half(&mut self, at: usize) -> Result<f64, DecodeError> {
        let Some(&[high, low]) = self.decoder.input().get(at + 1..at + 3) else {
            return Err(DecodeError::Truncated { at: self.decoder.input().len() });
        };
        self.decoder.set_position(at + 3);
        let bits = u16::from_be_bytes([high, low]);
        let (exponent, mantissa) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
        let magnitude = match exponent {
            0 => mantissa * 2f64.powi(-24),
            31 => f64::INFINITY,
            _ => (mantissa + 1024.0) * 2f64.powi(exponent - 25),
        };
        Ok(if bits >> 15 == 1 { -magnitude } else { magnitude })
    }

    fn decimal(&mut self, key: &'static str, at: usize) -> Result<f64, DecodeError> {
        let wrong =
            DecodeError::Type { key, expected: "a decimal fraction of two whole numbers", at: Some(at) };
        let parts = self.decoder.tag().and_then(|tag| {
            Ok((tag.as_u64(), self.decoder.array()?, self.decoder.i64()?, self.decoder.i64()?))
        });
        match parts {
            Ok((DECIMAL_FRACTION, Some(2), exponent, mantissa))
                if (-EXPONENT_MAX..=EXPONENT_MAX).contains(&exponent) =>
            {
                // Rust's parser rounds correctly; mantissa * 10^exponent would not.
                format!("{mantissa}e{exponent}").parse().map_err(|_unreachable| wrong)
            }
            Err(source) if source.is_end_of_input() => {
                Err(DecodeError::Truncated { at: self.decoder.input().len() })
            }
            Ok(_) | Err(_) => Err(wrong),
        }
    }

    /// Skips one item of a key that nobody defined.
    pub(super) fn skip(&mut self) -> Result<(), DecodeError> {
        let at = self.at();
        self.decoder.skip().map_err(|source| self.wrong(&source, "an unknown key", "well-formed CBOR", at))
    }

    pub(super) fn finish(&self) -> Result<(), DecodeError> {
        match self.decoder.input().len() - self.at() {
            0 => Ok(()),
            extra => Err(DecodeError::Trailing { at: self.at(), extra }),
        }
    }
}
