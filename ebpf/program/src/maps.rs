//! The maps, and how they are asked. Names and layouts are `caregate_ebpf_common::map`'s.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use caregate_ebpf_common::frame::{Address, Headers};
use caregate_ebpf_common::judge::World;
use caregate_ebpf_common::map as layout;
use caregate_ebpf_common::meter::{Meter, SOURCE, STRANGERS};
use caregate_ebpf_common::{Counter, Kind, Verdict};

#[map]
static PORTS: HashMap<u32, [u64; 4]> = HashMap::with_max_entries(layout::PORTS_MAX, 0);
#[map]
static NUMBERS: Array<u64> = Array::with_max_entries(layout::NUMBERS_ENTRIES, 0);
#[map]
static SELECTORS: Array<u32> = Array::with_max_entries(1, 0);
#[map]
static DEVICES: HashMap<u64, u32> = HashMap::with_max_entries(2 * layout::DEVICES_MAX, 0);
#[map]
static OPEN_PORTS: HashMap<u32, u32> = HashMap::with_max_entries(2 * layout::OPEN_PORTS_MAX, 0);
#[map]
static FLOOR: HashMap<[u64; 3], u32> = HashMap::with_max_entries(2 * layout::FLOOR_MAX, 0);
#[map]
static ADDRESSES: HashMap<[u64; 3], u32> = HashMap::with_max_entries(layout::ADDRESSES_MAX, 0);
#[map]
static KINDS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(layout::PORT_SLOTS * Kind::COUNT, 0);
#[map]
static VERDICTS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(layout::PORT_SLOTS * Verdict::COUNT, 0);
#[map]
static PASSED: PerCpuArray<Counter> = PerCpuArray::with_max_entries(layout::DEVICES_MAX, 0);
#[map]
static DROPPED: PerCpuArray<Counter> = PerCpuArray::with_max_entries(layout::DEVICES_MAX, 0);
#[map]
static DEVICE_METERS: Array<u64> = Array::with_max_entries(layout::DEVICES_MAX, 0);
#[map]
static STRANGER_METERS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(layout::STRANGERS_MAX, 0);
#[map]
static METERS: Array<u64> = Array::with_max_entries(2, 0);
#[map]
pub(crate) static PACKETS: RingBuf = RingBuf::with_byte_size(layout::RING_BYTES, 0);

/// What was read of a frame on its way out, put down for the programs that go on with it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) network_at: u64,
    pub(crate) dscp: u64,
    pub(crate) is_link_upkeep: u64,
    /// 4 or 6 for TCP and UDP, else 0.
    pub(crate) family: u64,
    pub(crate) address_high: u64,
    pub(crate) address_low: u64,
    pub(crate) protocol: u64,
    pub(crate) port: u64,
}

#[map]
static SEEN: PerCpuArray<Seen> = PerCpuArray::with_max_entries(1, 0);

/// Puts a frame's headers down.
#[inline(always)]
pub(crate) fn see(headers: &Headers) {
    let is_v4 = matches!(headers.kind, Kind::Ipv4Tcp | Kind::Ipv4Udp);
    let is_v6 = matches!(headers.kind, Kind::Ipv6Tcp | Kind::Ipv6Udp);
    let Some(seen) = SEEN.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own value, which nobody else writes while this program runs.
    unsafe {
        *seen = Seen {
            network_at: headers.network_at as u64,
            dscp: u64::from(headers.dscp),
            is_link_upkeep: u64::from(headers.is_link_upkeep()),
            family: 4 * u64::from(is_v4) + 6 * u64::from(is_v6),
            address_high: headers.destination_address.high,
            address_low: headers.destination_address.low,
            protocol: u64::from(headers.protocol),
            port: u64::from(headers.destination_port),
        };
    }
}

/// What was put down.
#[inline(always)]
pub(crate) fn seen() -> Option<&'static Seen> {
    // SAFETY: as in `see`.
    SEEN.get_ptr(0).map(|seen| unsafe { &*seen })
}

/// What is known of the interface that a frame came in or goes out by.
#[derive(Clone, Copy)]
pub(crate) struct Port {
    pub(crate) number: u32,
    pub(crate) is_sensor: bool,
    mac: u64,
    bridge_mac: u64,
}

/// The port with this interface.
#[inline(always)]
pub(crate) fn port(interface: u32) -> Option<Port> {
    // SAFETY: an entry that is replaced meanwhile gives old or new words.
    let words = unsafe { PORTS.get(interface) }?;
    Some(Port {
        number: words[0] as u32,
        is_sensor: words[0] >> 32 != 0,
        mac: words[1],
        bridge_mac: words[2],
    })
}

/// The number of the port with this interface.
#[inline(always)]
pub(crate) fn port_number(interface: u32) -> Option<u32> {
    if let Some(word) = NUMBERS.get(layout::number_place(interface))
        && (*word >> 32) as u32 == interface
    {
        return Some(*word as u32);
    }
    // SAFETY: as in `port`.
    unsafe { PORTS.get(interface) }.map(|words| words[0] as u32)
}

