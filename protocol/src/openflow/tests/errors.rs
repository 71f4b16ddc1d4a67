//! What wrong parts of messages are answered with, by exact type and code.

use super::super::*;
use super::bytes;

/// What a wrong part of a flow-mod or packet-out is answered with.
#[test]
fn each_part_has_its_own_error() {
    let add = "040e00LL00000011 0000000000000000 0000000000000000 01 00 0000 0000 0001 ffffffff ffffffff ffffffff 0000 0000";
    let none = "0001 0004 00000000";
    for (rest, code) in [
        ("0000 0004 00000000", "OFPBMC_BAD_TYPE"),
        ("0001 0003 00000000", "OFPBMC_BAD_LEN"),
        ("0001 0028 00000000", "OFPBMC_BAD_LEN"),
        ("0001 0006 8000 0000", "OFPBMC_BAD_LEN"), // ends in a field's header
        ("0001 000a 80000006 0102 000000000000", "OFPBMC_BAD_LEN"), // ends in a field's value
        ("0001 000b 80000103 010203 0000000000", "OFPBMC_BAD_LEN"), // half a mask
        ("0001 0009 80000a01 08", "OFPBMC_BAD_LEN"), // no padding
        (&format!("{none} 0004 0004"), "OFPBIC_BAD_LEN"), // no multiple of 8
        (&format!("{none} 0004 0000 00000000"), "OFPBIC_BAD_LEN"),
        (&format!("{none} 0004 0010 00000000"), "OFPBIC_BAD_LEN"), // beyond the message
        (&format!("{none} 0001 0010 02 00000000000000 00000000"), "OFPBIC_BAD_LEN"),
        (&format!("{none} 0004"), "OFPBIC_BAD_LEN"),
        (&format!("{none} 0004 0010 00000000 0000 0008 00000001"), "OFPBAC_BAD_LEN"), // output of 8 bytes
        (&format!("{none} 0004 0010 00000000 0015 000c 00000001"), "OFPBAC_BAD_LEN"),
        (&format!("{none} 0004 0010 00000000 0015 0010 00000001"), "OFPBAC_BAD_LEN"), // beyond the instruction
        (&format!("{none} 0004 0010 00000000 0019 0008 8000100a"), "OFPBAC_BAD_SET_LEN"),
        (&format!("{none} 0004 0018 00000000 0019 0010 80001102 2eff 000000000000"), "OFPBAC_BAD_SET_TYPE"),
    ] {
        let mut frame = bytes(&format!("{} {rest}", add.replace("LL", "00")));
        frame[3] = u8::try_from(frame.len()).unwrap();
        let error = Message::decode(&frame).unwrap_err();
        assert_eq!(error.answer(&frame).unwrap().kind.as_str(), code, "{rest}");
    }
    let mut frame = Message::FlowMod(FlowMod::new(Command::Add, 1, 1)).encode(1).unwrap();
    frame[25] = 5;
    assert_eq!(Message::decode(&frame).unwrap_err().reason(), "OFPFMFC_BAD_COMMAND");
    let packet_out = bytes("040d001800000011 ffffffff fffffffd 0010 000000000000");
    assert_eq!(Message::decode(&packet_out).unwrap_err().reason(), "OFPBRC_BAD_LEN");
    let role = bytes("0418001800000011 00000004 00000000 0000000000000000");
    assert_eq!(Message::decode(&role).unwrap_err().reason(), "OFPRRFC_BAD_ROLE");
}

