//! Finds what a search asks for among the readings that are held.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use caregate_protocol::id::{DeviceId, PatientId};

use super::observation::{Item, category, codings, effective_us, is_pressure, panel_codings};
use super::resource::{CATEGORY, Coding};
use super::search::{Cursor, Search, Tokens};
use crate::feed::Feed;
use crate::ring::Entry;

/// Bytes of one answer, about: a page of long waveforms ends early and has a next one.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// One page of what matches, newest first.
#[derive(Debug)]
pub struct Found {
    /// How many match in all.
    pub total: usize,
    /// This page.
    pub items: Vec<Item>,
    /// Where the next one begins, if there is one.
    pub next: Option<Cursor>,
}

/// Readings of one device and instant.
type PanelKey = (PatientId, DeviceId, i64);

fn panel_key(entry: &Entry) -> PanelKey {
    (entry.patient, entry.reading.device.clone(), effective_us(entry))
}

/// What a search says about one quantity, looked up once per quantity.
#[derive(Debug, Default)]
struct Wanted {
    by_quantity: HashMap<u16, bool>,
}

impl Wanted {
    fn is(&mut self, search: &Search, quantity: u16) -> bool {
        *self.by_quantity.entry(quantity).or_insert_with(|| is_wanted(search, quantity))
    }
}

fn is_wanted(search: &Search, quantity: u16) -> bool {
    let own = if is_pressure(quantity) { panel_codings() } else { codings(quantity) };
    let category = [Coding { system: CATEGORY, code: category(quantity).to_owned() }];
    let all = |wanted: &[Tokens], codings: &[Coding]| wanted.iter().all(|tokens| tokens.match_any(codings));
    all(&search.code, &own) && all(&search.category, &category)
}

/// The codes of an item and its components.
fn combined(item: &Item) -> Vec<Coding> {
    match item {
        Item::Single(entry) => codings(entry.quantity()),
        Item::Panel(entries) => {
            panel_codings().into_iter().chain(entries.iter().flat_map(|e| codings(e.quantity()))).collect()
        }
    }
}

/// Collects items, pressures as panels.
#[derive(Debug, Default)]
struct Items {
    singles: Vec<Arc<Entry>>,
    panels: HashMap<PanelKey, Vec<Arc<Entry>>>,
}

impl Items {
    fn push(&mut self, entry: &Arc<Entry>) {
        if is_pressure(entry.quantity()) {
            self.panels.entry(panel_key(entry)).or_default().push(Arc::clone(entry));
        } else {
            self.singles.push(Arc::clone(entry));
        }
    }

    fn into_items(self) -> impl Iterator<Item = Item> {
        self.singles.into_iter().map(Item::Single).chain(self.panels.into_values().map(Item::Panel))
    }
}

fn place(item: &Item) -> Cursor {
    item.first().map_or(Cursor { effective_us: 0, n: 0 }, |entry| Cursor {
        effective_us: effective_us(entry),
        n: entry.n,
    })
}

/// One page of what matches. Walks everything that is held: for a blocking thread.
#[must_use]
pub fn search(feed: &Feed, search: &Search) -> Found {
    let (mut items, mut wanted) = (Items::default(), Wanted::default());
    feed.scan(|entry| {
        if search.patients.iter().all(|patient| *patient == entry.patient)
            && wanted.is(search, entry.quantity())
            && search.date.iter().all(|date| date.matches(effective_us(entry)))
        {
            items.push(entry);
        }
    });
    let combo = |item: &Item| {
        search.combo_code.is_empty() || {
            let codings = combined(item);
            search.combo_code.iter().all(|tokens| tokens.match_any(&codings))
        }
    };
    let mut found: Vec<_> = items.into_items().filter(combo).map(|item| (place(&item), item)).collect();
    let total = found.len();
    found.sort_unstable_by_key(|(place, _)| Reverse(*place));
    let mut rest =
        found.into_iter().filter(|(place, _)| search.after.is_none_or(|after| *place < after)).peekable();
    let (mut page, mut bytes, mut last) = (Vec::new(), 0, None);
    while page.len() < search.count
        && (bytes < ANSWER_BYTES_MAX || page.is_empty())
        && let Some((place, item)) = rest.next()
    {
        bytes += item.size();
        last = Some(place);
        page.push(item);
    }
    Found { total, items: page, next: last.filter(|_| rest.peek().is_some()) }
}

/// The Observation with this id, if it is held. Walks everything: for a blocking thread.
#[must_use]
pub fn read(feed: &Feed, id: &str) -> Option<Item> {
    let wanted = Id::parse(id)?;
    let mut items = Items::default();
    feed.scan(|entry| {
        if wanted.names(entry) {
            items.push(entry);
        }
    });
    items.into_items().next()
}

