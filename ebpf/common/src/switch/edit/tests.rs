extern crate std;
use std::vec::Vec;

use super::*;
use crate::switch::op::{layer, set_field};
use crate::switch::parse::{Parsed, parse};

/// IPv4 with a right checksum and UDP without one.
fn frame() -> Vec<u8> {
    let mut frame: Vec<u8> = (0..12).collect();
    frame.extend([8, 0, 0x45, 0x48, 0, 36, 0, 0, 0x40, 0, 64, 17, 0x26, 0x7f]);
    frame.extend([10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 9, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    frame
}

fn headers(frame: &[u8]) -> Headers {
    let mut headers = Headers::new(frame);
    refresh(&mut headers);
    headers
}

fn refresh(headers: &mut Headers) {
    let mut parsed = Parsed::default();
    parse(headers, &mut parsed);
    headers.layers = parsed.layers;
    headers.is_stale = 0;
}

fn sum_of_header(frame: &[u8]) -> u32 {
    let mut sum: u32 = frame[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

#[test]
fn headers_are_parsed_as_the_frame_is() {
    for length in 0..frame().len() {
        let (mut of_frame, mut of_copy) = (Parsed::default(), Parsed::default());
        parse(&frame()[..length], &mut of_frame);
        parse(&Headers::new(&frame()[..length]), &mut of_copy);
        assert_eq!(of_frame, of_copy, "{length}");
    }
}

#[test]
fn a_checksum_follows_what_is_written() {
    assert_eq!(sum_of_header(&frame()), 0xffff);
    for (oxm, value) in
        [(11, 0x0a00_0001), (11, 0), (11, 0xffff_ffff), (12, 0xc000_0201), (8, 63), (9, 3), (10, 6)]
    {
        let mut headers = headers(&frame());
        assert_eq!(headers.edit(&set_field(oxm, value).unwrap()), Edited::Done);
        assert_eq!(sum_of_header(headers.bytes()), 0xffff, "{oxm} := {value:x}");
    }
}

#[test]
fn udp_without_checksum_stays_so() {
    let mut headers = headers(&frame());
    headers.edit(&set_field(16, 53).unwrap());
    assert_eq!(headers.bytes()[36..42], [0, 53, 0, 16, 0, 0]);
}

#[test]
fn a_tag_is_pushed_and_popped_without_a_trace() {
    let mut headers = headers(&frame());
    let way = [Op::push_mpls(0x8847), Op::push_vlan(0x88a8), Op::pop_vlan(), Op::pop_mpls(0x0800)];
    for op in &way {
        assert_eq!(headers.edit(op), Edited::Done);
    }
    assert_eq!(headers.bytes(), frame());
    assert_eq!(headers.edit(&Op::dec_nw_ttl()), Edited::Stale, "what was popped has to be looked behind");
    refresh(&mut headers);
    assert_eq!(headers.edit(&Op::dec_nw_ttl()), Edited::Done);
    assert_eq!((headers.bytes()[22], sum_of_header(headers.bytes())), (63, 0xffff));
}

#[test]
fn room_ends_and_nothing_is_lost() {
    let mut headers = headers(&frame());
    let pushed = (0..12).filter(|_| {
        refresh(&mut headers);
        headers.edit(&Op::push_vlan(0x8100)) == Edited::Done
    });
    assert_eq!(pushed.count(), ROOM_BYTES / 4);
    assert_eq!(headers.len as usize, frame().len() + ROOM_BYTES);
    let popped = (0..20).filter(|_| {
        refresh(&mut headers);
        headers.layers.has & u32::from(layer::VLAN) != 0 && headers.edit(&Op::pop_vlan()) == Edited::Done
    });
    assert_eq!(popped.count(), ROOM_BYTES / 4);
    assert_eq!(headers.bytes(), frame());
}

#[test]
fn what_is_not_there_is_not_written() {
    let mut headers = headers(&frame());
    for op in [
        set_field(6, 7),
        set_field(14, 1),
        set_field(22, 1),
        set_field(34, 1),
        Some(Op::pop_vlan()),
        Some(Op::pop_mpls(0x0800)),
    ] {
        assert_eq!(headers.edit(&op.unwrap()), Edited::Done);
    }
    for op in [Op::set_mpls_ttl(1), Op::dec_mpls_ttl(), Op::copy_ttl_in(), Op::copy_ttl_out()] {
        assert_eq!(headers.edit(&op), Edited::Done);
    }
    assert_eq!((headers.bytes(), headers.changed_to), (&frame()[..], 0));
}

#[test]
fn what_is_beyond_the_copy_is_said() {
    let mut long = frame();
    long.resize(COPY_BYTES + 40, 0);
    let mut cut = headers(&long);
    cut.len = 42;
    assert_eq!(cut.edit(&set_field(16, 1).unwrap()), Edited::Done);
    cut.len = 36;
    assert_eq!(cut.edit(&set_field(16, 1).unwrap()), Edited::Beyond);
}

#[test]
fn drop_precedence_rises_within_a_class() {
    for (dscp, steps, wanted) in [
        (18, 1, 20),
        (18, 2, 22),
        (18, 9, 22),
        (22, 1, 22),
        (10, 1, 12),
        (34, 1, 36),
        (0, 1, 0),
        (46, 1, 46),
        (8, 1, 8),
    ] {
        let mut headers = headers(&frame());
        headers.edit(&set_field(8, dscp).unwrap());
        assert_eq!(headers.remark(steps), Edited::Done);
        assert_eq!(u128::from(headers.bytes()[15] >> 2), wanted, "{dscp} + {steps}");
        assert_eq!(sum_of_header(headers.bytes()), 0xffff);
    }
}
