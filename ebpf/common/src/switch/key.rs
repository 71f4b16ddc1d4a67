//! Where each match field lies in a key (ADR 17, "The key").

/// Words of a key.
pub const KEY_WORDS: usize = 14;
/// Bytes of a key, in network order.
pub const KEY_BYTES: usize = 8 * KEY_WORDS;

/// A key, a value or a mask: the bytes in network order, eight to a word.
pub type Key = [u64; KEY_WORDS];

/// Where a field lies: `bits` bits, the lowest of them `shift` bits above the end of the `bytes` bytes at `byte`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// First byte in the key.
    pub byte: usize,
    /// How many bytes it touches.
    pub bytes: usize,
    /// Bits below it in the last of them.
    pub shift: u32,
    /// Its width.
    pub bits: u32,
}

const fn whole(byte: usize, bytes: usize) -> Option<Place> {
    #[expect(clippy::cast_possible_truncation, reason = "at most sixteen bytes")]
    Some(Place { byte, bytes, shift: 0, bits: 8 * bytes as u32 })
}

const fn part(byte: usize, bytes: usize, shift: u32, bits: u32) -> Option<Place> {
    Some(Place { byte, bytes, shift, bits })
}

/// The place of the OXM field with this number (OpenFlow 1.3.5 §7.2.3.7, table 12); none for fields that the datapath does not
/// know: `in_phy_port` (1) and `pbb_isid` (37).
///
/// `vlan_vid` is 13 bits, `OFPVID_PRESENT` the highest of them.
#[must_use]
pub const fn place(oxm: u8) -> Option<Place> {
    match oxm {
        0 => whole(0, 4),             // in_port
        2 => whole(8, 8),             // metadata
        3 => whole(16, 6),            // eth_dst
        4 => whole(24, 6),            // eth_src
        5 => whole(4, 2),             // eth_type
        6 => part(6, 2, 0, 13),       // vlan_vid
        7 => part(6, 2, 13, 3),       // vlan_pcp
        8 => part(23, 1, 2, 6),       // ip_dscp
        9 => part(23, 1, 0, 2),       // ip_ecn
        10 => whole(22, 1),           // ip_proto
        11 | 22 => whole(48, 4),      // ipv4_src, arp_spa
        12 | 23 => whole(64, 4),      // ipv4_dst, arp_tpa
        13 | 15 | 17 => whole(30, 2), // tcp_src, udp_src, sctp_src
        14 | 16 | 18 => whole(38, 2), // tcp_dst, udp_dst, sctp_dst
        19 | 29 => part(30, 2, 0, 8), // icmpv4_type, icmpv6_type
        20 | 30 => part(38, 2, 0, 8), // icmpv4_code, icmpv6_code
        21 => whole(30, 2),           // arp_op
        24 | 32 => whole(40, 6),      // arp_sha, ipv6_nd_sll
        25 | 33 => whole(32, 6),      // arp_tha, ipv6_nd_tll
        26 => whole(48, 16),          // ipv6_src
        27 => whole(64, 16),          // ipv6_dst
        28 => part(96, 4, 0, 20),     // ipv6_flabel
        31 => whole(80, 16),          // ipv6_nd_target
        34 => part(96, 4, 4, 20),     // mpls_label
        35 => part(96, 4, 1, 3),      // mpls_tc
        36 => part(96, 4, 0, 1),      // mpls_bos
        38 => whole(104, 8),          // tunnel_id
        39 => part(46, 2, 0, 9),      // ipv6_exthdr
        _ => None,
    }
}
