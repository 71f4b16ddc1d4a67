//! Rounding from floating point to whole numbers, saturating, in the one place where that cast is meant.

/// The nearest step of a 16-bit converter; [`i16::MIN`] is kept for "missing".
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "clamped to the range first; NaN becomes 0")]
pub fn to_i16(value: f64) -> i16 {
    value.round().clamp(f64::from(-i16::MAX), f64::from(i16::MAX)) as i16
}

/// The nearest whole number, saturating; NaN becomes 0.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the cast saturates, which is what is asked for")]
pub fn to_i64(value: f64) -> i64 {
    value.round() as i64
}

/// The nearest whole number from 0 up, saturating; NaN becomes 0.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, which is what is asked for"
)]
pub fn to_u64(value: f64) -> u64 {
    value.round() as u64
}
