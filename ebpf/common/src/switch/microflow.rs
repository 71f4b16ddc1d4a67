//! Microflows: frames that are alike in all that a match may ask for. Most frames, TCP and UDP right behind an IPv4 header without
//! options and tags, are told apart by four words of theirs, before they are parsed (ADR 17, "Microflows").

/// Bytes that are read: Ethernet, IPv4 without options, UDP's header.
pub const HEAD_BYTES: usize = ETHERNET_BYTES + IPV4_BYTES + UDP_BYTES;
/// Words of a microflow's key.
pub const MICROFLOW_WORDS: usize = 4;
/// A microflow's key: bytes of the frame as they lie there, and what they came in by.
pub type Microflow = [u64; MICROFLOW_WORDS];

const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const TCP_BYTES: usize = 20;
const PROTOCOL_TCP: u64 = 6;
const PROTOCOL_UDP: u64 = 17;
/// In the eight bytes from the ninth on: EtherType, IPv4's version and its header's length.
const KIND_MASK: u64 = u64::from_ne_bytes([0, 0, 0, 0, 0xff, 0xff, 0xff, 0]);
const KIND: u64 = u64::from_ne_bytes([0, 0, 0, 0, 0x08, 0x00, 0x45, 0]);
/// In the eight bytes from IPv4's total length on: more fragments follow, or this is not the first.
const FRAGMENT: u64 = 0x3fff << 16;

