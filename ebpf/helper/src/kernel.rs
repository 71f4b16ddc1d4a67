//! The maps: policy and counters, each read and written through the map's own file descriptor.

use std::fmt;
use std::net::IpAddr;

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray, RingBuf};
use caregate_ebpf_common::frame::Address;
use caregate_ebpf_common::{Kind, Verdict, map};
use caregate_protocol::datapath::{Counted, Counters, Device, DeviceCounters, Policy, PortCounters, Traffic};
use thiserror::Error;

use crate::at_once::{self, AtOnce};
use crate::error::DatapathError;

/// A map of the loaded object.
type Owned = MapData;

/// All maps that user space reads or writes. The counters are two words each: frames, bytes.
pub struct Kernel {
    ports: HashMap<Owned, u32, [u64; 4]>,
    numbers: Array<Owned, u64>,
    selectors: Array<Owned, u32>,
    devices: HashMap<Owned, u64, u32>,
    open_ports: HashMap<Owned, u32, u32>,
    floor: HashMap<Owned, [u64; 3], u32>,
    addresses: HashMap<Owned, [u64; 3], u32>,
    kinds: PerCpuArray<Owned, [u64; 2]>,
    verdicts: PerCpuArray<Owned, [u64; 2]>,
    passed: PerCpuArray<Owned, [u64; 2]>,
    dropped: PerCpuArray<Owned, [u64; 2]>,
    at_once: AtOnce,
    /// What the policy in force binds; its counters are shown.
    bound: Vec<Device>,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The maps have nothing to show; the addresses are not for a log.
        f.debug_struct("Kernel").field("bound", &self.bound.len()).finish_non_exhaustive()
    }
}

/// Why a policy is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// One address for two devices.
    #[error("the address of device {0} is bound twice")]
    Twice(u16),
    /// No device has such an address.
    #[error("the address of device {0} is none of a single device")]
    Group(u16),
}

