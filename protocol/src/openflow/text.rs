//! Texts of a fixed length.

use std::borrow::Cow;
use std::fmt;

/// A text in `N` bytes, filled up with NUL. What comes from a peer is kept as it came.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Text<const N: usize>([u8; N]);

impl<const N: usize> Text<N> {
    /// The beginning of `text` that leaves room for a NUL.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let fits = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end < N).last();
        let mut bytes = [0; N];
        for (to, from) in bytes.iter_mut().zip(text.bytes().take(fits.unwrap_or(0))) {
            *to = from;
        }
        Self(bytes)
    }

    pub(super) fn of_bytes(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8; N] {
        &self.0
    }

    /// Up to the first NUL; what is no UTF-8 is replaced.
    #[must_use]
    pub fn as_str(&self) -> Cow<'_, str> {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(N);
        String::from_utf8_lossy(self.0.get(..end).unwrap_or_default())
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_ends_with_nul_between_characters() {
        assert_eq!(Text::<4>::new("abcdef").as_str(), "abc");
        assert_eq!(Text::<4>::new("abé").bytes(), b"ab\0\0");
        assert_eq!(Text::<4>::new("").as_str(), "");
        assert_eq!(Text::of_bytes(*b"\xffbcd").as_str(), "\u{fffd}bcd");
    }
}
