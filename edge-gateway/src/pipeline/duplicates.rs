//! Recognises a reading that was stored already: a PUBLISH that comes again because its PUBACK was lost with the
//! connection, or with the gateway.
//!
//! Per device and stream it keeps the fingerprints of the last [`WINDOW`] readings. The window is part of the spool's
//! checkpoint and is completed from the records after it, so it survives a crash exactly.

use std::collections::{BTreeMap, VecDeque};

use caregate_protocol::id::{DeviceId, StreamName};

/// Fingerprints kept per stream. A client may have at most 256 unacknowledged PUBLISHes (`mqtt`), and only those can come
/// again; as many again for a broker in between.
pub const WINDOW: usize = 512;
/// Streams kept in all: 64 devices with 32 streams each. The stream that was silent longest makes room.
pub const STREAMS_MAX: usize = 2048;
/// Fingerprints kept in all: the checkpoint must fit half a spool file, also with every chain and stream there can be. Up to
/// 390 streams have their full [`WINDOW`]; of [`STREAMS_MAX`] each has 97, and what a client has in flight spreads over its
/// streams too.
pub const FINGERPRINTS_MAX: usize = 200_000;

/// The windows of all streams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Duplicates {
    devices: BTreeMap<DeviceId, BTreeMap<StreamName, Window>>,
    /// In all devices.
    streams: usize,
    clock: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Window {
    recent: VecDeque<u64>,
    touched: u64,
}

impl Window {
    /// Forgets the oldest beyond `most`.
    fn keep(&mut self, most: usize) {
        self.recent.drain(..self.recent.len().saturating_sub(most));
    }

    fn add(&mut self, fingerprint: u64, clock: u64, most: usize) {
        self.touched = clock;
        self.keep(most - 1);
        self.recent.push_back(fingerprint);
    }
}

impl Duplicates {
    /// Whether this reading is in its stream's window.
    #[must_use]
    pub fn contains(&self, device: &DeviceId, stream: &StreamName, fingerprint: u64) -> bool {
        let window = self.devices.get(device).and_then(|streams| streams.get(stream));
        // Whoever sends again sends what is newest.
        window.is_some_and(|window| window.recent.iter().rev().any(|recent| *recent == fingerprint))
    }

    /// Adds a reading that is now in the spool.
    pub fn insert(&mut self, device: &DeviceId, stream: &StreamName, fingerprint: u64) {
        self.clock += 1;
        let known = self.devices.get_mut(device).and_then(|streams| streams.get_mut(stream));
        if let Some(window) = known {
            let most = WINDOW.min(FINGERPRINTS_MAX / self.streams);
            window.add(fingerprint, self.clock, most);
            return;
        }
        if self.streams >= STREAMS_MAX {
            self.forget_oldest();
        }
        self.streams += 1;
        let most = WINDOW.min(FINGERPRINTS_MAX / self.streams);
        self.devices.values_mut().flat_map(BTreeMap::values_mut).for_each(|window| window.keep(most));
        let mut window = Window::default();
        window.add(fingerprint, self.clock, most);
        self.devices.entry(device.clone()).or_default().insert(stream.clone(), window);
    }

    fn forget_oldest(&mut self) {
        let windows = self.devices.iter().flat_map(|(device, streams)| {
            streams.iter().map(move |(stream, window)| (window.touched, device, stream))
        });
        let oldest = windows.min_by_key(|(touched, ..)| *touched);
        let Some((device, stream)) = oldest.map(|(_, device, stream)| (device.clone(), stream.clone()))
        else {
            return;
        };
        if let Some(streams) = self.devices.get_mut(&device) {
            streams.remove(&stream);
            if streams.is_empty() {
                self.devices.remove(&device);
            }
        }
        self.streams -= 1;
    }

    /// All windows: (device, stream, fingerprints from the oldest).
    pub fn iter(&self) -> impl Iterator<Item = (&DeviceId, &StreamName, impl ExactSizeIterator<Item = u64>)> {
        self.devices.iter().flat_map(|(device, streams)| {
            streams.iter().map(move |(stream, w)| (device, stream, w.recent.iter().copied()))
        })
    }

    /// How many streams are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.streams
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.streams == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize) -> (DeviceId, StreamName) {
        (DeviceId::new(&format!("d{n}")).unwrap(), StreamName::new("heart-rate").unwrap())
    }

    #[test]
    fn a_fingerprint_is_known_within_its_window_and_its_stream_only() {
        let mut duplicates = Duplicates::default();
        let (device, stream) = names(0);
        for fingerprint in 0..=WINDOW as u64 {
            duplicates.insert(&device, &stream, fingerprint);
        }
        assert!(!duplicates.contains(&device, &stream, 0));
        assert!(duplicates.contains(&device, &stream, 1));
        assert!(!duplicates.contains(&names(1).0, &stream, 1));
    }

    #[test]
    fn many_streams_share_what_the_checkpoint_can_hold() {
        let mut duplicates = Duplicates::default();
        for n in 0..STREAMS_MAX {
            for fingerprint in 0..WINDOW as u64 {
                duplicates.insert(&names(n).0, &names(n).1, fingerprint);
            }
            let kept: usize = duplicates.iter().map(|(_, _, window)| window.len()).sum();
            assert!(kept <= FINGERPRINTS_MAX, "{kept} with {n} streams");
        }
        assert!(!duplicates.contains(&names(0).0, &names(0).1, WINDOW as u64 - 98));
        assert!(duplicates.contains(&names(0).0, &names(0).1, WINDOW as u64 - 97));
    }

    #[test]
    fn the_stream_that_was_silent_longest_makes_room() {
        let mut duplicates = Duplicates::default();
        for n in 0..STREAMS_MAX {
            duplicates.insert(&names(n).0, &names(n).1, 1);
        }
        duplicates.insert(&names(0).0, &names(0).1, 2);
        duplicates.insert(&names(STREAMS_MAX).0, &names(0).1, 1);
        assert_eq!(duplicates.len(), STREAMS_MAX);
        assert!(duplicates.contains(&names(0).0, &names(0).1, 1));
        assert!(!duplicates.contains(&names(1).0, &names(1).1, 1));
    }
}
