//! Golden bytes follow the standard's layouts. They were cross-checked with os-ken 4.2.2 by hand: its
//! `ofproto_v1_3_parser` classes serialised the same bytes for every request, echo, error and set-config below, and its
//! `parser` methods read the hello with a bitmap and the three replies to the same values. (Its `OFPHello` reads the bitmap
//! element but never writes one, so the hello was checked in that direction alone.)

use proptest::prelude::*;

use super::*;
use crate::openflow::{BadRequest, Capabilities, ErrorKind, FragmentHandling, SwitchConfigFailed, Versions};

pub(in crate::openflow) fn golden() -> Vec<(&'static str, u32, Message)> {
    let config = SwitchConfig { fragments: FragmentHandling::Drop, miss_send_len: 128 };
    let features = Features {
        datapath_id: 0x0200_0000_0001,
        n_buffers: 256,
        n_tables: 254,
        auxiliary_id: 0,
        capabilities: Capabilities(0x14f),
    };
    let refused = hex::decode("0463000800000009").unwrap();
    vec![
        ("0400000800000001", 1, Message::Hello(Hello { version: 4, versions: None })),
        (
            "0400001000000001 0001000800000012",
            1,
            Message::Hello(Hello { version: 4, versions: Some(Versions::of(&[1, 4])) }),
        ),
        (
            "0401001400000009 00010001 0463000800000009",
            9,
            Message::Error(ErrorMessage::about(ErrorKind::BadRequest(BadRequest::BadType), &refused)),
        ),
        (
            "0401001000000009 ffff08fc 4f4e4600",
            9,
            Message::Error(ErrorMessage {
                kind: ErrorKind::Experimenter { exp_type: 2300, experimenter: 0x4f4e_4600 },
                data: vec![],
            }),
        ),
        ("0402001001020304 6361726567617465", 0x0102_0304, Message::EchoRequest(b"caregate".to_vec())),
        ("0403001001020304 6361726567617465", 0x0102_0304, Message::EchoReply(b"caregate".to_vec())),
        ("0405000800000002", 2, Message::FeaturesRequest),
        (
            "0406002000000002 0000020000000001 00000100 fe 00 0000 0000014f 00000000",
            2,
            Message::FeaturesReply(features),
        ),
        ("0407000800000003", 3, Message::GetConfigRequest),
        ("0408000c00000003 0001 0080", 3, Message::GetConfigReply(config)),
        ("0409000c00000004 0001 0080", 4, Message::SetConfig(config)),
        ("0414000800000005", 5, Message::BarrierRequest),
        ("0415000800000055", 0x55, Message::BarrierReply),
    ]
}

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text.replace(' ', "")).unwrap()
}

#[test]
fn golden_bytes_both_ways() {
    for (text, xid, message) in golden() {
        assert_eq!(hex::encode(message.encode(xid).unwrap()), text.replace(' ', ""), "{message:?}");
        assert_eq!(Message::decode(&bytes(text)).unwrap(), (xid, message));
    }
}

#[test]
fn every_cut_and_every_trailing_byte_is_refused() {
    for (text, _, message) in golden() {
        let whole = bytes(text);
        for end in 0..whole.len() {
            assert!(Message::decode(&whole[..end]).is_err(), "{message:?} cut to {end}");
        }
        let longer = [whole, vec![0]].concat();
        assert!(matches!(Message::decode(&longer), Err(DecodeError::Declared { .. })), "{message:?}");
    }
}

#[test]
fn a_length_that_does_not_fit_the_type_is_bad_len() {
    for text in
        ["0405000900000002 00", "0406001f00000002", "0408000d00000003 0001 0080 00", "0414000900000005 00"]
    {
        let mut frame = bytes(text);
        frame.resize(usize::from(frame[3]), 0);
        let error = Message::decode(&frame).unwrap_err();
        assert!(matches!(error, DecodeError::Length { .. }), "{text}: {error}");
        let answer = error.answer(&frame).unwrap();
        assert_eq!(answer, ErrorMessage::about(ErrorKind::BadRequest(BadRequest::BadLen), &frame));
    }
}

#[test]
fn what_is_not_supported_is_bad_type() {
    for number in 0..=u8::MAX {
        let frame = [4, number, 0, 8, 0, 0, 0, 1];
        let Err(error @ DecodeError::Unsupported { .. }) = Message::decode(&frame) else { continue };
        assert_eq!(error.header().unwrap().message_type, number);
        let bad_type = ErrorMessage::about(ErrorKind::BadRequest(BadRequest::BadType), &frame);
        assert_eq!(error.answer(&frame), Some(bad_type), "{number}");
    }
    let unsupported = (0..=u8::MAX).filter(|number| {
        matches!(Message::decode(&[4, *number, 0, 8, 0, 0, 0, 1]), Err(DecodeError::Unsupported { .. }))
    });
    assert_eq!(unsupported.count(), 256 - MessageType::ALL.len());
}

#[test]
fn what_a_switch_sends_unasked_is_never_answered() {
    for number in 10..=12 {
        assert!(MessageType::from_u8(number).unwrap().is_asynchronous());
        let frame = [4, number, 0, 8, 0, 0, 0, 1];
        assert_eq!(Message::decode(&frame).unwrap_err().answer(&frame), None);
    }
}