/// Why something was not put in force.
#[derive(Debug, Error)]
pub enum SetError {
    /// The policy is wrong.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The kernel said no.
    #[error(transparent)]
    Kernel(#[from] DatapathError),
}

/// What [`map::NUMBERS`] holds of these ports.
fn numbers(ports: &[(u32, [u64; 4])]) -> impl Iterator<Item = u64> {
    (0..map::NUMBERS_ENTRIES).map(|place| {
        let mut here = ports.iter().filter(|(interface, _)| map::number_place(*interface) == place);
        match (here.next(), here.next()) {
            (Some((interface, [word, ..])), None) => {
                *word & u64::from(u32::MAX) | map::number_word(*interface, 0)
            }
            _ => 0,
        }
    })
}

fn refused(error: MapError) -> DatapathError {
    DatapathError::kernel("using a BPF map", error)
}

fn take<M: TryFrom<aya::maps::Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, DatapathError> {
    ebpf.take_map(name).ok_or(DatapathError::Missing(name))?.try_into().map_err(refused)
}

/// A ring of frames.
///
/// # Errors
/// [`DatapathError`].
pub fn ring(ebpf: &mut Ebpf, name: &'static str) -> Result<RingBuf<MapData>, DatapathError> {
    take(ebpf, name)
}

impl Kernel {
    /// Takes the maps out of a loaded object and reads what is in force in them.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn open(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        let mut kernel = Self {
            ports: take(ebpf, map::PORTS)?,
            numbers: take(ebpf, map::NUMBERS)?,
            selectors: take(ebpf, map::SELECTORS)?,
            devices: take(ebpf, map::DEVICES)?,
            open_ports: take(ebpf, map::OPEN_PORTS)?,
            floor: take(ebpf, map::FLOOR)?,
            addresses: take(ebpf, map::ADDRESSES)?,
            kinds: take(ebpf, map::KINDS)?,
            verdicts: take(ebpf, map::VERDICTS)?,
            passed: take(ebpf, map::PASSED)?,
            dropped: take(ebpf, map::DROPPED)?,
            at_once: AtOnce::open(ebpf)?,
            bound: Vec::new(),
        };
        kernel.bound = kernel.read_bound()?;
        Ok(kernel)
    }

    /// How many devices are bound.
    #[must_use]
    pub fn devices(&self) -> usize {
        self.bound.len()
    }

    fn selected(&self, which: u32) -> Result<u32, DatapathError> {
        Ok(self.selectors.get(&which, 0).map_err(refused)? & 1)
    }

    fn read_bound(&self) -> Result<Vec<Device>, DatapathError> {
        let copy = self.selected(map::SELECT_POLICY)?;
        let mut bound = Vec::new();
        for entry in self.devices.iter() {
            let (key, index) = entry.map_err(refused)?;
            let [_, half, mac @ ..] = key.to_be_bytes();
            if u32::from(half) == copy
                && let Ok(index) = u16::try_from(index)
            {
                bound.push(Device { index, mac });
            }
        }
        Ok(bound)
    }

    /// Replaces the policy: fills the copy that is not in force, then one store puts it in force.
    ///
    /// # Errors
    /// [`SetError`]; what was in force still is.
    pub fn set_policy(&mut self, policy: &Policy) -> Result<(), SetError> {
        check(&policy.devices)?;
        let copy = 1 - self.selected(map::SELECT_POLICY)?;
        let devices = policy
            .devices
            .iter()
            .map(|device| (map::device_key(copy, map::mac_word(device.mac)), u32::from(device.index)));
        replace(&mut self.devices, |key| key >> 48 == u64::from(copy), devices)?;
        let open = policy.ports.iter().map(|open| (map::open_key(copy, open.protocol, open.port), 1));
        replace(&mut self.open_ports, |key| key >> 24 == copy, open)?;
        let floor = policy.floor.iter().map(|floor| {
            let (is_v6, address) = address(floor.address);
            (map::floor_key(copy, floor.protocol, is_v6, address, floor.port), 1)
        });
        replace(&mut self.floor, |key| key[0] >> 32 == u64::from(copy), floor)?;
        self.selectors.set(map::SELECT_POLICY, copy, 0).map_err(refused)?;
        self.bound.clone_from(&policy.devices);
        Ok(())
    }

    /// Makes the map of ports and the map of their addresses what is given; what is in both stays untouched.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn set_ports(
        &mut self,
        ports: &[(u32, [u64; 4])],
        addresses: &[(u32, IpAddr)],
    ) -> Result<(), DatapathError> {
        for (interface, words) in ports {
            self.ports.insert(interface, words, 0).map_err(refused)?;
        }
        remove(&mut self.ports, |key| !ports.iter().any(|(interface, _)| interface == key))?;
        for (place, word) in (0..).zip(numbers(ports)) {
            if self.numbers.get(&place, 0).map_err(refused)? != word {
                self.numbers.set(place, word, 0).map_err(refused)?;
            }
        }
        let keys: Vec<_> = addresses
            .iter()
            .take(usize::try_from(map::ADDRESSES_MAX).unwrap_or(usize::MAX))
            .map(|(number, ip)| {
                let (is_v6, address) = address(*ip);
                map::address_key(*number, is_v6, address)
            })
            .collect();
        remove(&mut self.addresses, |key| !keys.contains(key))?;
        for key in &keys {
            self.addresses.insert(key, 1, 0).map_err(refused)?;
        }
        Ok(())
    }

    /// What was counted on the ports with these numbers, and of the bound devices.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn counters(&self, ports: &[u32]) -> Result<Counters, DatapathError> {
        let mut counters = Counters::default();
        let none = Traffic::default();
        for number in ports {
            let kinds = words(&self.kinds, *number, Kind::ALL.iter().map(|kind| (kind.as_str(), none)))?;
            let at_once = self.at_once.verdicts(*number)?;
            let verdicts = Verdict::ALL.iter().map(|verdict| {
                let counted = at_once.iter().find(|(of, _)| of == verdict);
                (verdict.as_str(), counted.map_or(none, |(_, traffic)| *traffic))
            });
            let verdicts = words(&self.verdicts, *number, verdicts)?;
            counters.ports.push(PortCounters { number: *number, kinds, verdicts, ..PortCounters::default() });
        }
        let mut indexes: Vec<u16> = self.bound.iter().map(|device| device.index).collect();
        indexes.sort_unstable();
        indexes.dedup();
        for index in indexes {
            let (passed, dropped) = (sum(&self.passed, index.into())?, sum(&self.dropped, index.into())?);
            if passed.frames > 0 || dropped.frames > 0 {
                counters.devices.push(DeviceCounters { index, passed, dropped });
            }
        }
        Ok(counters)
    }
}

