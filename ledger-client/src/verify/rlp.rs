//! RLP, Ethereum's encoding of byte strings and lists (Yellow Paper, appendix B), decoded strictly: the shortest form alone is
//! taken, so that each value has one encoding and a hash means one thing. Nothing is copied.

use thiserror::Error;

/// Why bytes are no RLP of the wanted shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RlpError {
    /// An item says that it is longer than what is left.
    #[error("RLP: truncated")]
    Truncated,
    /// Bytes follow the last item.
    #[error("RLP: {0} bytes follow")]
    Trailing(usize),
    /// Not the shortest form.
    #[error("RLP: not the shortest form")]
    NotCanonical,
    /// A list where a byte string belongs, or the other way round.
    #[error("RLP: a list and a byte string are mistaken for one another")]
    Kind,
    /// A byte string of another length than the field has.
    #[error("RLP: {has} bytes where {wanted} belong")]
    Length {
        /// Bytes found.
        has: usize,
        /// Bytes wanted.
        wanted: usize,
    },
    /// A number beyond its type.
    #[error("RLP: the number is too large")]
    Number,
}

/// One item: what it is and its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// A byte string.
    Bytes(&'a [u8]),
    /// A list; the payload holds its items one after another.
    List(&'a [u8]),
}

/// Reads items one after another.
#[derive(Debug, Clone, Copy)]
pub struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Items<'a> {
    /// The items of a list's payload, or those that stand free.
    #[must_use]
    pub fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    /// The items of the one list that `bytes` are.
    ///
    /// # Errors
    /// [`RlpError`]; what follows the list is one.
    pub fn of_list(bytes: &'a [u8]) -> Result<Self, RlpError> {
        let mut outer = Self::new(bytes);
        let list = outer.list()?;
        outer.finish()?;
        Ok(list)
    }

    /// True where no item is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The bytes that have not been read, encoded as they came.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], RlpError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(RlpError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A length of `count` bytes, which must be needed and must not begin with zero.
    fn long_length(&mut self, count: usize) -> Result<usize, RlpError> {
        let bytes = self.take(count)?;
        if bytes.first() == Some(&0) {
            return Err(RlpError::NotCanonical);
        }
        let length = bytes
            .iter()
            .try_fold(0_usize, |length, byte| length.checked_mul(256)?.checked_add(usize::from(*byte)))
            .ok_or(RlpError::Truncated)?;
        if length < 56 { Err(RlpError::NotCanonical) } else { Ok(length) }
    }

    /// The next item.
    ///
    /// # Errors
    /// [`RlpError`].
    pub fn item(&mut self) -> Result<Item<'a>, RlpError> {
        let head = *self.rest.first().ok_or(RlpError::Truncated)?;
        if head < 0x80 {
            return Ok(Item::Bytes(self.take(1)?));
        }
        self.take(1)?;
        match head {
            0x80..=0xb7 => {
                let bytes = self.take(usize::from(head - 0x80))?;
                match bytes {
                    // A byte below 0x80 stands for itself.
                    [single] if *single < 0x80 => Err(RlpError::NotCanonical),
                    _ => Ok(Item::Bytes(bytes)),
                }
            }
            0xb8..=0xbf => {
                let length = self.long_length(usize::from(head - 0xb7))?;
                Ok(Item::Bytes(self.take(length)?))
            }
            0xc0..=0xf7 => Ok(Item::List(self.take(usize::from(head - 0xc0))?)),
            0xf8..=0xff => {
                let length = self.long_length(usize::from(head - 0xf7))?;
                Ok(Item::List(self.take(length)?))
            }
            0x00..=0x7f => Err(RlpError::Kind),
        }
    }

    /// The next item, which is a byte string.
    ///
    /// # Errors
    /// [`RlpError`].
    pub fn bytes(&mut self) -> Result<&'a [u8], RlpError> {
        match self.item()? {
            Item::Bytes(bytes) => Ok(bytes),
            Item::List(_) => Err(RlpError::Kind),
        }
    }

    /// The next item, which is a list.
    ///
    /// # Errors
    /// [`RlpError`].
    pub fn list(&mut self) -> Result<Self, RlpError> {
        match self.item()? {
            Item::List(payload) => Ok(Self::new(payload)),
            Item::Bytes(_) => Err(RlpError::Kind),
        }
    }

    /// The next item, which has exactly `N` bytes.
    ///
    /// # Errors
    /// [`RlpError`].
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], RlpError> {
        let bytes = self.bytes()?;
        bytes.try_into().map_err(|_source| RlpError::Length { has: bytes.len(), wanted: N })
    }

    /// The next item as a number: big-endian without leading zeroes.
    ///
    /// # Errors
    /// [`RlpError`].
    pub fn number(&mut self) -> Result<u64, RlpError> {
        let bytes = self.bytes()?;
        if bytes.first() == Some(&0) {
            return Err(RlpError::NotCanonical);
        }
        if bytes.len() > 8 {
            return Err(RlpError::Number);
        }
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// [`RlpError::Trailing`].
    pub fn finish(&self) -> Result<(), RlpError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(RlpError::Trailing(extra)),
        }
    }
}

