//! The maps: names, sizes, and how keys are made. Keys and values are whole words, so that both sides write them without
//! padding and without unsafe code.

use crate::frame::Address;

/// Ports of a gateway, numbered from 1.
pub const PORTS_MAX: u32 = 16;
/// Places for ports' counters; 0 is for what comes in by no port.
pub const PORT_SLOTS: u32 = PORTS_MAX + 1;
/// Bound devices.
pub const DEVICES_MAX: u32 = 256;
/// Open ports of the gateway.
pub const OPEN_PORTS_MAX: u32 = 16;
/// Peers under the floor.
pub const FLOOR_MAX: u32 = 32;
/// Own addresses of all ports together.
pub const ADDRESSES_MAX: u32 = 256;
/// Strangers whose meters are known at a time: the meter of all lets 100 new ones in a second, so the oldest of them is gone
/// after ten seconds, when its bucket is long full again.
pub const STRANGERS_MAX: u32 = 1024;
/// Bytes of the ring of frames to the controller: 160 of the longest.
pub const RING_BYTES: u32 = 256 * 1024;
/// Bytes of a frame that go to the controller at most.
pub const PACKET_BYTES_MAX: usize = 1536;

/// Hash of an interface's index (u32) to four words: its number and role ([`port_word`]), its MAC address, that of the bridge
/// which it is a port of (its own where it is none), and 0.
pub const PORTS: &str = "PORTS";
/// Array of [`NUMBERS_ENTRIES`] words (u64): [`number_word`] of the port whose interface has this place ([`number_place`]), where it is the
/// only one; 0 else. Most frames find their port here, for a fifth of what a hash costs.
pub const NUMBERS: &str = "NUMBERS";
/// Places of [`NUMBERS`]: sixteen ports whose indexes the kernel gave one after another never share one.
pub const NUMBERS_ENTRIES: u32 = 256;
/// Array of one `u32`: which copy of the policy is in force.
pub const SELECTORS: &str = "SELECTORS";
/// Hash of [`device_key`] to the device's index (u32).
pub const DEVICES: &str = "DEVICES";
/// Hash of [`open_key`] to 1 (u32).
pub const OPEN_PORTS: &str = "OPEN_PORTS";
/// Hash of [`floor_key`] to 1 (u32).
pub const FLOOR: &str = "FLOOR";
/// Hash of [`address_key`] to 1 (u32).
pub const ADDRESSES: &str = "ADDRESSES";
/// Per-CPU array of [`crate::Counter`], by port slot and [`crate::Kind`].
pub const KINDS: &str = "KINDS";
/// Per-CPU array of [`crate::Counter`], by port slot and [`crate::Verdict`].
pub const VERDICTS: &str = "VERDICTS";
/// Per-CPU array of [`crate::Counter`], by device.
pub const PASSED: &str = "PASSED";
/// Per-CPU array of [`crate::Counter`], by device.
pub const DROPPED: &str = "DROPPED";
/// Array of buckets (u64), by device.
pub const DEVICE_METERS: &str = "DEVICE_METERS";
/// LRU hash of MAC address (u64) to bucket (u64).
pub const STRANGER_METERS: &str = "STRANGER_METERS";
/// Array of two buckets (u64): all strangers, frames to the controller.
pub const METERS: &str = "METERS";
/// Ring of [`PacketIn`].
pub const PACKETS: &str = "PACKETS";

/// All that are pinned.
pub const ALL: [&str; 15] = [
    PORTS,
    NUMBERS,
    SELECTORS,
    DEVICES,
    OPEN_PORTS,
    FLOOR,
    ADDRESSES,
    KINDS,
    VERDICTS,
    PASSED,
    DROPPED,
    DEVICE_METERS,
    STRANGER_METERS,
    METERS,
    PACKETS,
];

/// The place in [`NUMBERS`] of an interface's index.
#[must_use]
#[inline(always)]
pub const fn number_place(interface: u32) -> u32 {
    interface % NUMBERS_ENTRIES
}

/// An interface's index, and its port's number below it.
#[must_use]
#[inline(always)]
pub const fn number_word(interface: u32, number: u32) -> u64 {
    (interface as u64) << 32 | number as u64
}

/// In [`SELECTORS`]: of the policy.
pub const SELECT_POLICY: u32 = 0;
/// In [`METERS`]: of all strangers.
pub const METER_STRANGERS: u32 = 0;
/// In [`METERS`]: of frames to the controller.
pub const METER_PACKET_IN: u32 = 1;

