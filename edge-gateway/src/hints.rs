//! What can be rebuilt or done without, in sled: the device inventory (who was heard, who was seen) and the quarantine. A store
//! that won't open is wiped and begun anew; nothing acknowledged as a reading is ever here (ADR 2). What devices have sent lies here as
//! ciphertext, each row sealed to its key.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use caregate_protocol::id::DeviceId;
use caregate_protocol::policy::Mac;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::ingest::Inbound;
use crate::inventory::table::Seen;
use crate::keys::AtRest;

/// sled's page cache.
const CACHE_BYTES: u64 = 2 << 20;
/// How often sled writes in the background; what a power cut takes is rebuilt.
const FLUSH_EVERY_MS: u64 = 1000;
/// Entries in quarantine; the oldest makes room. Enough for an installer to see what a new device sends.
const QUARANTINE_MAX: usize = 1000;
/// Bytes kept of a quarantined payload.
const QUARANTINE_PAYLOAD_MAX: usize = 4096;
/// Bytes kept of what a device says of itself.
const ABOUT_BYTES_MAX: usize = 1024;
/// Devices in the inventory: twice what a gateway serves.
const DEVICES_MAX: usize = 128;

/// A quarantined PUBLISH.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Who sent it.
    pub device: DeviceId,
    /// Where to.
    pub topic: String,
    /// When, Unix µs.
    pub received_us: i64,
    /// Label of the reason.
    pub reason: String,
    /// The reason in a sentence.
    pub detail: String,
    /// The payload's first bytes, hexadecimal.
    pub payload: String,
    /// The payload's length.
    pub bytes: usize,
}

/// A device as last heard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// When, Unix µs.
    pub last_heard_us: i64,
    /// What it last published under `…/status`.
    pub status: Option<String>,
    /// What it last published under `…/meta`.
    pub meta: Option<String>,
}

#[derive(Debug)]
struct Counts {
    quarantine: AtomicUsize,
    devices: AtomicUsize,
}

/// The store. One thread writes; clones are for reading.
#[derive(Debug, Clone)]
pub struct Hints {
    db: sled::Db,
    quarantine: sled::Tree,
    devices: sled::Tree,
    seen: sled::Tree,
    at_rest: Arc<AtRest>,
    /// Entries in each tree: sled counts by walking through all of it, which a flood of garbage would pay for per packet.
    counts: Arc<Counts>,
    /// Whether it had to be begun anew.
    pub wiped: bool,
}

fn open_once(dir: &Path, key: &[u8; 32]) -> sled::Result<Hints> {
    let db = sled::Config::default()
        .path(dir)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(Some(FLUSH_EVERY_MS))
        .open()?;
    let (quarantine, devices) = (db.open_tree("sealed-quarantine")?, db.open_tree("sealed-devices")?);
    let seen = db.open_tree("sealed-seen")?;
    let counts = Counts { quarantine: quarantine.len().into(), devices: devices.len().into() };
    let at_rest = Arc::new(AtRest::new(key));
    Ok(Hints { db, quarantine, devices, seen, at_rest, counts: Arc::new(counts), wiped: false })
}

impl Hints {
    /// Opens the store in `dir`, whose rows are sealed with `key`; wipes it where it won't open, or has rows that don't.
    ///
    /// # Errors
    /// If a fresh one can't be made either.
    pub fn open(dir: &Path, key: &[u8; 32]) -> sled::Result<Self> {
        // Closed before it is wiped.
        let failure = match open_once(dir, key) {
            Ok(hints) if hints.is_readable() => return Ok(hints),
            Ok(_closed) => "it lies in clear, of an earlier build, or under another key".to_owned(),
            Err(failure) => failure.to_string(),
        };
        warn!(%failure, "the rebuildable state does not open; it is wiped");
        if dir.is_dir() {
            std::fs::remove_dir_all(dir)?;
        } else if dir.exists() {
            std::fs::remove_file(dir)?;
        }
        Ok(Self { wiped: true, ..open_once(dir, key)? })
    }

    /// Whether what there is opens with this key, as far as the first row of each tree shows, and nothing lies in clear.
    fn is_readable(&self) -> bool {
        let opens = |tree: &sled::Tree| match tree.first() {
            Ok(Some((key, sealed))) => self.at_rest.open(&key, &sealed).is_some(),
            Ok(None) => true,
            Err(_unreadable) => false,
        };
        let in_clear: [&[u8]; 3] = [b"quarantine", b"devices", b"seen"];
        let names = self.db.tree_names();
        !names.iter().any(|name| in_clear.contains(&name.as_ref()))
            && [&self.quarantine, &self.devices, &self.seen].into_iter().all(opens)
    }

    /// Notes that a device was heard.
    pub fn heard(&self, device: &DeviceId, now_us: i64) {
        self.update(device, |entry| entry.last_heard_us = now_us);
    }

