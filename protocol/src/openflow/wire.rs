//! What the writers of all messages share.

/// Zeroes after `bytes` bytes, up to the next multiple of 8.
pub(super) fn padding(bytes: usize) -> usize {
    bytes.next_multiple_of(8) - bytes
}

pub(super) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend(value.to_be_bytes());
}

pub(super) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend(value.to_be_bytes());
}

pub(super) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend(value.to_be_bytes());
}

/// `count` bytes of padding.
pub(super) fn pad(out: &mut Vec<u8>, count: usize) {
    out.extend(std::iter::repeat_n(0, count));
}

/// Writes what `body` writes, and the length of it all into the 16 bits at `at` bytes behind the start. A length that doesn't
/// fit doesn't fit the message either, whose own length is checked.
pub(super) fn with_length(out: &mut Vec<u8>, at: usize, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    body(out);
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    if let Some(place) = out.get_mut(start + at..start + at + 2) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}
