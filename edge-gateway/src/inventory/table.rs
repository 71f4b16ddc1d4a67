//! Who was seen on the sensor ports. Pure; `now` is given.
//!
//! Anybody on the network can make up addresses, so the table is bounded, newcomers come in slowly, and a bound sensor's
//! entry makes room for nobody.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use caregate_protocol::id::DeviceId;
use caregate_protocol::policy::Mac;
use serde::{Deserialize, Serialize};

use super::frame::{Means, Sighting};

/// Devices at once, some 400 bytes each: a clinic's floor. Beyond it the unbound one that was silent longest makes room.
pub const DEVICES_MAX: usize = 1024;
/// Addresses kept of one device, the newest: one of IPv4, and of IPv6 a link-local, a stable and a temporary one.
pub const ADDRESSES_MAX: usize = 4;
/// Newcomers at once: a household coming back after a power cut.
const NEWCOMERS_BURST: i64 = 64;
/// And then one in so long: a flood of made-up addresses needs half an hour to push out who is silent meanwhile.
const NEWCOMER_EVERY_US: i64 = 2_000_000;

/// One device as seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// The sensor port, from 1, where it was seen last.
    pub port: u32,
    /// The addresses that it claimed, the newest last.
    pub addresses: Vec<IpAddr>,
    /// The host name that it gave itself.
    pub name: Option<String>,
    /// What it said that it is.
    pub about: Option<String>,
    /// By what it was seen.
    pub means: BTreeSet<Means>,
    /// First frame, Unix µs.
    pub first_us: i64,
    /// Last frame, Unix µs.
    pub last_us: i64,
    /// Frames that reached the inventory; not all that were sent.
    pub frames: u64,
}

/// What became of a sighting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// It has an entry.
    Known,
    /// It has one now.
    New,
    /// Too many newcomers came in a short time; it has none yet.
    TooManyNew,
    /// All entries are bound sensors'.
    Full,
}

impl Noted {
    /// A word for counters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::New => "new",
            Self::TooManyNew => "too_many_new",
            Self::Full => "full",
        }
    }
}

/// The inventory.
#[derive(Debug, Default)]
pub struct Inventory {
    devices: HashMap<Mac, Seen>,
    bound: BTreeMap<Mac, DeviceId>,
    /// Changed since the last [`Self::changes`].
    changed: BTreeSet<Mac>,
    /// When the next newcomer would be within the rate, were there no burst.
    newcomer_at_us: i64,
}

impl Inventory {
    /// Takes what was kept, at most [`DEVICES_MAX`] and the newest of it.
    #[must_use]
    pub fn restored(kept: impl IntoIterator<Item = (Mac, Seen)>) -> Self {
        let mut kept: Vec<_> = kept.into_iter().collect();
        kept.sort_unstable_by_key(|(_, seen)| std::cmp::Reverse(seen.last_us));
        let changed = kept.iter().skip(DEVICES_MAX).map(|(mac, _)| *mac).collect();
        kept.truncate(DEVICES_MAX);
        Self { devices: kept.into_iter().collect(), changed, ..Self::default() }
    }

    /// Says which addresses are bound sensors', and whose they are.
    pub fn bind(&mut self, bound: BTreeMap<Mac, DeviceId>) {
        self.bound = bound;
    }

    /// The bound sensor with this address.
    #[must_use]
    pub fn bound(&self, mac: Mac) -> Option<&DeviceId> {
        self.bound.get(&mac)
    }

    /// Bound sensors by their address, seen or not.
    pub fn bindings(&self) -> impl Iterator<Item = (Mac, &DeviceId)> {
        self.bound.iter().map(|(mac, device)| (*mac, device))
    }

    /// Notes a sighting on `port`.
    pub fn note(&mut self, port: u32, sighting: &Sighting, now_us: i64) -> Noted {
        let mac = sighting.mac;
        if let Some(seen) = self.devices.get_mut(&mac) {
            seen.take(port, sighting, now_us);
            self.changed.insert(mac);
            return Noted::Known;
        }
        let is_bound = self.bound.contains_key(&mac);
        if !is_bound && !self.let_in(now_us) {
            return Noted::TooManyNew;
        }
        if self.devices.len() >= DEVICES_MAX && !self.make_room() {
            return Noted::Full;
        }
        let mut seen = Seen {
            port,
            addresses: Vec::new(),
            name: None,
            about: None,
            means: BTreeSet::new(),
            first_us: now_us,
            last_us: now_us,
            frames: 0,
        };
        seen.take(port, sighting, now_us);
        self.devices.insert(mac, seen);
        self.changed.insert(mac);
        Noted::New
    }

