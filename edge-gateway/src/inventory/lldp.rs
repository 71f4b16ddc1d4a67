//! What a neighbour says of itself in LLDP (IEEE 802.1AB-2016 §8): system name and description.

use super::frame::Fault;
use super::text::{self, ABOUT_BYTES_MAX};

const TYPE_END: u8 = 0;
const TYPE_CHASSIS: u8 = 1;
const TYPE_SYSTEM_NAME: u8 = 5;
const TYPE_SYSTEM_DESCRIPTION: u8 = 6;
/// TLVs looked at in one frame: four are mandatory, the optional ones some ten.
const TLVS_MAX: usize = 64;

/// What was said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Neighbour {
    /// Its system name.
    pub(super) name: Option<String>,
    /// Its system description.
    pub(super) about: Option<String>,
}

/// Reads an LLDPDU.
pub(super) fn neighbour(mut rest: &[u8]) -> Result<Neighbour, Fault> {
    let mut neighbour = Neighbour::default();
    for index in 0..TLVS_MAX {
        let (head, after) = rest.split_first_chunk::<2>().ok_or(Fault::Lldp)?;
        let head = u16::from_be_bytes(*head);
        let [kind, _] = (head >> 1).to_be_bytes();
        let (kind, length) = (kind & 0x7f, usize::from(head & 0x1ff));
        let (value, after) = after.split_at_checked(length).ok_or(Fault::Lldp)?;
        rest = after;
        // §8.2: the chassis comes first.
        if index == 0 && kind != TYPE_CHASSIS {
            return Err(Fault::Lldp);
        }
        match kind {
            TYPE_END => return Ok(neighbour),
            TYPE_SYSTEM_NAME => neighbour.name = text::host_name(value),
            TYPE_SYSTEM_DESCRIPTION => neighbour.about = text::printable(value, ABOUT_BYTES_MAX),
            _ => {}
        }
    }
    Err(Fault::Lldp)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        let head = u16::from(kind) << 9 | u16::try_from(value.len()).unwrap();
        [&head.to_be_bytes()[..], value].concat()
    }

    #[test]
    fn name_and_description() {
        let chassis = tlv(1, b"\x04\x02\0\0\0\0\x01");
        let pdu = [chassis.clone(), tlv(5, b"ap-1.ward"), tlv(6, b"Access point 3"), tlv(0, b"")].concat();
        let expected = Neighbour { name: Some("ap-1".into()), about: Some("Access point 3".into()) };
        assert_eq!(neighbour(&pdu), Ok(expected));
        for end in 0..pdu.len() {
            assert_eq!(neighbour(&pdu[..end]), Err(Fault::Lldp), "{end}");
        }
        assert_eq!(neighbour(&tlv(5, b"no chassis")), Err(Fault::Lldp));
        assert_eq!(neighbour(&chassis.repeat(100)), Err(Fault::Lldp));
    }
}