/// What an id says, so that most readings are told apart without a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Id<'a> {
    Single { patient: PatientId, class: u8, segment: u64, index: usize },
    Panel(&'a str),
}

impl<'a> Id<'a> {
    fn parse(id: &'a str) -> Option<Self> {
        if id.starts_with("bp-") {
            return Some(Self::Panel(id));
        }
        let mut parts = id.split('-');
        let patient = parts.next()?.parse().ok()?;
        let class = parts.next()?.parse().ok()?;
        let (segment, index) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let parsed = Self::Single { patient, class, segment, index };
        // One spelling: no `0x`, no leading zeroes, nothing behind.
        (id == format!("{patient}-{class}-{segment}-{index}")).then_some(parsed)
    }

    fn names(self, entry: &Arc<Entry>) -> bool {
        match self {
            Self::Single { patient, class, segment, index } => {
                !is_pressure(entry.quantity())
                    && (entry.segment, entry.index) == (segment, index)
                    && (entry.patient, entry.class as u8) == (patient, class)
            }
            Self::Panel(id) => {
                is_pressure(entry.quantity()) && Item::Panel(vec![Arc::clone(entry)]).id() == id
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::Chains;
    use crate::ring::tests::{numeric, segment};

    const US: i64 = 1_790_000_000_000_000;

    fn feed() -> Feed {
        let feed = Feed::new(usize::MAX);
        for (sequence, n) in (0_i32..50).enumerate() {
            // The live present comes before the backlog.
            let at = Some(US + i64::from((n + 25) % 50) * 1_000_000);
            let readings = vec![
                numeric("heart-rate", 1, f64::from(n), at),
                numeric("systolic", 5, 120.0, at),
                numeric("diastolic", 6, 80.0, at),
            ];
            feed.append(vec![segment(sequence as u64, readings)], Chains::new(), US / 1000);
        }
        feed
    }

    fn parse(query: &[(&str, &str)]) -> Search {
        let pairs: Vec<_> = query.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Search::parse(&pairs).unwrap()
    }

    fn total(query: &[(&str, &str)]) -> usize {
        search(&feed(), &parse(query)).total
    }

    #[test]
    fn parameters_narrow() {
        assert_eq!(total(&[]), 100);
        assert_eq!(total(&[("code", "http://loinc.org|8867-4")]), 50);
        assert_eq!(total(&[("code", "85354-9")]), 50);
        assert_eq!(total(&[("code", "8480-6")]), 0, "a code of a component");
        assert_eq!(total(&[("combo-code", "8480-6")]), 50);
        assert_eq!(total(&[("category", "vital-signs")]), 100);
        assert_eq!(total(&[("category", "procedure")]), 0);
        assert_eq!(total(&[("patient", &"01".repeat(16))]), 100);
        assert_eq!(total(&[("patient", &"02".repeat(16))]), 0);
        assert_eq!(total(&[("patient", &"01".repeat(16)), ("patient", &"02".repeat(16))]), 0);
        assert_eq!(total(&[("date", "ge2026-09-21T14:13:30Z"), ("date", "lt2026-09-21T14:13:40Z")]), 20);
        assert_eq!(total(&[("code", "8867-4"), ("code", "85354-9")]), 0);
    }

    #[test]
    fn pages_show_each_match_once_newest_first() {
        let feed = feed();
        let (mut query, mut seen) = (parse(&[("_count", "7")]), Vec::new());
        loop {
            let found = search(&feed, &query);
            assert_eq!(found.total, 100);
            seen.extend(found.items.iter().map(|item| (place(item), item.id())));
            match found.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        assert!(seen.windows(2).all(|pair| pair[0].0 > pair[1].0));
        assert_eq!(seen.len(), 100);
        for (_, id) in &seen {
            assert_eq!(read(&feed, id).unwrap().id(), *id);
        }
        let one = "01".repeat(16);
        let near = [
            format!("0x{one}-1-0-0"),
            format!("{one}-01-0-0"),
            format!("{one}-1-0-0-"),
            format!("{one}-1-0-1"),
        ];
        for id in near.iter().map(String::as_str).chain(["", "bp-", "bp-00", "x-1-2-3", &one, "é"]) {
            assert!(read(&feed, id).is_none(), "{id}");
        }
        assert!(read(&feed, &format!("{one}-1-0-0")).is_some());
    }

    #[test]
    fn a_count_of_none_counts() {
        let found = search(&feed(), &parse(&[("_count", "0")]));
        assert_eq!((found.total, found.items.len(), found.next), (100, 0, None));
    }
}