    fn let_in(&mut self, now_us: i64) -> bool {
        // A clock that went back must not shut the door for as long as it went back.
        let latest = now_us.saturating_add(NEWCOMERS_BURST * NEWCOMER_EVERY_US);
        let at = self.newcomer_at_us.clamp(now_us, latest);
        let is_due = at.saturating_sub(now_us) <= (NEWCOMERS_BURST - 1) * NEWCOMER_EVERY_US;
        self.newcomer_at_us = if is_due { at.saturating_add(NEWCOMER_EVERY_US) } else { at };
        is_due
    }

    fn make_room(&mut self) -> bool {
        let strangers = self.devices.iter().filter(|(mac, _)| !self.bound.contains_key(mac));
        let Some(silent) = strangers.min_by_key(|(mac, seen)| (seen.last_us, **mac)).map(|(mac, _)| *mac)
        else {
            return false;
        };
        self.devices.remove(&silent);
        self.changed.insert(silent);
        true
    }

    /// Forgets a device until it is seen again.
    pub fn forget(&mut self, mac: Mac) -> bool {
        let known = self.devices.remove(&mac).is_some();
        if known {
            self.changed.insert(mac);
        }
        known
    }

    /// Everybody seen, the last one first.
    #[must_use]
    pub fn devices(&self) -> Vec<(Mac, &Seen)> {
        let mut all: Vec<_> = self.devices.iter().map(|(mac, seen)| (*mac, seen)).collect();
        all.sort_unstable_by_key(|(mac, seen)| (std::cmp::Reverse(seen.last_us), *mac));
        all
    }

    /// One device.
    #[must_use]
    pub fn device(&self, mac: Mac) -> Option<&Seen> {
        self.devices.get(&mac)
    }

    /// How many were seen.
    #[must_use]
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// True where nobody was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// What changed since the last call: entries as they are now, or none where one is gone.
    pub fn changes(&mut self) -> Vec<(Mac, Option<Seen>)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|mac| (mac, self.devices.get(&mac).cloned())).collect()
    }
}