    /// Notes what a device says of itself.
    pub fn about(&self, device: &DeviceId, is_status: bool, payload: &[u8]) {
        let kept = payload.get(..payload.len().min(ABOUT_BYTES_MAX)).unwrap_or_default();
        let text = String::from_utf8_lossy(kept).into_owned();
        self.update(device, |entry| {
            *(if is_status { &mut entry.status } else { &mut entry.meta }) = Some(text)
        });
    }

    fn update(&self, device: &DeviceId, change: impl FnOnce(&mut Device)) {
        let known = self.devices.get(device.as_str()).ok().flatten();
        let is_new = known.is_none();
        if is_new && self.counts.devices.load(Ordering::Relaxed) >= DEVICES_MAX {
            return;
        }
        let mut entry: Device =
            known.and_then(|bytes| self.row(device.as_str().as_bytes(), &bytes)).unwrap_or_default();
        change(&mut entry);
        if let Some(bytes) = self.sealed(device.as_str().as_bytes(), &entry) {
            let stored = self.devices.insert(device.as_str(), bytes).map(drop);
            if self.noted(stored).is_some() && is_new {
                self.counts.devices.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Forgets what a device has sent and said.
    pub fn forget(&self, device: &DeviceId) {
        let known = self.devices.remove(device.as_str());
        if known.as_ref().is_ok_and(Option::is_some) {
            self.counts.devices.fetch_sub(1, Ordering::Relaxed);
        }
        self.noted(known.map(drop));
        for (id, bytes) in self.quarantine.iter().flatten() {
            let of = self.row(&id, &bytes).map(|entry: Quarantined| entry.device);
            if of.is_some_and(|of| of == *device) && self.noted(self.quarantine.remove(id)).is_some() {
                self.counts.quarantine.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Keeps a PUBLISH that could not be taken.
    pub fn quarantine(&self, publish: &Inbound, reason: &str, detail: &str) {
        let kept =
            publish.payload.get(..publish.payload.len().min(QUARANTINE_PAYLOAD_MAX)).unwrap_or_default();
        let entry = Quarantined {
            device: publish.device.clone(),
            topic: publish.topic.clone(),
            received_us: publish.received_us,
            reason: reason.to_owned(),
            detail: detail.to_owned(),
            payload: hex::encode(kept),
            bytes: publish.payload.len(),
        };
        let Some(id) = self.noted(self.db.generate_id()).map(u64::to_be_bytes) else { return };
        let Some(bytes) = self.sealed(&id, &entry) else { return };
        if self.noted(self.quarantine.insert(id, bytes)).is_none() {
            return;
        }
        let mut count = self.counts.quarantine.fetch_add(1, Ordering::Relaxed) + 1;
        while count > QUARANTINE_MAX && self.quarantine.pop_min().ok().flatten().is_some() {
            count = self.counts.quarantine.fetch_sub(1, Ordering::Relaxed) - 1;
        }
    }

    fn sealed<T: Serialize>(&self, key: &[u8], row: &T) -> Option<Vec<u8>> {
        self.at_rest.seal(key, &serde_json::to_vec(row).ok()?).ok()
    }

    fn row<T: DeserializeOwned>(&self, key: &[u8], sealed: &[u8]) -> Option<T> {
        serde_json::from_slice(&self.at_rest.open(key, sealed)?).ok()
    }

    fn noted<T>(&self, result: sled::Result<T>) -> Option<T> {
        result.inspect_err(|failure| warn!(%failure, "the rebuildable state was not written")).ok()
    }

    /// The newest entries of the quarantine, newest first. Walks through all of it: sled's backward iterator would bring a
    /// megabyte of constants into the binary.
    #[must_use]
    pub fn quarantined(&self, most: usize) -> Vec<Quarantined> {
        self.quarantined_before(u64::MAX, most).into_iter().map(|(_, entry)| entry).collect()
    }

    /// The newest entries of the quarantine below a number, newest first, each with its own.
    #[must_use]
    pub fn quarantined_before(&self, before: u64, most: usize) -> Vec<(u64, Quarantined)> {
        let entries = self.quarantine.range(..before.to_be_bytes()).rev().flatten();
        let read = entries.filter_map(|(number, bytes)| {
            let row = self.row(&number, &bytes)?;
            Some((u64::from_be_bytes(number.as_ref().try_into().ok()?), row))
        });
        read.take(most).collect()
    }

    /// Every device, as last heard.
    #[must_use]
    pub fn devices(&self) -> Vec<(String, Device)> {
        let entries = self.devices.iter().flatten();
        entries
            .filter_map(|(name, bytes)| {
                Some((String::from_utf8(name.to_vec()).ok()?, self.row(&name, &bytes)?))
            })
            .collect()
    }

    /// Keeps what is known of a device on the sensor network, or forgets it. The inventory bounds how many there are.
    pub fn keep_seen(&self, mac: Mac, seen: Option<&Seen>) {
        let stored = match seen.and_then(|seen| self.sealed(&mac.0, seen)) {
            Some(bytes) => self.seen.insert(mac.0, bytes),
            None => self.seen.remove(mac.0),
        };
        self.noted(stored.map(drop));
    }

    /// Every device that was seen on the sensor network.
    #[must_use]
    pub fn seen(&self) -> Vec<(Mac, Seen)> {
        let entries = self.seen.iter().flatten();
        entries
            .filter_map(|(mac, bytes)| Some((Mac((*mac).try_into().ok()?), self.row(&mac, &bytes)?)))
            .collect()
    }

    /// Writes what is in memory.
    ///
    /// # Errors
    /// sled's.
    pub fn flush(&self) -> sled::Result<()> {
        self.db.flush().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(payload: &[u8]) -> Inbound {
        Inbound {
            device: DeviceId::new("d").unwrap(),
            topic: "vitals/v1/d/num/x".into(),
            payload: payload.to_vec().into(),
            received_us: 5,
            verdict: tokio::sync::oneshot::channel().0,
        }
    }

    #[test]
    fn the_quarantine_is_bounded_and_shows_the_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        let hints = Hints::open(dir.path(), &[7; 32]).unwrap();
        for n in 0..QUARANTINE_MAX + 5 {
            hints.quarantine(&publish(format!("{n}").as_bytes()), "json", "not JSON");
        }
        let all = hints.quarantined(usize::MAX);
        assert_eq!(all.len(), QUARANTINE_MAX);
        assert_eq!(all[0].payload, hex::encode(format!("{}", QUARANTINE_MAX + 4)));
        // Page by page it is the same.
        let (mut pages, mut before) = (Vec::new(), u64::MAX);
        while let page @ [.., (last, _)] = hints.quarantined_before(before, 99).as_slice() {
            pages.extend(page.iter().map(|(_, entry)| entry.clone()));
            before = *last;
        }
        assert_eq!(pages, all);
    }

    #[test]
    fn what_was_sent_lies_on_the_disk_as_ciphertext_and_is_shown_with_the_key_alone() {
        let dir = tempfile::tempdir().unwrap();
        let hints = Hints::open(dir.path(), &[7; 32]).unwrap();
        hints.quarantine(&publish(b"heart-rate 72"), "json", "not JSON");
        hints.about(&DeviceId::new("d").unwrap(), true, b"battery of a patient");
        hints.flush().unwrap();
        assert_eq!((hints.quarantined(9).len(), hints.devices().len()), (1, 1));
        drop(hints);
        let plain = [hex::encode("heart-rate").into_bytes(), b"battery".to_vec(), b"vitals/v1".to_vec()];
        let mut bytes = 0;
        for file in walk(dir.path()) {
            let text = std::fs::read(&file).unwrap();
            bytes += text.len();
            for secret in &plain {
                assert!(!text.windows(secret.len()).any(|window| window == secret), "{}", file.display());
            }
        }
        assert!(bytes > 100, "something was written");
        let other = Hints::open(dir.path(), &[8; 32]).unwrap();
        assert!(other.quarantined(9).is_empty() && other.devices().is_empty() && other.wiped);
        // What an earlier build had in clear goes.
        other.db.open_tree("quarantine").unwrap().insert(b"1", b"heart-rate 72").unwrap();
        drop(other);
        assert!(Hints::open(dir.path(), &[8; 32]).unwrap().wiped);
        assert!(!Hints::open(dir.path(), &[8; 32]).unwrap().wiped);
        for file in walk(dir.path()) {
            assert!(!std::fs::read(file).unwrap().windows(10).any(|window| window == b"heart-rate"));
        }
    }

    fn walk(dir: &Path) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
    }

    #[test]
    fn a_device_is_forgotten_with_all_that_it_sent() {
        let dir = tempfile::tempdir().unwrap();
        let hints = Hints::open(dir.path(), &[7; 32]).unwrap();
        let other = DeviceId::new("e").unwrap();
        for device in [DeviceId::new("d").unwrap(), other.clone()] {
            hints.heard(&device, 7);
            hints.quarantine(&Inbound { device, ..publish(b"1") }, "json", "not JSON");
        }
        (0..2).for_each(|_| hints.forget(&DeviceId::new("d").unwrap()));
        let left: Vec<_> = hints.quarantined(usize::MAX).into_iter().map(|entry| entry.device).collect();
        assert_eq!(left, [other]);
        assert_eq!(hints.devices().len(), 1);
        assert_eq!(hints.counts.devices.load(Ordering::Relaxed), 1);
        assert_eq!(hints.counts.quarantine.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_store_that_wont_open_is_wiped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hints");
        std::fs::write(&path, b"not a folder").unwrap();
        let hints = Hints::open(&path, &[7; 32]).unwrap();
        assert!(hints.wiped);
        hints.heard(&DeviceId::new("d").unwrap(), 7);
        assert_eq!(hints.devices()[0].1.last_heard_us, 7);
    }
}
