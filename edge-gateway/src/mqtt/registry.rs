//! Which connections are up, and which must go when another comes.
//!
//! A client id is unique per device, not per server: MQTT-3.1.4-2 lets a second CONNECT with the same client id push out
//! the first, and over the whole server that would let any enrolled sensor disconnect any other by guessing its client id.

use std::collections::HashMap;

use caregate_protocol::id::DeviceId;

use super::limits::CONNECTIONS_PER_DEVICE;

/// The number of one connection; never used again.
pub(crate) type ConnectionNumber = u64;

/// One connection that is up.
#[derive(Debug)]
struct Slot<T> {
    number: ConnectionNumber,
    client_id: String,
    handle: T,
}

/// All authenticated connections; `T` is how the shell reaches one of them.
#[derive(Debug)]
pub(crate) struct Registry<T> {
    /// Per device, oldest first; never an empty list.
    devices: HashMap<DeviceId, Vec<Slot<T>>>,
    /// Always the sum over the lists.
    count: usize,
    count_max: usize,
}

/// All slots are taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl<T> Registry<T> {
    pub(crate) fn new(count_max: usize) -> Self {
        Self { devices: HashMap::new(), count: 0, count_max }
    }

    /// Admits a connection; returns the handle of the one that it takes over (same client id), or else of the device's oldest
    /// if the device has too many. An empty client id is nobody's (MQTT-3.1.3-6: the server gives it a unique one).
    pub(crate) fn admit(
        &mut self,
        device: &DeviceId,
        client_id: &str,
        number: ConnectionNumber,
        handle: T,
    ) -> Result<Option<T>, Full> {
        let slots = self.devices.get(device).map_or(&[][..], Vec::as_slice);
        let same = slots.iter().position(|slot| !client_id.is_empty() && slot.client_id == client_id);
        let displaced = same.or_else(|| (slots.len() >= CONNECTIONS_PER_DEVICE).then_some(0));
        if displaced.is_none() && self.count >= self.count_max {
            return Err(Full);
        }
        let slots = self.devices.entry(device.clone()).or_default();
        let displaced = displaced.map(|at| slots.remove(at).handle);
        slots.push(Slot { number, client_id: client_id.to_owned(), handle });
        if displaced.is_none() {
            self.count += 1;
        }
        Ok(displaced)
    }

    /// Takes a connection out; one that was displaced is out already.
    pub(crate) fn remove(&mut self, device: &DeviceId, number: ConnectionNumber) {
        let Some(slots) = self.devices.get_mut(device) else { return };
        if let Some(at) = slots.iter().position(|slot| slot.number == number) {
            slots.remove(at);
            self.count -= 1;
        }
        if slots.is_empty() {
            self.devices.remove(device);
        }
    }

    /// How many are up.
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str) -> DeviceId {
        DeviceId::new(name).unwrap()
    }

    #[test]
    fn the_same_client_id_takes_over_only_within_its_device() {
        let mut registry = Registry::new(8);
        assert_eq!(registry.admit(&device("a"), "id", 1, 'x'), Ok(None));
        assert_eq!(registry.admit(&device("b"), "id", 2, 'y'), Ok(None), "another device's id is its own");
        assert_eq!(registry.admit(&device("a"), "id", 3, 'z'), Ok(Some('x')));
        assert_eq!(registry.count(), 2);
        registry.remove(&device("a"), 1);
        assert_eq!(registry.count(), 2, "the displaced one is out already");
        registry.remove(&device("a"), 3);
        registry.remove(&device("b"), 2);
        assert_eq!(registry.count(), 0);
        assert!(registry.devices.is_empty());
    }

    #[test]
    fn empty_client_ids_do_not_take_over() {
        let mut registry = Registry::new(8);
        assert_eq!(registry.admit(&device("a"), "", 1, 'x'), Ok(None));
        assert_eq!(registry.admit(&device("a"), "", 2, 'y'), Ok(None));
    }

    #[test]
    fn a_full_server_admits_takeovers_and_nobody_else() {
        let mut registry = Registry::new(2);
        assert_eq!(registry.admit(&device("a"), "1", 1, 'p'), Ok(None));
        assert_eq!(registry.admit(&device("a"), "2", 2, 'q'), Ok(None));
        assert_eq!(registry.admit(&device("b"), "1", 3, 'r'), Err(Full));
        assert_eq!(registry.admit(&device("a"), "2", 4, 's'), Ok(Some('q')));
        registry.remove(&device("a"), 1);
        assert_eq!(registry.admit(&device("b"), "1", 5, 't'), Ok(None));
    }

    #[test]
    fn a_device_with_too_many_loses_its_oldest() {
        let mut registry = Registry::new(64);
        for number in 0..CONNECTIONS_PER_DEVICE {
            let number = u64::try_from(number).unwrap();
            assert_eq!(registry.admit(&device("a"), &number.to_string(), number, number), Ok(None));
        }
        assert_eq!(registry.admit(&device("a"), "new", 99, 99), Ok(Some(0)));
        assert_eq!(registry.count(), CONNECTIONS_PER_DEVICE);
    }
}
