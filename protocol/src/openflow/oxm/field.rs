//! The match fields of class `OFPXMC_OPENFLOW_BASIC` (§7.2.3.7, table 12): their numbers, widths, masks and prerequisites.

/// Values of `eth_type` that other fields depend on.
pub mod eth_type {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// A customer's VLAN tag.
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// MPLS.
    pub const MPLS: u16 = 0x8847;
    /// MPLS with an upstream label (multicast, RFC 5332).
    pub const MPLS_MULTICAST: u16 = 0x8848;
    /// A provider's VLAN tag.
    pub const SERVICE_VLAN: u16 = 0x88a8;
    /// PBB's I-TAG.
    pub const PBB: u16 = 0x88e7;
}

/// Values of `ip_proto` that other fields depend on.
pub mod ip_proto {
    /// ICMP.
    pub const ICMPV4: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// `OFPVID_NONE`: the value of `vlan_vid` for frames without a tag.
pub const VLAN_VID_NONE: u16 = 0;
/// `OFPVID_PRESENT`: the bit of `vlan_vid` that says that there is a tag.
pub const VLAN_VID_PRESENT: u16 = 0x1000;

/// ICMPv6 types of neighbour discovery (RFC 4861).
const NEIGHBOUR_SOLICITATION: u128 = 135;
const NEIGHBOUR_ADVERTISEMENT: u128 = 136;

const IPV4: &[u128] = &[eth_type::IPV4 as u128];
const IPV6: &[u128] = &[eth_type::IPV6 as u128];
const IP: &[u128] = &[eth_type::IPV4 as u128, eth_type::IPV6 as u128];
const ARP: &[u128] = &[eth_type::ARP as u128];
const MPLS: &[u128] = &[eth_type::MPLS as u128, eth_type::MPLS_MULTICAST as u128];
const PBB: &[u128] = &[eth_type::PBB as u128];
const TCP: &[u128] = &[ip_proto::TCP as u128];
const UDP: &[u128] = &[ip_proto::UDP as u128];
const SCTP: &[u128] = &[ip_proto::SCTP as u128];
const ICMPV4: &[u128] = &[ip_proto::ICMPV4 as u128];
const ICMPV6: &[u128] = &[ip_proto::ICMPV6 as u128];

/// What a match must say before it may have a field (table 12), else it is `OFPBMC_BAD_PREREQ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prerequisite {
    /// This field.
    Present(MatchField),
    /// This field, exactly one of these values.
    OneOf(MatchField, &'static [u128]),
    /// `vlan_vid` other than [`VLAN_VID_NONE`]: the frame has a tag.
    Tagged,
}

macro_rules! match_fields {
    ($($name:ident = $number:literal $standard:literal $bits:literal bits in $bytes:literal, $maskable:ident, $needs:expr;)*) => {
        /// The fields of class `OFPXMC_OPENFLOW_BASIC` (§7.2.3.7).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum MatchField {
            $(#[doc = concat!("`", $standard, "`")] $name = $number,)*
        }

        impl MatchField {
            /// All of them, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The name by which operators know it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $standard),* }
            }

            /// Bytes of its value.
            #[must_use]
            pub const fn bytes(self) -> usize {
                match self { $(Self::$name => $bytes),* }
            }

            /// Its width: the value's lowest bits, the others are zero.
            #[must_use]
            pub const fn bits(self) -> u32 {
                match self { $(Self::$name => $bits),* }
            }

            /// Whether the standard allows a mask.
            #[must_use]
            pub const fn is_maskable(self) -> bool {
                match self { $(Self::$name => is_maskable!($maskable)),* }
            }

            /// What a match must say before it may have this field.
            #[must_use]
            pub const fn prerequisite(self) -> Option<Prerequisite> {
                match self { $(Self::$name => $needs),* }
            }
        }
    };
}

macro_rules! is_maskable {
    (masked) => {
        true
    };
    (exact) => {
        false
    };
}

const fn of_eth_type(values: &'static [u128]) -> Option<Prerequisite> {
    Some(Prerequisite::OneOf(MatchField::EthType, values))
}

const fn of_ip_proto(values: &'static [u128]) -> Option<Prerequisite> {
    Some(Prerequisite::OneOf(MatchField::IpProto, values))
}

const fn of_icmpv6_type(values: &'static [u128]) -> Option<Prerequisite> {
    Some(Prerequisite::OneOf(MatchField::Icmpv6Type, values))
}