impl Seen {
    fn take(&mut self, port: u32, sighting: &Sighting, now_us: i64) {
        self.port = port;
        self.last_us = self.last_us.max(now_us);
        self.frames = self.frames.saturating_add(1);
        self.means.insert(sighting.means);
        if let Some(address) = sighting.address
            && self.addresses.last() != Some(&address)
        {
            self.addresses.retain(|known| *known != address);
            if self.addresses.len() >= ADDRESSES_MAX {
                self.addresses.remove(0);
            }
            self.addresses.push(address);
        }
        for (kept, said) in [(&mut self.name, &sighting.name), (&mut self.about, &sighting.about)] {
            if said.is_some() && kept != said {
                kept.clone_from(said);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn mac(n: u32) -> Mac {
        let [a, b, c, d] = n.to_be_bytes();
        Mac([2, 0, a, b, c, d])
    }

    fn sighting(n: u32) -> Sighting {
        Sighting { mac: mac(n), means: Means::Arp, address: None, name: None, about: None, fault: None }
    }

    fn bound(numbers: impl IntoIterator<Item = u32>) -> BTreeMap<Mac, DeviceId> {
        numbers.into_iter().map(|n| (mac(n), DeviceId::new(&format!("d{n}")).unwrap())).collect()
    }

    /// Fills the table, a newcomer each two seconds.
    fn full() -> (Inventory, i64) {
        let mut inventory = Inventory::default();
        let mut now = 0;
        for n in 0..u32::try_from(DEVICES_MAX).unwrap() {
            now += NEWCOMER_EVERY_US;
            assert_eq!(inventory.note(1, &sighting(n), now), Noted::New);
        }
        (inventory, now)
    }

    #[test]
    fn a_device_gathers_what_it_says() {
        let mut inventory = Inventory::default();
        let first = Sighting { address: Some([192, 168, 8, 20].into()), ..sighting(1) };
        assert_eq!(inventory.note(1, &first, 5), Noted::New);
        let named = Sighting { means: Means::Dhcp, name: Some("cuff".into()), ..sighting(1) };
        assert_eq!(inventory.note(2, &named, 9), Noted::Known);
        assert_eq!(inventory.note(2, &sighting(1), 7), Noted::Known);
        let seen = inventory.device(mac(1)).unwrap();
        assert_eq!((seen.port, seen.first_us, seen.last_us, seen.frames), (2, 5, 9, 3));
        assert_eq!(seen.name.as_deref(), Some("cuff"));
        assert_eq!(seen.means, BTreeSet::from([Means::Arp, Means::Dhcp]));
        assert_eq!(seen.addresses, [IpAddr::from([192, 168, 8, 20])]);
    }

    #[test]
    fn the_newest_addresses_are_kept() {
        let mut inventory = Inventory::default();
        for last in [1, 2, 3, 1, 4, 5] {
            let claimed = Sighting { address: Some([10, 0, 0, last].into()), ..sighting(1) };
            inventory.note(1, &claimed, 0);
        }
        let kept: Vec<_> = inventory.device(mac(1)).unwrap().addresses.clone();
        assert_eq!(kept, [3, 1, 4, 5].map(|last| IpAddr::from([10, 0, 0, last])));
    }

    #[test]
    fn the_stranger_silent_longest_makes_room_and_bound_sensors_stay() {
        let (mut inventory, now) = full();
        inventory.bind(bound([0]));
        inventory.note(1, &sighting(1), now);
        assert_eq!(inventory.note(1, &sighting(5000), now + NEWCOMER_EVERY_US), Noted::New);
        assert_eq!(inventory.len(), DEVICES_MAX);
        assert!(inventory.device(mac(0)).is_some() && inventory.device(mac(1)).is_some());
        assert_eq!(inventory.device(mac(2)), None);
        let last = u32::try_from(DEVICES_MAX).unwrap();
        inventory.bind(bound((0..last).chain([5000])));
        assert_eq!(inventory.note(1, &sighting(6000), now + 10 * SECOND), Noted::Full);
    }

    #[test]
    fn newcomers_come_in_slowly_and_bound_sensors_at_once() {
        let mut inventory = Inventory::default();
        inventory.bind(bound([900]));
        let noted: Vec<_> = (0..100).map(|n| inventory.note(1, &sighting(n), SECOND)).collect();
        let burst = usize::try_from(NEWCOMERS_BURST).unwrap();
        assert!(noted[..burst].iter().all(|noted| *noted == Noted::New));
        assert!(noted[burst..].iter().all(|noted| *noted == Noted::TooManyNew));
        assert_eq!(inventory.note(1, &sighting(900), SECOND), Noted::New);
        let soon = SECOND + NEWCOMER_EVERY_US - 1;
        assert!(
            (SECOND..=soon)
                .step_by(1000)
                .all(|now| inventory.note(1, &sighting(99), now) == Noted::TooManyNew)
        );
        assert_eq!(inventory.note(1, &sighting(90), SECOND + NEWCOMER_EVERY_US), Noted::New);
        assert_eq!(inventory.note(1, &sighting(91), SECOND + NEWCOMER_EVERY_US), Noted::TooManyNew);
        // The clock goes back by a day.
        assert_eq!(inventory.note(1, &sighting(91), -86_400 * SECOND), Noted::TooManyNew);
        assert_eq!(inventory.note(1, &sighting(91), -86_397 * SECOND), Noted::New);
    }

    #[test]
    fn changes_are_told_once() {
        let mut inventory = Inventory::default();
        inventory.note(1, &sighting(1), 0);
        inventory.note(1, &sighting(2), 0);
        assert_eq!(inventory.changes().len(), 2);
        assert_eq!(inventory.changes(), []);
        assert!(inventory.forget(mac(1)) && !inventory.forget(mac(1)));
        assert_eq!(inventory.changes(), [(mac(1), None)]);
    }

    #[test]
    fn what_was_kept_comes_back_within_the_bound() {
        let (mut inventory, now) = full();
        inventory.note(1, &sighting(7000), now + NEWCOMER_EVERY_US);
        let mut kept: Vec<_> =
            inventory.devices().into_iter().map(|(mac, seen)| (mac, seen.clone())).collect();
        kept.push((mac(8000), Seen { last_us: -1, ..kept[0].1.clone() }));
        let mut again = Inventory::restored(kept);
        assert_eq!(again.devices().len(), DEVICES_MAX);
        assert_eq!(again.devices(), inventory.devices());
        assert_eq!(again.changes(), [(mac(8000), None)], "what did not fit goes from the store too");
    }
}
