//! Golden bytes of every message, errors by their exact code, and properties over all messages.
//!
//! The bytes follow the standard's structures. They were cross-checked with os-ken 4.2.2 by hand: its `ofproto_v1_3_parser`
//! wrote the same bytes for a controller's messages, and read a switch's to the same values (those with kinds that the standard
//! doesn't have it can't read). In turn the 104 messages of its own tests (`packet_data/of13`) and the 1,435 flow-mods, group-mods
//! and meter-mods of its switch suite were decoded here and encoded to the same bytes.

use super::multipart::MultipartType;
use super::*;

mod errors;
mod golden;
mod golden_fields;
mod golden_switch;
mod messages;
mod parts;
mod properties;

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text.replace([' ', '\n'], "")).unwrap()
}

fn golden() -> Vec<(String, Message)> {
    [golden::all(), golden_fields::all(), golden_switch::all()].concat()
}

#[test]
fn golden_bytes_both_ways() {
    for (text, message) in golden() {
        assert_eq!(hex::encode(message.encode(0x11).unwrap()), hex::encode(bytes(&text)), "{message:?}");
        assert_eq!(Message::decode(&bytes(&text)), Ok((0x11, message)));
    }
}

#[test]
fn every_type_has_golden_bytes() {
    let messages: Vec<_> = golden().into_iter().map(|(_, message)| message).collect();
    let plain = message::tests::golden().into_iter().map(|(_, _, message)| message);
    let types: Vec<_> = plain.chain(messages.clone()).map(|message| message.message_type()).collect();
    for wanted in MessageType::ALL {
        assert!(types.contains(wanted), "{}", wanted.as_str());
    }
    for wanted in MultipartType::ALL {
        let number = *wanted as u16;
        let asks = |message: &Message| matches!(message, Message::MultipartRequest(request) if request.body.number() == number);
        let reports = |message: &Message| matches!(message, Message::MultipartReply(reply) if reply.body.number() == number);
        assert!(messages.iter().any(asks) && messages.iter().any(reports), "{}", wanted.as_str());
    }
    let numbers: Vec<_> = golden_switch::properties().iter().map(|(_, property)| property.number()).collect();
    let wanted = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 13, 14, 15, 0xfffe, 0xffff, 16];
    assert_eq!(numbers, wanted);
}

/// Cut at any byte with the header's length set to fit: an error, or a shorter list of whole entries. Never a panic.
#[test]
fn every_cut_is_refused_or_shorter() {
    for (text, message) in golden() {
        let whole = bytes(&text);
        for end in HEADER_BYTES..whole.len() {
            let mut cut = whole[..end].to_vec();
            cut[2..4].copy_from_slice(&u16::try_from(end).unwrap().to_be_bytes());
            match Message::decode(&cut) {
                Ok((_, shorter)) => assert_ne!(shorter, message),
                Err(error) => assert!(error.header().is_some() && !error.to_string().is_empty()),
            }
        }
    }
}

/// Each byte set to each of some hostile values, at every place.
#[test]
fn every_changed_byte_is_refused_or_encodes_alike() {
    for (text, _) in golden() {
        let whole = bytes(&text);
        for at in HEADER_BYTES..whole.len() {
            for value in [0, 1, 3, 4, 7, 8, 0x7f, 0x80, 0xfe, 0xff] {
                let mut changed = whole.clone();
                changed[at] = value;
                if let Ok((xid, message)) = Message::decode(&changed) {
                    let again = message.encode(xid).unwrap();
                    assert_eq!(Message::decode(&again), Ok((xid, message)), "{text} {at} {value}");
                }
            }
        }
    }
}

#[test]
fn nothing_longer_than_a_message_is_encoded() {
    let actions = vec![Action::output(1); 5000];
    let change = FlowMod {
        instructions: vec![Instruction::ApplyActions(actions.clone())],
        ..FlowMod::new(Command::Add, 1, 1)
    };
    let packet = PacketOut { buffer_id: NO_BUFFER, in_port: 1, actions, data: vec![] };
    let pattern = Match { fields: vec![Oxm::new(MatchField::Ipv6Src, &[0; 16], None).unwrap(); 4000] };
    for message in [
        Message::FlowMod(change),
        Message::PacketOut(packet),
        Message::FlowMod(FlowMod { pattern, ..FlowMod::new(Command::Add, 1, 1) }),
    ] {
        assert!(message.encode(1).unwrap_err().bytes > MESSAGE_BYTES_MAX);
    }
}