match_fields! {
    InPort = 0 "in_port" 32 bits in 4, exact, None;
    InPhyPort = 1 "in_phy_port" 32 bits in 4, exact, Some(Prerequisite::Present(Self::InPort));
    Metadata = 2 "metadata" 64 bits in 8, masked, None;
    EthDst = 3 "eth_dst" 48 bits in 6, masked, None;
    EthSrc = 4 "eth_src" 48 bits in 6, masked, None;
    EthType = 5 "eth_type" 16 bits in 2, exact, None;
    VlanVid = 6 "vlan_vid" 13 bits in 2, masked, None;
    VlanPcp = 7 "vlan_pcp" 3 bits in 1, exact, Some(Prerequisite::Tagged);
    IpDscp = 8 "ip_dscp" 6 bits in 1, exact, of_eth_type(IP);
    IpEcn = 9 "ip_ecn" 2 bits in 1, exact, of_eth_type(IP);
    IpProto = 10 "ip_proto" 8 bits in 1, exact, of_eth_type(IP);
    Ipv4Src = 11 "ipv4_src" 32 bits in 4, masked, of_eth_type(IPV4);
    Ipv4Dst = 12 "ipv4_dst" 32 bits in 4, masked, of_eth_type(IPV4);
    TcpSrc = 13 "tcp_src" 16 bits in 2, exact, of_ip_proto(TCP);
    TcpDst = 14 "tcp_dst" 16 bits in 2, exact, of_ip_proto(TCP);
    UdpSrc = 15 "udp_src" 16 bits in 2, exact, of_ip_proto(UDP);
    UdpDst = 16 "udp_dst" 16 bits in 2, exact, of_ip_proto(UDP);
    SctpSrc = 17 "sctp_src" 16 bits in 2, exact, of_ip_proto(SCTP);
    SctpDst = 18 "sctp_dst" 16 bits in 2, exact, of_ip_proto(SCTP);
    Icmpv4Type = 19 "icmpv4_type" 8 bits in 1, exact, of_ip_proto(ICMPV4);
    Icmpv4Code = 20 "icmpv4_code" 8 bits in 1, exact, of_ip_proto(ICMPV4);
    ArpOp = 21 "arp_op" 16 bits in 2, exact, of_eth_type(ARP);
    ArpSpa = 22 "arp_spa" 32 bits in 4, masked, of_eth_type(ARP);
    ArpTpa = 23 "arp_tpa" 32 bits in 4, masked, of_eth_type(ARP);
    ArpSha = 24 "arp_sha" 48 bits in 6, masked, of_eth_type(ARP);
    ArpTha = 25 "arp_tha" 48 bits in 6, masked, of_eth_type(ARP);
    Ipv6Src = 26 "ipv6_src" 128 bits in 16, masked, of_eth_type(IPV6);
    Ipv6Dst = 27 "ipv6_dst" 128 bits in 16, masked, of_eth_type(IPV6);
    Ipv6Flabel = 28 "ipv6_flabel" 20 bits in 4, masked, of_eth_type(IPV6);
    Icmpv6Type = 29 "icmpv6_type" 8 bits in 1, exact, of_ip_proto(ICMPV6);
    Icmpv6Code = 30 "icmpv6_code" 8 bits in 1, exact, of_ip_proto(ICMPV6);
    Ipv6NdTarget = 31 "ipv6_nd_target" 128 bits in 16, exact,
        of_icmpv6_type(&[NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT]);
    Ipv6NdSll = 32 "ipv6_nd_sll" 48 bits in 6, exact, of_icmpv6_type(&[NEIGHBOUR_SOLICITATION]);
    Ipv6NdTll = 33 "ipv6_nd_tll" 48 bits in 6, exact, of_icmpv6_type(&[NEIGHBOUR_ADVERTISEMENT]);
    MplsLabel = 34 "mpls_label" 20 bits in 4, exact, of_eth_type(MPLS);
    MplsTc = 35 "mpls_tc" 3 bits in 1, exact, of_eth_type(MPLS);
    MplsBos = 36 "mpls_bos" 1 bits in 1, exact, of_eth_type(MPLS);
    PbbIsid = 37 "pbb_isid" 24 bits in 3, masked, of_eth_type(PBB);
    TunnelId = 38 "tunnel_id" 64 bits in 8, masked, None;
    Ipv6Exthdr = 39 "ipv6_exthdr" 9 bits in 2, masked, of_eth_type(IPV6);
}

impl MatchField {
    /// The field with this number, if 1.3.5 has one.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The field of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|field| field.as_str() == name)
    }

    /// Its number in the class.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// All bits of its width.
    #[must_use]
    pub const fn ones(self) -> u128 {
        u128::MAX >> (u128::BITS - self.bits())
    }

    /// Whether a set-field may write it: all but what the switch itself says of a frame (§7.2.5), and the extension headers,
    /// which are no single place in a frame.
    #[must_use]
    pub const fn is_settable(self) -> bool {
        !matches!(self, Self::InPort | Self::InPhyPort | Self::Metadata | Self::Ipv6Exthdr)
    }
}
