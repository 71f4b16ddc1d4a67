extern crate std;
use std::vec::Vec;

use super::*;
use crate::switch::key::place;

/// The field of a frame's key.
fn field(frame: &[u8], oxm: u8) -> u128 {
    let mut parsed = Parsed::default();
    parsed.key[0] = 7 << 32;
    parse(frame, &mut parsed);
    let mut bytes = Vec::new();
    for word in parsed.key {
        bytes.extend(word.to_be_bytes());
    }
    let place = place(oxm).unwrap();
    let whole = bytes[place.byte..place.byte + place.bytes]
        .iter()
        .fold(0u128, |sum, byte| sum << 8 | u128::from(*byte));
    let mask = if place.bits == 128 { u128::MAX } else { (1 << place.bits) - 1 };
    whole >> place.shift & mask
}

fn layers(frame: &[u8]) -> Layers {
    let mut parsed = Parsed::default();
    parse(frame, &mut parsed);
    parsed.layers
}

fn ethernet(types: &[u8], payload: &[u8]) -> Vec<u8> {
    [&[0xd0, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0x50, 0x51, 0x52, 0x53, 0x54, 0x55][..], types, payload].concat()
}

fn ipv4(protocol: u8, fragment: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(20 + payload.len()).unwrap();
    let head =
        [0x45, 0xb9, 0, length, 0, 0, fragment[0], fragment[1], 64, protocol, 0, 0, 10, 1, 2, 3, 10, 4, 5, 6];
    [&head[..], payload].concat()
}

fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = std::vec![0x6b, 0x91, 0x23, 0x45, 0, u8::try_from(payload.len()).unwrap(), next, 64];
    packet.extend(0x10..0x30);
    packet.extend(payload);
    packet
}