/// Counts a frame of so many bytes.
#[inline(always)]
pub(crate) fn add(counter: Option<*mut Counter>, bytes: u64) {
    if let Some(counter) = counter {
        // SAFETY: the pointer is to this CPU's own value, and neither XDP nor tc egress preempts itself there.
        unsafe {
            (*counter).frames += 1;
            (*counter).bytes += bytes;
        }
    }
}

#[inline(always)]
pub(crate) fn count_kind(number: u32, kind: Kind, bytes: u64) {
    add(KINDS.get_ptr_mut(number * Kind::COUNT + kind as u32), bytes);
}

#[inline(always)]
pub(crate) fn count_verdict(number: u32, verdict: Verdict, bytes: u64) {
    add(VERDICTS.get_ptr_mut(number * Verdict::COUNT + verdict as u32), bytes);
}

/// As [`count_verdict`], of a number that was put down.
#[inline(always)]
pub(crate) fn count_verdict_number(number: u32, verdict: u32, bytes: u64) {
    if verdict < Verdict::COUNT {
        add(VERDICTS.get_ptr_mut(number * Verdict::COUNT + verdict), bytes);
    }
}

#[inline(always)]
pub(crate) fn count_device(device: u32, passes: bool, bytes: u64) {
    add(if passes { PASSED.get_ptr_mut(device) } else { DROPPED.get_ptr_mut(device) }, bytes);
}

#[inline(always)]
fn selected(which: u32) -> u32 {
    SELECTORS.get(which).map_or(0, |copy| *copy)
}

/// Whether a peer is core or controller.
#[inline(always)]
pub(crate) fn is_floor(protocol: u8, is_v6: bool, address: Address, port: u16) -> bool {
    let key = layout::floor_key(selected(layout::SELECT_POLICY), protocol, is_v6, address, port);
    FLOOR.get_ptr(key).is_some()
}

/// Takes a token, if there is one.
#[inline(always)]
pub(crate) fn take(buckets: &Array<u64>, index: u32, meter: Meter) -> bool {
    let Some(bucket) = buckets.get_ptr_mut(index) else { return false };
    // SAFETY: eight aligned bytes of a map; another CPU may write them at the same time, which costs a token.
    let state = unsafe { bucket.read_volatile() };
    let Some(next) = meter.take(state, now()) else { return false };
    // SAFETY: as above.
    unsafe { bucket.write_volatile(next) };
    true
}

/// Takes a token for a frame to the controller.
#[inline(always)]
pub(crate) fn take_packet_in() -> bool {
    take(&METERS, layout::METER_PACKET_IN, caregate_ebpf_common::meter::PACKET_IN)
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: no argument, no effect.
    unsafe { bpf_ktime_get_ns() }
}

/// What table 0 asks, answered from the maps.
pub(crate) struct Maps {
    pub(crate) port: Port,
}

impl World for Maps {
    #[inline(always)]
    fn is_own_mac(&mut self, mac: u64) -> bool {
        mac == self.port.mac || mac == self.port.bridge_mac
    }

    #[inline(always)]
    fn device(&mut self, mac: u64) -> Option<u32> {
        // SAFETY: four aligned bytes.
        unsafe { DEVICES.get(layout::device_key(selected(layout::SELECT_POLICY), mac)) }.copied()
    }

    #[inline(always)]
    fn is_open(&mut self, protocol: u8, port: u16) -> bool {
        OPEN_PORTS.get_ptr(layout::open_key(selected(layout::SELECT_POLICY), protocol, port)).is_some()
    }

    #[inline(always)]
    fn is_own_address(&mut self, is_v6: bool, address: Address) -> bool {
        ADDRESSES.get_ptr(layout::address_key(self.port.number, is_v6, address)).is_some()
    }

    #[inline(always)]
    fn meter_device(&mut self, device: u32) -> bool {
        take(&DEVICE_METERS, device, SOURCE)
    }

    /// The meter of all is looked at first, so that a flood from ever new addresses makes no entries.
    #[inline(always)]
    fn meter_stranger(&mut self, mac: u64) -> Verdict {
        let now = now();
        let Some(all) = METERS.get_ptr_mut(layout::METER_STRANGERS) else { return Verdict::MeterTotal };
        // SAFETY: as in `take`.
        let Some(next_of_all) = STRANGERS.take(unsafe { all.read_volatile() }, now) else {
            return Verdict::MeterTotal;
        };
        match STRANGER_METERS.get_ptr_mut(mac) {
            Some(bucket) => {
                // SAFETY: as in `take`.
                let Some(next) = SOURCE.take(unsafe { bucket.read_volatile() }, now) else {
                    return Verdict::MeterSource;
                };
                // SAFETY: as in `take`.
                unsafe { bucket.write_volatile(next) };
            }
            None => {
                let next = now + SOURCE.interval_ns;
                if STRANGER_METERS.insert(mac, next, 0).is_err() {
                    return Verdict::MeterSource;
                }
            }
        }
        // SAFETY: as in `take`.
        unsafe { all.write_volatile(next_of_all) };
        Verdict::Discovery
    }
}
