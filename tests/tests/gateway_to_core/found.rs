//! The core's store as a recipient finds it.

use std::collections::BTreeMap;

use caregate_protocol::id::DataClass;
use caregate_protocol::record::Record;
use clinician_feed::opener::Opener;
use core_cloud::store::{Embedded, Store};

use crate::publisher::Name;
use crate::site::{self, Site};

/// What the recipient finds in the core's store.
pub(crate) struct Found {
    /// How often each reading.
    pub(crate) readings: BTreeMap<Name, u32>,
    /// What it refused, by reason.
    pub(crate) strange: Vec<String>,
}

/// Opens the core's store, which no daemon may hold, as the recipient would. Checks the chains.
pub(crate) fn opened_at_core(site: &Site) -> Found {
    let store = Embedded::open(&site.store()).unwrap();
    let mut opener = Opener::new(site.recipient, site.hospital.clone(), [site.device_key.verifying_key()]);
    let (mut readings, mut strange, mut segments) = (BTreeMap::<Name, u32>::new(), Vec::new(), 0_u64);
    let mut at = 0;
    loop {
        let page = store.page(site.recipient, at, u64::MAX, 1 << 20).unwrap();
        if page.records.is_empty() {
            break;
        }
        for (_, record) in page.records {
            segments += u64::from(matches!(Record::decode(&record), Ok(Record::Segment(_))));
            let taken = opener.take(&record);
            strange.extend(taken.refused.iter().map(|refused| format!("{refused:?}")));
            for reading in taken.opened.into_iter().flat_map(|opened| opened.readings) {
                let streams = ["heart-rate", "ecg-ii", "fall", "walk"];
                let stream = streams.into_iter().find(|name| *name == reading.stream.as_str()).unwrap();
                let name = (reading.device.as_str().to_owned(), stream, reading.seq.unwrap());
                *readings.entry(name).or_default() += 1;
            }
        }
        at = page.next;
    }
    assert_eq!(opener.waiting_bytes(), 0, "segments without their wrap");
    let mut linked = 0;
    for class in DataClass::ALL {
        if let Some(state) = opener.chain(site::PATIENT, class) {
            assert_eq!(state.gap, None, "{class:?}");
            linked += state.verified + 1;
        }
    }
    assert_eq!(linked, segments, "each number of each chain once, from 0");
    Found { readings, strange }
}