fn check(devices: &[Device]) -> Result<(), PolicyError> {
    for (at, device) in devices.iter().enumerate() {
        if device.mac[0] & 1 != 0 || device.mac == [0; 6] {
            return Err(PolicyError::Group(device.index));
        }
        if devices.iter().take(at).any(|other| other.mac == device.mac) {
            return Err(PolicyError::Twice(device.index));
        }
    }
    Ok(())
}

/// How the maps have an address.
fn address(address: IpAddr) -> (bool, Address) {
    match address {
        IpAddr::V4(address) => (false, Address::v4(address.to_bits())),
        IpAddr::V6(address) => {
            let [high, low] = [0, 64].map(|shift| address.to_bits() << shift >> 64);
            let word = |part: u128| u64::try_from(part).unwrap_or_default();
            (true, Address { high: word(high), low: word(low) })
        }
    }
}

fn remove<K: aya::Pod, V: aya::Pod>(
    map: &mut HashMap<Owned, K, V>,
    which: impl Fn(&K) -> bool,
) -> Result<(), DatapathError> {
    let keys: Result<Vec<K>, _> = map.keys().collect();
    for key in keys.map_err(refused)?.iter().filter(|key| which(key)) {
        map.remove(key).map_err(refused)?;
    }
    Ok(())
}

/// Makes what `of_copy` selects exactly `entries`.
fn replace<K: aya::Pod, V: aya::Pod>(
    map: &mut HashMap<Owned, K, V>,
    of_copy: impl Fn(&K) -> bool,
    entries: impl Iterator<Item = (K, V)>,
) -> Result<(), DatapathError> {
    remove(map, of_copy)?;
    for (key, value) in entries {
        map.insert(key, value, 0).map_err(refused)?;
    }
    Ok(())
}

fn sum(map: &PerCpuArray<Owned, [u64; 2]>, index: u32) -> Result<Traffic, DatapathError> {
    let per_cpu = map.get(&index, 0).map_err(refused)?;
    Ok(per_cpu.iter().fold(Traffic::default(), |sum, [frames, bytes]| Traffic {
        frames: sum.frames.wrapping_add(*frames),
        bytes: sum.bytes.wrapping_add(*bytes),
    }))
}

/// What a port's counters say, each with its name and what was counted elsewhere.
fn words(
    map: &PerCpuArray<Owned, [u64; 2]>,
    port: u32,
    names: impl ExactSizeIterator<Item = (&'static str, Traffic)>,
) -> Result<Vec<Counted>, DatapathError> {
    let mut counted = Vec::new();
    let first = port * u32::try_from(names.len()).unwrap_or_default();
    for (index, (word, elsewhere)) in (first..).zip(names) {
        let traffic = at_once::add(sum(map, index)?, elsewhere);
        if traffic.frames > 0 {
            counted.push(Counted { word: word.to_owned(), traffic });
        }
    }
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_words() {
        assert_eq!(
            address(IpAddr::from([10, 0, 0, 1])),
            (false, Address { high: 0x0a00_0001 << 32, low: 0 })
        );
        let v6: IpAddr = "2001:db8::ff".parse().unwrap();
        assert_eq!(address(v6), (true, Address { high: 0x2001_0db8_0000_0000, low: 0xff }));
    }

    #[test]
    fn an_address_binds_one_device() {
        let device = |index, last| Device { index, mac: [2, 0, 0, 0, 0, last] };
        assert_eq!(check(&[device(0, 1), device(0, 2), device(1, 3)]), Ok(()));
        assert_eq!(check(&[device(0, 1), device(1, 1)]), Err(PolicyError::Twice(1)));
        assert_eq!(check(&[Device { index: 4, mac: [0xff; 6] }]), Err(PolicyError::Group(4)));
        assert_eq!(check(&[Device { index: 4, mac: [0; 6] }]), Err(PolicyError::Group(4)));
    }
}
