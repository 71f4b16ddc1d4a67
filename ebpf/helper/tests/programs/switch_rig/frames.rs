//! Frames as they are on the wire, with right checksums.

/// Ones' complement sum of 16-bit words (RFC 1071), computed over all of it.
pub(crate) fn internet_checksum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |byte| u32::from(*byte));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

pub(crate) const ETH_DST: [u8; 6] = [0x02, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5];
pub(crate) const ETH_SRC: [u8; 6] = [0x02, 0x51, 0x52, 0x53, 0x54, 0x55];

pub(crate) fn ethernet(types: &[u8], payload: &[u8]) -> Vec<u8> {
    [&ETH_DST[..], &ETH_SRC, types, payload].concat()
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

pub(crate) fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = length(20 + payload.len());
    let mut head =
        [0x45, 0x28 << 2 >> 2, high, low, 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0, 10, 1, 2, 3, 10, 4, 5, 6];
    let sum = internet_checksum(&[&head]).to_be_bytes();
    head[10..12].copy_from_slice(&sum);
    let mut packet = [&head[..], payload].concat();
    seal(&mut packet, 20, protocol);
    packet
}

pub(crate) fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    ipv6_behind(&[], next, next, payload)
}

/// With extension headers in front of the payload; `first` is the first of them.
pub(crate) fn ipv6_behind(extensions: &[u8], first: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = length(extensions.len() + payload.len());
    let mut packet = vec![0x62, 0x81, 0x23, 0x45, high, low, first, 64];
    packet.extend(0x10..0x30);
    packet.extend(extensions);
    let at = packet.len();
    packet.extend(payload);
    seal(&mut packet, at, protocol);
    packet
}

/// Where a protocol's checksum is, and whether a pseudo header is in it.
pub(crate) fn checksum_place(protocol: u8) -> Option<(usize, bool)> {
    match protocol {
        1 => Some((2, false)),
        6 => Some((16, true)),
        17 => Some((6, true)),
        58 => Some((2, true)),
        _ => None,
    }
}

/// Computes the checksum of what is at `at` in an IP packet.
pub(crate) fn seal(packet: &mut [u8], at: usize, protocol: u8) {
    let Some((place, is_pseudo)) = checksum_place(protocol) else { return };
    let end = if packet[0] >> 4 == 4 {
        usize::from(u16::from_be_bytes([packet[2], packet[3]]))
    } else {
        40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]))
    };
    if end < at + place + 2 || end > packet.len() {
        return;
    }
    packet[at + place..at + place + 2].fill(0);
    let addresses = if packet[0] >> 4 == 4 { packet[12..20].to_vec() } else { packet[8..40].to_vec() };
    let [high, low] = length(end - at);
    let pseudo = if is_pseudo { [&addresses[..], &[0, protocol, high, low]].concat() } else { vec![] };
    let mut sum = internet_checksum(&[&pseudo, &packet[at..end]]);
    if protocol == 17 && sum == 0 {
        sum = 0xffff;
    }
    packet[at + place..at + place + 2].copy_from_slice(&sum.to_be_bytes());
}

pub(crate) fn tcp(payload: &[u8]) -> Vec<u8> {
    [&[0x1c, 0xe8, 0x11, 0x51, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0][..], payload].concat()
}

pub(crate) fn udp(payload: &[u8]) -> Vec<u8> {
    let [high, low] = length(8 + payload.len());
    [&[0x1c, 0xe8, 0x11, 0x51, high, low, 0, 0][..], payload].concat()
}

pub(crate) fn sctp(payload: &[u8]) -> Vec<u8> {
    [&[0x1c, 0xe8, 0x11, 0x51, 1, 2, 3, 4, 5, 6, 7, 8][..], payload].concat()
}

pub(crate) fn icmp(kind: u8) -> Vec<u8> {
    vec![kind, 3, 0, 0, 0, 1, 0, 2, b'p', b'i', b'n', b'g', b'!']
}

/// Neighbour solicitation (135) or advertisement (136) with its option.
pub(crate) fn neighbour(kind: u8) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    message.extend(0x40..0x50);
    message.extend([if kind == 135 { 1 } else { 2 }, 1, 2, 0x61, 0x62, 0x63, 0x64, 0x65]);
    message
}

pub(crate) fn arp() -> Vec<u8> {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 2];
    arp.extend(0x30..0x44);
    ethernet(&[8, 6], &arp)
}

pub(crate) fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(&[8, 0], &ipv4(protocol, payload))
}

pub(crate) fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(&[0x86, 0xdd], &ipv6(next, payload))
}

/// Puts a tag or a label, with its EtherType, in front of what a frame has.
pub(crate) fn tagged(ether_type: u16, tag: u16, frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &ether_type.to_be_bytes(), &tag.to_be_bytes(), &frame[12..]].concat()
}

/// Puts a label in front of a packet.
pub(crate) fn labelled(label: u32, packet: &[u8]) -> Vec<u8> {
    [&label.to_be_bytes()[..], packet].concat()
}

/// One of each kind.
pub(crate) fn all() -> Vec<Vec<u8>> {
    let bottom = 0x1234_5b40;
    vec![
        v4(6, &tcp(b"reading")),
        v4(17, &udp(b"odd")),
        v4(132, &sctp(b"chunk")),
        v4(1, &icmp(8)),
        v4(47, b"tunnel"),
        v6(6, &tcp(b"reading")),
        v6(17, &udp(b"even")),
        v6(132, &sctp(b"chunk")),
        v6(58, &icmp(128)),
        v6(58, &neighbour(135)),
        v6(58, &neighbour(136)),
        ethernet(&[0x86, 0xdd], &ipv6_behind(&[6, 0, 5, 2, 0, 0, 0, 0], 0, 6, &tcp(b"behind"))),
        arp(),
        tagged(0x8100, 0xa02a, &v4(6, &tcp(b"tagged"))),
        tagged(0x88a8, 0x3003, &tagged(0x8100, 0x402a, &v6(17, &udp(b"twice")))),
        ethernet(&[0x88, 0x47], &labelled(bottom, &ipv4(6, &tcp(b"labelled")))),
        ethernet(
            &[0x88, 0x48],
            &labelled(bottom & !0x100, &labelled(bottom, &ipv6(17, &udp(b"two labels")))),
        ),
        tagged(0x8100, 7, &ethernet(&[0x88, 0x47], &labelled(bottom, &ipv4(17, &udp(b"both"))))),
        ethernet(&[0x88, 0xb5], b"\x10 experiment of fifty bytes or so, and no IP at all"),
        ethernet(&[0, 40], &[0xaa; 46]),
    ]
}
