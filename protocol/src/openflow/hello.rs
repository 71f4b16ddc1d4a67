//! Hello and the bitmap of versions (§7.5.1), and how both sides agree on one (§6.3.1).

use super::VERSION;
use super::message::Fault;
use crate::wire::Reader;

/// `OFPHET_VERSIONBITMAP`, the only element that 1.3 has.
const ELEMENT_VERSION_BITMAP: u16 = 1;

/// Bytes of an element's type and length, which its length includes.
const ELEMENT_HEADER_BYTES: u16 = 4;

/// First version whose hello has elements; before it the body means nothing.
const VERSION_WITH_ELEMENTS: u8 = 4;

/// A version is one byte, so a bitmap has at most 256 bits.
const WORDS: usize = 8;

/// A set of protocol versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Versions([u32; WORDS]);

impl Versions {
    /// The set of these versions.
    #[must_use]
    pub fn of(versions: &[u8]) -> Self {
        let mut words = [0; WORDS];
        for version in versions {
            words[usize::from(version / 32)] |= 1 << (version % 32);
        }
        Self(words)
    }

    /// True where `version` is in the set.
    #[must_use]
    pub fn contains(&self, version: u8) -> bool {
        self.0[usize::from(version / 32)] & (1 << (version % 32)) != 0
    }

    fn highest_common(&self, other: &Self) -> Option<u8> {
        (0..=u8::MAX).rev().find(|version| self.contains(*version) && other.contains(*version))
    }
}

/// `struct ofp_hello`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// The header's version: the highest that the sender speaks.
    pub version: u8,
    /// The bitmap element, where the hello has one.
    pub versions: Option<Versions>,
}

impl Hello {
    /// Ours: 1.3 and nothing else.
    #[must_use]
    pub fn ours() -> Self {
        Self { version: VERSION, versions: Some(Versions::of(&[VERSION])) }
    }

    /// The version that follows from what each side said (§6.3.1). Whether we speak it is the caller's to check.
    #[must_use]
    pub fn negotiate(&self, peer: &Self) -> u8 {
        let common = match (&self.versions, &peer.versions) {
            (Some(ours), Some(theirs)) => ours.highest_common(theirs),
            (Some(_) | None, _) => None,
        };
        common.unwrap_or_else(|| self.version.min(peer.version))
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let Some(Versions(words)) = &self.versions else { return };
        let used = words.iter().rposition(|word| *word != 0).map_or(1, |last| last + 1);
        let words = &words[..used];
        let length = words.iter().fold(ELEMENT_HEADER_BYTES, |length, _word| length + 4);
        out.extend(ELEMENT_VERSION_BITMAP.to_be_bytes());
        out.extend(length.to_be_bytes());
        out.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        out.extend(std::iter::repeat_n(0, padding(length)));
    }

    pub(super) fn decode(version: u8, reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let body = reader.rest();
        let mut hello = Self { version, versions: None };
        if version < VERSION_WITH_ELEMENTS {
            return Ok(hello);
        }
        let mut elements = Reader::new(body);
        while elements.finish().is_err() {
            let kind = elements.u16("hello element type")?;
            let length = elements.u16("hello element length")?;
            let fault = Fault::Value { field: "hello element length", value: length.into() };
            let content_bytes = length.checked_sub(ELEMENT_HEADER_BYTES).ok_or(fault)?;
            let content = elements.take("hello element", content_bytes.into())?;
            elements.take("hello element padding", padding(length))?;
            if kind == ELEMENT_VERSION_BITMAP {
                if hello.versions.is_some() {
                    return Err(Fault::Value { field: "second hello element of type", value: kind.into() });
                }
                hello.versions = Some(decode_bitmap(content)?);
            }
        }
        Ok(hello)
    }
}

/// Zeroes after an element of `length` bytes, up to the next multiple of 8.
fn padding(length: u16) -> usize {
    usize::from(length).next_multiple_of(8) - usize::from(length)
}

fn decode_bitmap(content: &[u8]) -> Result<Versions, Fault> {
    let mut reader = Reader::new(content);
    let mut words = [0; WORDS];
    for word in &mut words {
        if reader.finish().is_ok() {
            break;
        }
        *word = reader.u32("version bitmap")?;
    }
    reader.finish()?;
    Ok(Versions(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(version: u8, versions: Option<&[u8]>) -> Hello {
        Hello { version, versions: versions.map(Versions::of) }
    }

    #[test]
    fn highest_common_bit_wins() {
        let both = hello(5, Some(&[1, 4, 5]));
        assert_eq!(both.negotiate(&hello(6, Some(&[1, 4, 6]))), 4);
        assert_eq!(Hello::ours().negotiate(&hello(6, Some(&[1, 4, 6]))), 4);
    }

    #[test]
    fn without_both_bitmaps_the_smaller_version_wins() {
        assert_eq!(Hello::ours().negotiate(&hello(1, None)), 1);
        assert_eq!(Hello::ours().negotiate(&hello(6, None)), 4);
        assert_eq!(hello(4, None).negotiate(&hello(3, Some(&[3, 4]))), 3);
    }

    #[test]
    fn without_a_common_bit_the_smaller_version_wins() {
        assert_eq!(Hello::ours().negotiate(&hello(1, Some(&[1]))), 1);
        assert_eq!(Hello::ours().negotiate(&hello(6, Some(&[5, 6]))), 4);
    }

    #[test]
    fn a_set_holds_each_version() {
        let all: Vec<u8> = (0..=255).collect();
        assert!(all.iter().all(|version| Versions::of(&all).contains(*version)));
        assert!(all.iter().all(|version| Versions::of(&[*version]).contains(*version)));
        assert!(!Versions::of(&[4]).contains(36));
    }
}