/// What a wrong part of the other messages is answered with.
#[test]
fn each_message_has_its_own_errors() {
    let output = "0000 0010 00000002 0000 000000000000";
    for (text, code) in [
        ("040f 0003 00 00 00000001".to_owned(), "OFPGMFC_BAD_COMMAND"),
        ("040f 0000 04 00 00000001".to_owned(), "OFPGMFC_BAD_TYPE"),
        ("040f 0000 00 00 00000001 0010 0000 ffffffff ffffffff".to_owned(), "OFPGMFC_BAD_BUCKET"), // cut
        ("040f 0000 00 00 00000001 0008 0000 ffffffff ffffffff 00000000".to_owned(), "OFPGMFC_BAD_BUCKET"),
        (
            "040f 0000 00 00 00000001 0014 0000 ffffffff ffffffff 00000000 00000000".to_owned(),
            "OFPGMFC_BAD_BUCKET",
        ),
        (
            format!("040f 0000 00 00 00000001 0028 0000 ffffffff ffffffff 00000000 {output}"),
            "OFPGMFC_BAD_BUCKET",
        ),
        (
            "040f 0000 00 00 00000001 0018 0000 ffffffff ffffffff 00000000 0000 0008 00000002".to_owned(),
            "OFPBAC_BAD_LEN",
        ),
        ("040f 0000 00".to_owned(), "OFPBRC_BAD_LEN"),
        ("041d 0003 0000 00000001".to_owned(), "OFPMMFC_BAD_COMMAND"),
        ("041d 0000 0001 00000001 0001 000c 00000001 00000001".to_owned(), "OFPBRC_BAD_LEN"),
        (
            "041d 0000 0001 00000001 0001 0018 00000001 00000001 00000000 0000000000000000".to_owned(),
            "OFPBRC_BAD_LEN",
        ),
        ("041d 0000 0001 00000001 0001 0004 00000001 00000001 00000000".to_owned(), "OFPBRC_BAD_LEN"),
        ("0410 00000002 00000000 020000000002 0000 00000021 00000065 00002820".to_owned(), "OFPBRC_BAD_LEN"),
        ("0411 01 000000 00000003 00".to_owned(), "OFPBRC_BAD_LEN"),
        ("0416 00000002".to_owned(), "OFPBRC_BAD_LEN"),
        ("041a 00".to_owned(), "OFPBRC_BAD_LEN"),
        ("041c 00000003 00000000 00000007 00000007 0000000f".to_owned(), "OFPBRC_BAD_LEN"),
        ("0404 00002320".to_owned(), "OFPBRC_BAD_LEN"),
        ("041e".to_owned(), "OFPBRC_BAD_TYPE"),
        ("0412 0000 0000 00000000 00".to_owned(), "OFPBRC_BAD_LEN"), // desc has no body
        ("0412 0006 0000 00000000 fffffffc".to_owned(), "OFPBRC_BAD_LEN"),
        ("0412 0001 0000 00000000 01 000000".to_owned(), "OFPBRC_BAD_LEN"),
        ("0412 000c 0000 00000000 0001".to_owned(), "OFPBRC_BAD_LEN"),
        (table_features("0000 0003 00000000"), "OFPTFFC_BAD_LEN"),
        (table_features("0000 0010 0001 0004"), "OFPTFFC_BAD_LEN"), // beyond the table
        (table_features("0000 0008 0001 0003"), "OFPTFFC_BAD_LEN"), // shorter than its header
        (table_features("0008 0006 8000 0000"), "OFPTFFC_BAD_LEN"), // half a field
        (table_features("000a 0008 ffff0604"), "OFPTFFC_BAD_LEN"),  // no experimenter
        (table_features("fffe 0008 00002320"), "OFPTFFC_BAD_LEN"),  // no type
        (table_features("0002 0005 02"), "OFPTFFC_BAD_LEN"),        // no padding
    ] {
        let text = text.split_at(4);
        let mut frame = bytes(&format!("{}0000 00000011 {}", text.0, text.1));
        let length = u16::try_from(frame.len()).unwrap();
        frame[2..4].copy_from_slice(&length.to_be_bytes());
        let error = Message::decode(&frame).unwrap_err();
        assert_eq!(error.answer(&frame).unwrap().kind.as_str(), code, "{text:?}");
    }
}

/// A request that sets one table with this property.
fn table_features(property: &str) -> String {
    let length = 64 + bytes(property).len();
    let zeroes = "0".repeat(2 * (64 - 3));
    format!("0412 000c 0000 00000000 {length:04x} 01 {zeroes} {property}")
}