#[inline(always)]
fn word(head: &[u8; HEAD_BYTES], at: usize) -> Option<u64> {
    head.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

/// The key of a frame of `bytes` bytes that begins with `head` and came in by a port (24 bits of its number count); none where its
/// match fields may depend on more than the key's words.
#[must_use]
#[inline(always)]
pub fn microflow(head: &[u8; HEAD_BYTES], bytes: usize, in_port: u32) -> Option<Microflow> {
    // Source address, EtherType, version and length, DSCP and ECN.
    let second = word(head, 8)?;
    // Total length, identification, fragment, TTL, protocol.
    let middle = u64::from_be(word(head, 16)?);
    if second & KIND_MASK != KIND || middle & FRAGMENT != 0 {
        return None;
    }
    let protocol = middle & 0xff;
    let least = match protocol {
        PROTOCOL_UDP => IPV4_BYTES + UDP_BYTES,
        PROTOCOL_TCP => IPV4_BYTES + TCP_BYTES,
        _ => return None,
    };
    if middle >> 48 < least as u64 || bytes < ETHERNET_BYTES + least {
        return None;
    }
    let ports = word(head, 34)? & u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    let ports = if cfg!(target_endian = "little") { ports } else { ports >> 32 };
    Some([word(head, 0)?, second, word(head, 26)?, ports | protocol << 32 | u64::from(in_port) << 40])
}

/// A hash that nobody outside can foresee where the seeds are drawn at random; its highest bits are those to use
/// (as the flow cache's: a sum of products of pairs of words, each with a seed added).
#[must_use]
#[inline(always)]
pub const fn hash(key: &Microflow, seeds: &Microflow) -> u64 {
    let [a, b, c, d] = *key;
    let [s, t, u, v] = *seeds;
    let one = a.wrapping_add(s).wrapping_mul(b.wrapping_add(t));
    one.wrapping_add(c.wrapping_add(u).wrapping_mul(d.wrapping_add(v)))
}

/// Where a microflow's frames go: as packed in one word, a rule's slot (32), [`way`] (8), a port (16 from bit 48).
#[must_use]
#[inline(always)]
pub const fn fate(slot: u32, way: u32, port: u32) -> u64 {
    slot as u64 | (way as u64) << 32 | (port as u64) << 48
}

/// What is done with it.
pub mod way {
    /// Nothing: its rule drops it.
    pub const DROPPED: u32 = 0;
    /// Nothing: there is no rule for it.
    pub const MISSED: u32 = 1;
    /// The gateway's stack has it.
    pub const DELIVERED: u32 = 2;
    /// It goes out where it came in.
    pub const RETURNED: u32 = 3;
    /// It goes out by a port.
    pub const REDIRECTED: u32 = 4;
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use proptest::prelude::*;
    use proptest::strategy::ValueTree as _;

    use super::*;
    use crate::switch::parse::{Parsed, parse};

    const IN_PORT: u32 = 3;

    fn key(frame: &[u8]) -> [u64; crate::switch::KEY_WORDS] {
        let mut parsed = Parsed::default();
        parsed.key[0] = u64::from(IN_PORT) << 32;
        parse(frame, &mut parsed);
        parsed.key
    }

    /// The shortest frame with a microflow's key, all else of it 0.
    fn frame_of(key: &Microflow) -> Vec<u8> {
        let [first, second, addresses, rest] = *key;
        let mut frame = std::vec![0; ETHERNET_BYTES + IPV4_BYTES + TCP_BYTES];
        frame[..8].copy_from_slice(&first.to_ne_bytes());
        frame[8..16].copy_from_slice(&second.to_ne_bytes());
        frame[26..34].copy_from_slice(&addresses.to_ne_bytes());
        frame[34..38].copy_from_slice(&u32::try_from(rest & 0xffff_ffff).unwrap().to_ne_bytes());
        frame[17] = 40;
        frame[23] = rest.to_be_bytes()[3];
        frame
    }

    /// Frames that are nearly such ones: some bytes of a good one are others, and it may be cut off.
    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let head = (any::<[u8; 12]>(), any::<[u8; 20]>(), prop_oneof![Just(6u8), Just(17), any::<u8>()]);
        let length = prop_oneof![20u16..60, any::<u16>()];
        let fragment = prop_oneof![4 => Just([0x40u8, 0]), 1 => any::<[u8; 2]>()];
        let wrong = proptest::collection::vec((12usize..24, any::<u8>()), 0..2);
        (head, length, fragment, wrong, 30usize..80).prop_map(
            |((macs, rest, protocol), length, fragment, wrong, bytes)| {
                let mut frame =
                    [&macs[..], &[8, 0, 0x45, rest[0]], &length.to_be_bytes(), &rest[1..3]].concat();
                frame.extend(fragment);
                frame.extend([rest[3], protocol]);
                frame.extend(&rest[4..]);
                frame.resize(80, 0x5a);
                for (at, byte) in wrong {
                    frame[at] = byte;
                }
                frame.truncate(bytes);
                frame
            },
        )
    }

    #[test]
    fn what_has_a_key_has_no_other_match_fields_than_the_key_says() {
        let mut with_key = 0;
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        for _ in 0..100_000 {
            let frame = frames().new_tree(&mut runner).unwrap().current();
            let Some(head) = frame.first_chunk() else { continue };
            let Some(of_frame) = microflow(head, frame.len(), IN_PORT) else { continue };
            with_key += 1;
            assert_eq!(key(&frame), key(&frame_of(&of_frame)), "{frame:x?}");
        }
        assert!(with_key > 10_000, "{with_key}");
    }

    #[test]
    fn each_match_field_tells_microflows_apart() {
        let mut frame = frame_of(&[0, KIND, 0, PROTOCOL_UDP << 32]);
        let of = |frame: &[u8], port| microflow(frame.first_chunk().unwrap(), frame.len(), port).unwrap();
        let plain = of(&frame, IN_PORT);
        assert_ne!(plain, of(&frame, IN_PORT + 1));
        // MAC addresses, DSCP and ECN, IPv4 addresses, ports.
        for at in (0..12).chain([15]).chain(26..38) {
            frame[at] ^= 1;
            assert_ne!(of(&frame, IN_PORT), plain, "byte {at}");
            frame[at] ^= 1;
        }
        frame[23] = 6;
        assert_ne!(of(&frame, IN_PORT), plain);
    }

    #[test]
    fn fragments_options_tags_and_what_is_cut_off_have_no_key() {
        let good = frame_of(&[0, KIND, 0, PROTOCOL_TCP << 32]);
        let has_key = |frame: &[u8]| microflow(frame.first_chunk().unwrap(), frame.len(), 1).is_some();
        assert!(has_key(&good));
        for (at, byte) in [(12, 0x81), (14, 0x46), (14, 0x65), (17, 39), (20, 0x20), (21, 1), (23, 1)] {
            let mut frame = good.clone();
            frame[at] = byte;
            assert!(!has_key(&frame), "byte {at} is {byte:x}");
        }
        assert!(!has_key(&good[..53]));
    }
}