/// Appends the head of a list or byte string of `length` bytes; `short` is 0x80 for a byte string, 0xc0 for a list.
fn put_head(out: &mut Vec<u8>, short: u8, length: usize) {
    if let Ok(small @ 0..56) = u8::try_from(length) {
        out.push(short + small);
        return;
    }
    let bytes = length.to_be_bytes();
    let digits = bytes.iter().position(|byte| *byte != 0).map_or(&[][..], |first| &bytes[first..]);
    // At most eight digits.
    out.push(short + 55 + u8::try_from(digits.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(digits);
}

/// Appends a byte string.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    if let [single @ 0..=0x7f] = bytes {
        return out.push(*single);
    }
    put_head(out, 0x80, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends a number.
pub fn put_number(out: &mut Vec<u8>, number: u64) {
    let bytes = number.to_be_bytes();
    put_bytes(out, bytes.iter().position(|byte| *byte != 0).map_or(&[][..], |first| &bytes[first..]));
}

/// Appends a list whose items are encoded in `payload`.
pub fn put_list(out: &mut Vec<u8>, payload: &[u8]) {
    put_head(out, 0xc0, payload.len());
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of the Ethereum wiki's page on RLP, and `ethereum/tests` `RLPTests/rlptest.json`.
    #[test]
    fn published_examples() {
        assert_eq!(Items::new(b"\x83dog").bytes(), Ok(&b"dog"[..]));
        let mut list = Items::of_list(b"\xc8\x83cat\x83dog").unwrap();
        assert_eq!((list.bytes(), list.bytes(), list.finish()), (Ok(&b"cat"[..]), Ok(&b"dog"[..]), Ok(())));
        assert_eq!(Items::new(&[0x80]).bytes(), Ok(&[][..]));
        assert!(Items::of_list(&[0xc0]).unwrap().is_empty());
        assert_eq!(Items::new(&[0x0f]).number(), Ok(15));
        assert_eq!(Items::new(&[0x82, 0x04, 0x00]).number(), Ok(1024));
        assert_eq!(Items::new(&[0x80]).number(), Ok(0));
        let text = b"Lorem ipsum dolor sit amet, consectetur adipisicing elit";
        let mut long = vec![0xb8, 0x38];
        long.extend_from_slice(text);
        assert_eq!(Items::new(&long).bytes(), Ok(&text[..]));
    }

    /// `ethereum/tests` `RLPTests/invalidRLPTest.json` and what else is not the shortest form.
    #[test]
    fn what_is_not_the_shortest_form_is_refused() {
        for bytes in [
            &[0x81, 0x00][..],
            &[0x81, 0x7f],
            &[0xb8, 0x01, 0xff],
            &[0xb9, 0x00, 0x38],
            &[0xf8, 0x01, 0x80],
            &[0xf9, 0x00, 0x38],
        ] {
            assert_eq!(Items::new(bytes).item(), Err(RlpError::NotCanonical), "{bytes:x?}");
        }
        assert_eq!(Items::new(&[0x82, 0x00, 0x01]).number(), Err(RlpError::NotCanonical));
        assert_eq!(Items::new(&[0x00]).number(), Err(RlpError::NotCanonical));
        for bytes in [&[][..], &[0x83, 1, 2], &[0xbf, 255, 255, 255, 255, 255, 255, 255, 255], &[0xc2, 1]] {
            assert_eq!(Items::new(bytes).item(), Err(RlpError::Truncated), "{bytes:x?}");
        }
        assert_eq!(Items::of_list(&[0xc0, 0]).map(|_| ()), Err(RlpError::Trailing(1)));
        assert_eq!(Items::new(&[0xc0]).bytes(), Err(RlpError::Kind));
        assert_eq!(Items::new(&[0x05]).list().map(|_| ()), Err(RlpError::Kind));
        assert_eq!(Items::new(&[0x89, 1, 0, 0, 0, 0, 0, 0, 0, 0]).number(), Err(RlpError::Number));
        assert_eq!(Items::new(&[0x82, 1, 2]).fixed::<3>(), Err(RlpError::Length { has: 2, wanted: 3 }));
    }

    proptest! {
        #[test]
        fn what_is_put_is_read(bytes in prop::collection::vec(any::<u8>(), 0..300), number: u64) {
            let mut payload = Vec::new();
            put_bytes(&mut payload, &bytes);
            put_number(&mut payload, number);
            let mut list = Vec::new();
            put_list(&mut list, &payload);
            let mut items = Items::of_list(&list).unwrap();
            prop_assert_eq!(items.bytes(), Ok(&bytes[..]));
            prop_assert_eq!(items.number(), Ok(number));
            prop_assert_eq!(items.finish(), Ok(()));
        }

        #[test]
        fn arbitrary_bytes_have_one_encoding(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut items = Items::new(&bytes);
            if let Ok(item) = items.item() {
                let used = bytes.len() - items.rest().len();
                let mut again = Vec::new();
                match item {
                    Item::Bytes(content) => put_bytes(&mut again, content),
                    Item::List(payload) => put_list(&mut again, payload),
                }
                prop_assert_eq!(&again[..], &bytes[..used]);
            }
        }
    }
}
