//! The host name in an mDNS message (RFC 6762): the owner of an address record under `.local`.

use std::net::IpAddr;

use super::frame::Fault;
use super::text;

const HEADER_BYTES: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
/// Questions and records looked at in one message: a host announces itself within the first few.
const RECORDS_MAX: u16 = 64;
/// Labels of one name, and pointers followed in it: `.local` names have two to four.
const LABELS_MAX: usize = 16;

/// A host that the message names, and whether the record has the sender's own address.
struct Named {
    name: String,
    is_own: bool,
}

/// The name of the host at `source`; else of the first host that the message names.
pub(super) fn host_name(message: &[u8], source: IpAddr) -> Result<Option<String>, Fault> {
    let header = message.first_chunk::<HEADER_BYTES>().ok_or(Fault::Mdns)?;
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let questions = count(4);
    let records = [6, 8, 10].map(count).into_iter().fold(0, u16::saturating_add);
    let mut at = HEADER_BYTES;
    for _ in 0..questions.min(RECORDS_MAX) {
        at = skip_name(message, at)?.checked_add(4).ok_or(Fault::Mdns)?;
    }
    if questions > RECORDS_MAX {
        return Ok(None);
    }
    let mut found: Option<String> = None;
    for _ in 0..records.min(RECORDS_MAX) {
        let (named, next) = record(message, at, source)?;
        at = next;
        match named {
            Some(Named { name, is_own: true }) => return Ok(Some(name)),
            Some(Named { name, is_own: false }) => found = found.or(Some(name)),
            None => {}
        }
    }
    Ok(found)
}

/// One resource record; answers with where the next begins.
fn record(message: &[u8], at: usize, source: IpAddr) -> Result<(Option<Named>, usize), Fault> {
    let fixed = skip_name(message, at)?;
    let head = message.get(fixed..).and_then(|rest| rest.first_chunk::<10>()).ok_or(Fault::Mdns)?;
    let kind = u16::from_be_bytes([head[0], head[1]]);
    let length = usize::from(u16::from_be_bytes([head[8], head[9]]));
    let data = message.get(fixed + 10..).and_then(|rest| rest.get(..length)).ok_or(Fault::Mdns)?;
    let next = fixed + 10 + length;
    let address = match kind {
        TYPE_A => <[u8; 4]>::try_from(data).map(IpAddr::from).ok(),
        TYPE_AAAA => <[u8; 16]>::try_from(data).map(IpAddr::from).ok(),
        _ => return Ok((None, next)),
    };
    let address = address.ok_or(Fault::Mdns)?;
    let name = local_host(message, at)?;
    Ok((name.map(|name| Named { name, is_own: address == source }), next))
}

/// Where what follows a name begins.
fn skip_name(message: &[u8], mut at: usize) -> Result<usize, Fault> {
    for _ in 0..LABELS_MAX {
        match message.get(at) {
            Some(0) => return Ok(at + 1),
            Some(length) if length & 0xc0 == 0xc0 => return Ok(at + 2),
            Some(length) if length & 0xc0 == 0 => at += 1 + usize::from(*length),
            Some(_) | None => return Err(Fault::Mdns),
        }
    }
    Err(Fault::Mdns)
}

/// The first label of a name of exactly `label.local`. A pointer leads back only (RFC 1035 §4.1.4), so following ends.
fn local_host(message: &[u8], mut at: usize) -> Result<Option<String>, Fault> {
    let mut labels: Vec<&[u8]> = Vec::new();
    for _ in 0..LABELS_MAX {
        match message.get(at) {
            Some(0) => {
                return Ok(match labels.as_slice() {
                    [host, local] if local.eq_ignore_ascii_case(b"local") => text::host_name(host),
                    _ => None,
                });
            }
            Some(high) if high & 0xc0 == 0xc0 => {
                let low = message.get(at + 1).ok_or(Fault::Mdns)?;
                let target = usize::from(u16::from_be_bytes([high & 0x3f, *low]));
                at = if target < at { target } else { return Err(Fault::Mdns) };
            }
            Some(length) if length & 0xc0 == 0 => {
                let label = message.get(at + 1..).and_then(|rest| rest.get(..usize::from(*length)));
                labels.push(label.ok_or(Fault::Mdns)?);
                at += 1 + usize::from(*length);
            }
            Some(_) | None => return Err(Fault::Mdns),
        }
    }
    Err(Fault::Mdns)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 8, 20));

    /// An announcement (RFC 6762 §8.3): PTR of a service, then A records.
    pub(crate) fn announcement(host: &[u8], address: [u8; 4]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0x84, 0, 0, 0, 0, 2, 0, 0, 0, 0];
        let local = 12;
        bytes.extend(b"\x05local\0");
        bytes.extend([0, 12, 0, 1, 0, 0, 0, 120, 0, 2, 0xc0, local]);
        bytes.push(u8::try_from(host.len()).unwrap());
        bytes.extend(host);
        bytes.extend([0xc0, local, 0, 1, 0x80, 1, 0, 0, 0, 120, 0, 4]);
        bytes.extend(address);
        bytes
    }

    #[test]
    fn an_announcement_names_its_host() {
        let bytes = announcement(b"Bed-Monitor", [192, 168, 8, 20]);
        assert_eq!(host_name(&bytes, HERE), Ok(Some("Bed-Monitor".into())));
        let other = announcement(b"printer", [192, 168, 8, 21]);
        assert_eq!(host_name(&other, HERE), Ok(Some("printer".into())));
        // A host's own record goes before what it says of others.
        let mut both = announcement(b"printer", [192, 168, 8, 21]);
        both[7] = 3;
        both.extend(b"\x04mine\xc0\x0c");
        both.extend([0, 1, 0x80, 1, 0, 0, 0, 120, 0, 4, 192, 168, 8, 20]);
        assert_eq!(host_name(&both, HERE), Ok(Some("mine".into())));
    }

    #[test]
    fn pointers_lead_back_and_names_end() {
        let mut to_itself = announcement(b"x", [1, 2, 3, 4]);
        let pointer = to_itself.len() - 16;
        assert_eq!(to_itself[pointer], 0xc0);
        to_itself[pointer + 1] = u8::try_from(pointer).unwrap();
        assert_eq!(host_name(&to_itself, HERE), Err(Fault::Mdns));
        let whole = announcement(b"x", [1, 2, 3, 4]);
        for end in 0..whole.len() {
            assert_eq!(host_name(&whole[..end], HERE), Err(Fault::Mdns), "{end}");
        }
        assert_eq!(host_name(&[0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0], HERE), Err(Fault::Mdns));
    }
}