const TCP: [u8; 20] = [0x1c, 0xe8, 0x11, 0x51, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn each_field_is_read_from_where_it_stands() {
    let frame = ethernet(&[0x81, 0, 0xb0, 0x2a, 8, 0], &ipv4(6, [0, 0], &TCP));
    for (oxm, value) in [
        (0, 7),
        (3, 0xd0d1_d2d3_d4d5),
        (4, 0x5051_5253_5455),
        (5, 0x0800),
        (6, 0x102a),
        (7, 5),
        (8, 46),
        (9, 1),
        (10, 6),
        (11, 0x0a01_0203),
        (12, 0x0a04_0506),
        (13, 0x1ce8),
        (14, 0x1151),
    ] {
        assert_eq!(field(&frame, oxm), value, "{oxm}");
    }
    let frame = ethernet(&[0x86, 0xdd], &ipv6(132, &TCP));
    for (oxm, value) in [
        (8, 46),
        (9, 1),
        (10, 132),
        (17, 0x1ce8),
        (18, 0x1151),
        (26, 0x1011_1213_1415_1617_1819_1a1b_1c1d_1e1f),
        (27, 0x2021_2223_2425_2627_2829_2a2b_2c2d_2e2f),
        (28, 0x12345),
        (6, 0),
    ] {
        assert_eq!(field(&frame, oxm), value, "{oxm}");
    }
    let frame = ethernet(&[8, 0], &ipv4(1, [0, 0], &[8, 3, 0, 0]));
    assert_eq!([field(&frame, 19), field(&frame, 20)], [8, 3]);
    let mut arp = std::vec![0, 1, 8, 0, 6, 4, 0, 2];
    arp.extend(0x30..0x44);
    let frame = ethernet(&[8, 6], &arp);
    let wanted = [2, 0x3637_3839, 0x4041_4243, 0x3031_3233_3435, 0x3a3b_3c3d_3e3f];
    assert_eq!([21, 22, 23, 24, 25].map(|oxm| field(&frame, oxm)), wanted);
}

#[test]
fn neighbour_discovery_has_a_target_and_an_option() {
    let mut message = std::vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(0x40..0x50);
    message.extend([5, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 3, 4, 5, 6]);
    let frame = ethernet(&[0x86, 0xdd], &ipv6(58, &message));
    assert_eq!(field(&frame, 29), 135);
    assert_eq!(field(&frame, 31), 0x4041_4243_4445_4647_4849_4a4b_4c4d_4e4f);
    assert_eq!(field(&frame, 32), 0x0102_0304_0506);
    assert_eq!(layers(&frame).sll_at, 14 + 40 + 32);
    message[0] = 136;
    message[32] = 2;
    let frame = ethernet(&[0x86, 0xdd], &ipv6(58, &message));
    assert_eq!((field(&frame, 32), field(&frame, 33)), (0, 0x0102_0304_0506));
}

#[test]
fn labels_hide_what_is_behind_them() {
    let label = |bottom: u8| [0x12, 0x34, 0x5a | bottom, 64];
    let frame = ethernet(&[0x88, 0x47], &[&label(1)[..], &ipv4(6, [0, 0], &TCP)].concat());
    assert_eq!([34, 35, 36].map(|oxm| field(&frame, oxm)), [0x12345, 5, 1]);
    assert_eq!([10, 11, 13].map(|oxm| field(&frame, oxm)), [0, 0, 0]);
    assert_eq!(layers(&frame).hidden, u32::from(layer::IPV4));
    assert_eq!(layers(&frame).network_at, 18);
    let frame = ethernet(&[0x88, 0x48], &[&label(0)[..], &label(1), &ipv6(6, &TCP)].concat());
    assert_eq!(field(&frame, 36), 0);
    assert_eq!((layers(&frame).hidden, layers(&frame).network_at), (u32::from(layer::IPV6), 22));
}

#[test]
fn extension_headers_are_walked_and_named() {
    let hop = |next: u8| [next, 0, 5, 2, 0, 0, 0, 0];
    let authentication =
        |next: u8| [next, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let frame = ethernet(&[0x86, 0xdd], &ipv6(0, &[&hop(51)[..], &authentication(6), &TCP].concat()));
    assert_eq!([39, 10, 13].map(|oxm| field(&frame, oxm)), [68, 6, 0x1ce8]);
    let frame = ethernet(&[0x86, 0xdd], &ipv6(51, &[&authentication(0)[..], &hop(0), &hop(59)].concat()));
    assert_eq!(field(&frame, 39), 4 + 64 + 128 + 256 + 1);
    // A first fragment, a later one, and one that is all.
    for (place, seen, port) in [([0, 1], 16, 0), ([0, 8], 16, 0), ([0, 0], 16, 0x1ce8)] {
        let fragment = [6, 0, place[0], place[1], 0, 0, 0, 1];
        let frame = ethernet(&[0x86, 0xdd], &ipv6(44, &[&fragment[..], &TCP].concat()));
        assert_eq!([39, 10, 13].map(|oxm| field(&frame, oxm)), [seen, 6, port], "{place:?}");
    }
}

#[test]
fn fragments_have_no_ports_and_the_first_a_checksum() {
    let first = ethernet(&[8, 0], &ipv4(6, [0x20, 0], &TCP));
    assert_eq!((field(&first, 10), field(&first, 13), layers(&first).sum_at), (6, 0, 50));
    let later = ethernet(&[8, 0], &ipv4(6, [0, 1], &TCP));
    assert_eq!((field(&later, 10), field(&later, 13), layers(&later).sum_at), (6, 0, 0));
}

#[test]
fn padding_is_no_header() {
    let mut frame = ethernet(&[8, 0], &ipv4(17, [0, 0], &[]));
    frame.resize(60, 0xaa);
    assert_eq!((field(&frame, 10), field(&frame, 15)), (17, 0));
}

#[test]
fn two_tags_are_looked_behind() {
    let frame = ethernet(&[0x88, 0xa8, 0x20, 1, 0x81, 0, 0x40, 2, 8, 0], &ipv4(6, [0, 0], &TCP));
    assert_eq!([5, 6, 7, 10].map(|oxm| field(&frame, oxm)), [0x0800, 0x1001, 1, 6]);
    assert_eq!(layers(&frame).tags, 2);
}

#[test]
fn what_is_cut_off_has_no_fields() {
    let whole =
        ethernet(&[0x81, 0, 0, 1, 0x86, 0xdd], &ipv6(0, &[&[6, 0, 0, 0, 0, 0, 0, 0][..], &TCP].concat()));
    for length in 0..whole.len() {
        let cut = &whole[..length];
        assert_eq!(field(cut, 3) != 0, length >= 14, "{length}");
        assert_eq!(field(cut, 6) != 0, length >= 18, "{length}");
        assert_eq!(field(cut, 26) != 0, length >= 58, "{length}");
        assert_eq!(field(cut, 13), 0, "{length}");
    }
    assert_eq!(field(&whole, 13), 0x1ce8);
    assert_eq!(field(&ethernet(&[0, 46], &[0; 46]), 5), 0x05ff);
}