#[test]
fn another_version_is_refused_except_in_hello() {
    let error = Message::decode(&bytes("0105000800000002")).unwrap_err();
    assert!(matches!(error, DecodeError::Version { .. }));
    let answer = error.answer(&[]).unwrap();
    assert_eq!(answer.kind, ErrorKind::BadRequest(BadRequest::BadVersion));
    // A hello of 1.0 may carry a body that means nothing.
    let (_, hello) = Message::decode(&bytes("0100000b00000002 ffffff")).unwrap();
    assert_eq!(hello, Message::Hello(Hello { version: 1, versions: None }));
}

#[test]
fn hello_skips_unknown_elements_and_refuses_broken_ones() {
    let unknown = "0400001800000001 0007000500000000 0001000800000010";
    let versions = Some(Versions::of(&[4]));
    assert_eq!(Message::decode(&bytes(unknown)).unwrap().1, Message::Hello(Hello { version: 4, versions }));
    for broken in [
        "0400001000000001 0001000300000010", // shorter than its own header
        "0400001000000001 0001000900000010", // longer than the message
        "0400000e00000001 000100060000",     // half a word, no padding
        "0400001000000001 0001000700000000", // three quarters of a word
        "0400001800000001 0001000800000010 0001000800000010", // twice
        "0400000a00000001 0001",             // half a header
    ] {
        let error = Message::decode(&bytes(broken)).unwrap_err();
        assert!(matches!(error, DecodeError::Length { .. } | DecodeError::Value { .. }), "{broken}: {error}");
    }
}

#[test]
fn configuration_flags_have_an_error_of_their_own() {
    let frame = bytes("0409000c00000004 0003 0080");
    let answer = Message::decode(&frame).unwrap_err().answer(&frame).unwrap();
    assert_eq!(answer.kind, ErrorKind::SwitchConfigFailed(SwitchConfigFailed::BadFlags));
}

#[test]
fn an_error_is_never_answered_with_an_error() {
    let frame = bytes("0401000a00000004 0003");
    assert_eq!(Message::decode(&frame).unwrap_err().answer(&frame), None);
}

#[test]
fn too_long_to_encode_is_said() {
    let longest = MESSAGE_BYTES_MAX - HEADER_BYTES;
    assert_eq!(Message::EchoReply(vec![0; longest]).encode(0).unwrap().len(), MESSAGE_BYTES_MAX);
    let error = Message::EchoReply(vec![0; longest + 1]).encode(0).unwrap_err();
    assert_eq!(error.bytes, 65_536);
}

fn message() -> impl Strategy<Value = Message> {
    let data = || proptest::collection::vec(any::<u8>(), 0..200);
    let config = || {
        let fragments = prop_oneof![
            Just(FragmentHandling::Normal),
            Just(FragmentHandling::Drop),
            Just(FragmentHandling::Reassemble)
        ];
        (fragments, any::<u16>())
            .prop_map(|(fragments, miss_send_len)| SwitchConfig { fragments, miss_send_len })
    };
    let kind = prop_oneof![
        proptest::sample::select(ErrorKind::NAMED),
        (any::<u16>(), any::<u32>())
            .prop_map(|(exp_type, experimenter)| ErrorKind::Experimenter { exp_type, experimenter }),
        (100u16..0xffff, any::<u16>()).prop_map(|(error_type, code)| ErrorKind::Other { error_type, code }),
    ];
    let features =
        (any::<u64>(), any::<u32>(), any::<u8>(), any::<u8>(), any::<u32>()).prop_map(|f| Features {
            datapath_id: f.0,
            n_buffers: f.1,
            n_tables: f.2,
            auxiliary_id: f.3,
            capabilities: Capabilities(f.4),
        });
    let versions = proptest::option::of(data().prop_map(|versions| Versions::of(&versions)));
    prop_oneof![
        (4u8.., versions).prop_map(|(version, versions)| Message::Hello(Hello { version, versions })),
        (kind, data()).prop_map(|(kind, data)| Message::Error(ErrorMessage { kind, data })),
        data().prop_map(Message::EchoRequest),
        data().prop_map(Message::EchoReply),
        Just(Message::FeaturesRequest),
        features.prop_map(Message::FeaturesReply),
        Just(Message::GetConfigRequest),
        config().prop_map(Message::GetConfigReply),
        config().prop_map(Message::SetConfig),
        Just(Message::BarrierRequest),
        Just(Message::BarrierReply),
    ]
}

proptest! {
    #[test]
    fn round_trip(message in message(), xid in any::<u32>()) {
        let frame = message.encode(xid).unwrap();
        prop_assert_eq!(Message::decode(&frame), Ok((xid, message)));
    }

    #[test]
    fn whatever_decodes_encodes_to_what_decodes_alike(
        version in prop_oneof![Just(4u8), any::<u8>()], number in 0u8..32, body in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let length = u8::try_from(HEADER_BYTES + body.len()).unwrap();
        let frame = [vec![version, number, 0, length, 0, 0, 0, 1], body].concat();
        match Message::decode(&frame) {
            Ok((xid, message)) => prop_assert_eq!(Message::decode(&message.encode(xid).unwrap()), Ok((1, message))),
            Err(error) => prop_assert_eq!(error.header(), Header::decode(&frame).ok()),
        }
    }
}
