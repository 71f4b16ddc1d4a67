//! What the eBPF programs and user space agree on: maps, keys, values, the parser of frames and the judgement of them.
//!
//! Parser and judgement are here and not in the program so that they can be tested where tests run, against arbitrary bytes; the
//! kernel side only says how bytes are read ([`frame::Frame`]) and where knowledge lies ([`judge::World`]). No dependency, no
//! allocation: a 5.10 verifier takes it.

#![no_std]

pub mod frame;
pub mod judge;
pub mod map;
pub mod meter;
pub mod switch;

pub use judge::Verdict;

/// Raised whenever a map's name, key, value or meaning changes; user space refuses an object with another number.
pub const ABI_VERSION: u32 = 5;

/// The read-only section that holds one [`Abi`].
pub const ABI_MAP: &str = ".rodata.abi";

/// The XDP program of sensor ports.
pub const SENSOR_PROGRAM: &str = "sensor";
/// The tc egress program of uplinks.
pub const UPLINK_PROGRAM: &str = "uplink";

/// What an object says of itself.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abi {
    /// [`ABI_VERSION`] of its sources.
    pub version: u32,
    /// [`Kind::COUNT`] and [`Verdict::COUNT`] of its sources, 16 bits each.
    pub words: u32,
}

impl Abi {
    /// Of these sources.
    pub const CURRENT: Self = Self { version: ABI_VERSION, words: Kind::COUNT << 16 | Verdict::COUNT };
}

/// One CPU's count of something. Wraps after 2^64.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counter {
    /// Frames.
    pub frames: u64,
    /// Their bytes, from the Ethernet header to the end of the frame, padding included, checksum (FCS) not.
    pub bytes: u64,
}

// The layout is the interface: eight bytes a field, nothing between them.
const _: () = assert!(size_of::<Abi>() == 8 && align_of::<Abi>() == 4);
const _: () = assert!(size_of::<Counter>() == 16 && align_of::<Counter>() == 8);

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// What a frame is; each frame is counted under exactly one.
        #[repr(u32)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind {
            $($(#[$doc])* $name,)*
        }

        impl Kind {
            /// All of them, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// A name for labels.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $label),* }
            }
        }
    };
}

kinds! {
    /// ARP for IPv4 over Ethernet (RFC 826).
    Arp = "arp",
    /// TCP in IPv4 (RFC 791, RFC 9293).
    Ipv4Tcp = "ipv4-tcp",
    /// UDP in IPv4 (RFC 768).
    Ipv4Udp = "ipv4-udp",
    /// ICMP in IPv4 (RFC 792), not looked into.
    Ipv4Icmp = "ipv4-icmp",
    /// Another protocol in IPv4.
    Ipv4Other = "ipv4-other",
    /// Any fragment of an IPv4 packet, the first too: what is in it can't be judged by one frame.
    Ipv4Fragment = "ipv4-fragment",
    /// TCP right behind an IPv6 header (RFC 8200).
    Ipv6Tcp = "ipv6-tcp",
    /// UDP right behind an IPv6 header.
    Ipv6Udp = "ipv6-udp",
    /// ICMPv6 (RFC 4443), neighbour discovery with it; not looked into.
    Ipv6Icmp = "ipv6-icmp",
    /// IPv6 with an extension header, fragments with it; not looked behind.
    Ipv6Extension = "ipv6-extension",
    /// Another next header in IPv6.
    Ipv6Other = "ipv6-other",
    /// IEEE 802.1X.
    Eapol = "eapol",
    /// IEEE 802.1AB.
    Lldp = "lldp",
    /// IEEE 802.3 with a length where Ethernet II has a type: spanning tree and other LLC.
    Llc = "llc",
    /// Another EtherType.
    OtherEtherType = "other-ethertype",
    /// Shorter than an Ethernet header.
    ShortEthernet = "short-ethernet",
    /// Ends inside a VLAN tag (IEEE 802.1Q, 802.1ad).
    ShortVlan = "short-vlan",
    /// More than one VLAN tag.
    ManyVlans = "many-vlans",
    /// Ends inside ARP.
    ShortArp = "short-arp",
    /// ARP for something else than IPv4 over Ethernet.
    BadArp = "bad-arp",
    /// Ends inside the IPv4 header.
    ShortIpv4 = "short-ipv4",
    /// The EtherType says IPv4, the packet another version.
    BadIpv4Version = "bad-ipv4-version",
    /// IPv4 header length below 20 bytes.
    BadIpv4HeaderLength = "bad-ipv4-header-length",
    /// IPv4 total length below the header's, or above what the frame holds.
    BadIpv4TotalLength = "bad-ipv4-total-length",
    /// Ends inside the IPv6 header.
    ShortIpv6 = "short-ipv6",
    /// The EtherType says IPv6, the packet another version.
    BadIpv6Version = "bad-ipv6-version",
    /// IPv6 payload length above what the frame holds.
    BadIpv6PayloadLength = "bad-ipv6-payload-length",
    /// The packet ends inside the TCP header.
    ShortTcp = "short-tcp",
    /// TCP data offset below 20 bytes, or beyond the packet.
    BadTcpOffset = "bad-tcp-offset",
    /// The packet ends inside the UDP header.
    ShortUdp = "short-udp",
    /// UDP length below 8 bytes, or beyond the packet.
    BadUdpLength = "bad-udp-length",
}

impl Kind {
    /// How many there are.
    #[expect(clippy::cast_possible_truncation, reason = "a few dozen, and try_from isn't const")]
    pub const COUNT: u32 = Self::ALL.len() as u32;

    /// True for what is counted by the reason why it can't be right.
    #[must_use]
    pub const fn is_malformed(self) -> bool {
        self as u32 >= Self::ShortEthernet as u32
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn numbers_and_labels_are_unique() {
        for (number, kind) in (0u32..).zip(Kind::ALL) {
            assert_eq!(*kind as u32, number);
            assert_eq!(Kind::ALL.iter().filter(|other| other.as_str() == kind.as_str()).count(), 1);
        }
        assert!(!Kind::OtherEtherType.is_malformed() && Kind::ShortEthernet.is_malformed());
    }
}