/// A word of [`PORTS`].
#[must_use]
pub const fn port_word(number: u32, is_sensor: bool) -> u64 {
    (is_sensor as u64) << 32 | number as u64
}

/// A bound device's key in one copy of the policy.
#[must_use]
#[inline(always)]
pub const fn device_key(copy: u32, mac: u64) -> u64 {
    ((copy & 1) as u64) << 48 | mac
}

/// An open port's key in one copy of the policy.
#[must_use]
#[inline(always)]
pub const fn open_key(copy: u32, protocol: u8, port: u16) -> u32 {
    (copy & 1) << 24 | (protocol as u32) << 16 | port as u32
}

/// A floor's key in one copy of the policy.
#[must_use]
#[inline(always)]
pub const fn floor_key(copy: u32, protocol: u8, is_v6: bool, address: Address, port: u16) -> [u64; 3] {
    let first = ((copy & 1) as u64) << 32 | (is_v6 as u64) << 24 | (protocol as u64) << 16 | port as u64;
    [first, address.high, address.low]
}

/// The key of an own address of port `number`.
#[must_use]
#[inline(always)]
pub const fn address_key(number: u32, is_v6: bool, address: Address) -> [u64; 3] {
    [(number as u64) << 8 | is_v6 as u64, address.high, address.low]
}

/// A MAC address as a number.
#[must_use]
pub fn mac_word(mac: [u8; 6]) -> u64 {
    mac.iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// One frame to the controller, as it lies in the ring.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct PacketIn {
    /// The rule.
    pub rule: u64,
    /// Where it was going out.
    pub uplink: u32,
    /// Bytes of the whole frame.
    pub total_len: u32,
    /// How many of them are here.
    pub len: u32,
    /// Nothing.
    pub padding: u32,
    /// The first bytes of it.
    pub frame: [u8; PACKET_BYTES_MAX],
}

/// Where [`PacketIn::frame`] begins.
pub const PACKET_HEAD_BYTES: usize = 24;

const _: () = assert!(core::mem::offset_of!(PacketIn, frame) == PACKET_HEAD_BYTES);
const _: () = assert!(size_of::<PacketIn>() == PACKET_HEAD_BYTES + PACKET_BYTES_MAX);

impl PacketIn {
    /// Rule, uplink, whole length and first bytes of a ring's entry; none where it is none.
    #[must_use]
    pub fn read(entry: &[u8]) -> Option<(u64, u32, u32, &[u8])> {
        let word = |at: usize| entry.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        let rule = u64::from_ne_bytes(*entry.first_chunk()?);
        let len = usize::try_from(word(16)?).ok()?;
        let frame = entry.get(PACKET_HEAD_BYTES..)?.get(..len)?;
        Some((rule, word(8)?, word(12)?, frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_two_copies_and_of_families_differ() {
        let mac = mac_word([2, 0, 0, 0, 0, 1]);
        assert_eq!(mac, 0x0200_0000_0001);
        assert_ne!(device_key(0, mac), device_key(1, mac));
        assert_ne!(open_key(0, 6, 1883), open_key(1, 6, 1883));
        assert_ne!(open_key(0, 6, 1883), open_key(0, 17, 1883));
        let address = Address::v4(0x0a00_0001);
        assert_ne!(address_key(1, false, address), address_key(1, true, address));
        assert_ne!(address_key(1, false, address), address_key(2, false, address));
        assert_ne!(floor_key(0, 6, false, address, 1), floor_key(0, 6, true, address, 1));
        assert_ne!(floor_key(0, 6, false, address, 1), floor_key(1, 6, false, address, 1));
    }

    #[test]
    fn a_rings_entry_is_read_back_and_a_short_one_refused() {
        let mut entry = [0; PACKET_HEAD_BYTES + 8];
        entry[..8].copy_from_slice(&7u64.to_ne_bytes());
        entry[8..12].copy_from_slice(&2u32.to_ne_bytes());
        entry[12..16].copy_from_slice(&1514u32.to_ne_bytes());
        entry[16..20].copy_from_slice(&3u32.to_ne_bytes());
        entry[24..27].copy_from_slice(b"abc");
        assert_eq!(PacketIn::read(&entry), Some((7, 2, 1514, &b"abc"[..])));
        entry[16..20].copy_from_slice(&9u32.to_ne_bytes());
        assert_eq!(PacketIn::read(&entry), None);
        assert_eq!(PacketIn::read(&entry[..20]), None);
    }
}
