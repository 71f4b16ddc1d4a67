//! One file: what the page cache has, and what the disk may have.

use std::collections::BTreeMap;

use crate::random::Random;

/// What the page cache writes at once.
pub(crate) const PAGE: usize = 4096;
/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// A page's contents since it was last known to be on the disk: the first is there, the last is in the cache.
#[derive(Debug, Clone)]
struct Page {
    versions: Vec<Vec<u8>>,
    /// Written since the last sync, also since one that failed.
    is_dirty: bool,
}

impl Page {
    fn new() -> Self {
        Self { versions: vec![vec![0; PAGE]], is_dirty: false }
    }

    fn newest(&self) -> &[u8] {
        self.versions.last().map_or(&[], Vec::as_slice)
    }

    fn sector(&self, version: usize, at: usize) -> &[u8] {
        &self.versions[version][at..at + SECTOR]
    }
}

/// A file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pages {
    pages: BTreeMap<usize, Page>,
    /// Lengths since the last sync; the last is the present one.
    lengths: Vec<usize>,
}

impl Pages {
    /// One that is on the disk in whole.
    pub(crate) fn durable(bytes: &[u8]) -> Self {
        let mut pages = Self { pages: BTreeMap::new(), lengths: vec![0] };
        pages.write(0, bytes);
        pages.sync();
        pages
    }

    pub(crate) fn len(&self) -> usize {
        self.lengths.last().copied().unwrap_or(0)
    }

    fn change(&mut self, number: usize, change: impl FnOnce(&mut [u8])) {
        let page = self.pages.entry(number).or_insert_with(Page::new);
        let mut bytes = page.newest().to_vec();
        change(&mut bytes);
        page.versions.push(bytes);
        page.is_dirty = true;
    }

    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        let mut at = offset;
        while at < end {
            let (number, within) = (at / PAGE, at % PAGE);
            let count = (PAGE - within).min(end - at);
            let part = &bytes[at - offset..at - offset + count];
            self.change(number, |page| page[within..within + count].copy_from_slice(part));
            at += count;
        }
        if end > self.len() {
            self.lengths.push(end);
        }
    }

    /// Cuts or lengthens; what is beyond the end is zeroes from now on.
    pub(crate) fn set_len(&mut self, len: usize) {
        if len < self.len() {
            let beyond: Vec<usize> = self.pages.range(len / PAGE..).map(|(number, _)| *number).collect();
            for number in beyond {
                let from = len.saturating_sub(number * PAGE).min(PAGE);
                self.change(number, |page| page[from..].fill(0));
            }
        }
        if len != self.len() {
            self.lengths.push(len);
        }
    }

    pub(crate) fn sync(&mut self) {
        for page in self.pages.values_mut().filter(|page| page.is_dirty) {
            page.versions.drain(..page.versions.len() - 1);
            page.is_dirty = false;
        }
        self.lengths.drain(..self.lengths.len().saturating_sub(1));
    }

    /// The disk refused: the pages are clean for the cache, and anything on the disk.
    pub(crate) fn fail_sync(&mut self) {
        self.pages.values_mut().for_each(|page| page.is_dirty = false);
    }

    pub(crate) fn read(&self, offset: usize, out: &mut [u8]) {
        for (nth, byte) in out.iter_mut().enumerate() {
            let at = offset + nth;
            *byte = self.pages.get(&(at / PAGE)).map_or(0, |page| page.newest()[at % PAGE]);
        }
    }

    /// As the disk may have it.
    pub(crate) fn cut(&self, random: &mut Random) -> Vec<u8> {
        let len = if self.lengths.is_empty() { 0 } else { self.lengths[random.index(self.lengths.len())] };
        let mut bytes = vec![0; len];
        for (number, page) in &self.pages {
            // Often all of a page has come to the disk or nothing, which a fair choice for each sector would hardly show.
            let whole = random.one_in(2).then(|| random.index(page.versions.len()));
            for at in (0..PAGE).step_by(SECTOR) {
                let start = number * PAGE + at;
                if start >= len {
                    break;
                }
                let version = whole.unwrap_or_else(|| random.index(page.versions.len()));
                let count = SECTOR.min(len - start);
                bytes[start..start + count].copy_from_slice(&page.sector(version, at)[..count]);
            }
        }
        bytes
    }
}
