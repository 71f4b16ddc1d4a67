//! Properties over all messages: what is encoded is read back, and no bytes break the decoder.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::*;
use super::messages::message;

proptest! {
    #[test]
    fn round_trip(message in message(), xid in any::<u32>()) {
        let frame = message.encode(xid).unwrap();
        prop_assert_eq!(Message::decode(&frame), Ok((xid, message)));
    }

    /// A good message with some bytes overwritten: hostile lengths at every place.
    #[test]
    fn changed_bytes_decode_to_what_encodes_alike(
        message in message(), changes in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut frame = message.encode(1).unwrap();
        for (at, byte) in changes {
            let at = at.index(frame.len());
            if at >= HEADER_BYTES {
                frame[at] = byte;
            }
        }
        match Message::decode(&frame) {
            Ok((xid, message)) => prop_assert_eq!(Message::decode(&message.encode(xid).unwrap()), Ok((xid, message))),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    /// A check says yes or one of the standard's errors, and what passes is what a switch can build on: each field has its
    /// length, and its value lies within its mask.
    #[test]
    fn a_match_that_passes_its_check_is_sound(message in message()) {
        let Message::FlowMod(FlowMod { pattern, .. }) = message else { return Ok(()) };
        if let Err(code) = pattern.check() {
            prop_assert!(ErrorKind::NAMED.contains(&ErrorKind::BadMatch(code)));
            return Ok(());
        }
        prop_assert_eq!(pattern.iter().count(), pattern.canonical().fields.len());
        for (field, Masked { value, mask }) in pattern.iter() {
            prop_assert!(value & !mask == 0 && mask & !field.ones() == 0 && mask != 0);
            prop_assert!(field.is_maskable() || mask == field.ones());
        }
    }
}
