//! What dm-log-writes wrote (`drivers/md/dm-log-writes.c`): a head, then each write with its bytes, each flush, each mark, in the order in
//! which they came to be. All numbers are little-endian.
//!
//! ```text
//!   head   | magic u64 | version u64 | entries u64 | sector size u32 |     each head fills a sector
//!   entry  | sector u64 | sectors u64 | flags u64 | bytes of a mark u64 | mark … |     then the bytes written, if there are any
//! ```
//! A write stands before the first flush that began after it had ended, so that whatever stands before a flush is on the disk with it.

use std::io::Read;

use anyhow::{Context, ensure};

/// Bytes.
pub(crate) const SECTOR: usize = 512;
const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const FLUSH: u64 = 1;
/// On the disk when it ends, without a flush.
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;
/// A run makes some thousands.
const ENTRIES_MAX: u64 = 1 << 20;
/// ext4 writes at most some MiB at once.
const WRITE_BYTES_MAX: usize = 64 << 20;

/// One write, flush or mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Where its bytes go, from the disk's begin.
    pub(crate) offset: usize,
    pub(crate) bytes: Vec<u8>,
    flags: u64,
    /// What a mark says.
    pub(crate) mark: Option<usize>,
}

impl Entry {
    /// All before it is on the disk.
    pub(crate) fn is_flush(&self) -> bool {
        self.flags & FLUSH != 0
    }

    /// It is on the disk itself.
    pub(crate) fn is_forced(&self) -> bool {
        self.flags & FUA != 0
    }
}

/// The whole log.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) entries: Vec<Entry>,
}

fn number(bytes: &[u8], at: usize) -> anyhow::Result<u64> {
    Ok(u64::from_le_bytes(*bytes[at..].first_chunk().context("a head that is cut off")?))
}

impl Log {
    /// Reads all of it.
    pub(crate) fn read(mut from: impl Read) -> anyhow::Result<Self> {
        let mut head = [0; SECTOR];
        from.read_exact(&mut head)?;
        let (magic, version, count) = (number(&head, 0)?, number(&head, 8)?, number(&head, 16)?);
        ensure!(magic == MAGIC && version == VERSION, "no log: magic {magic:x}, version {version}");
        ensure!(count <= ENTRIES_MAX, "{count} entries");
        let size = usize::try_from(number(&head, 24)? & u64::from(u32::MAX))?;
        ensure!(size == SECTOR, "sectors of {size} bytes");
        let mut entries = Vec::new();
        for nth in 0..count {
            entries.push(entry(&mut from).with_context(|| format!("entry {nth} of {count}"))?);
        }
        Ok(Self { entries })
    }
}

fn entry(from: &mut impl Read) -> anyhow::Result<Entry> {
    let mut head = [0; SECTOR];
    from.read_exact(&mut head)?;
    let (sector, sectors, flags) = (number(&head, 0)?, number(&head, 8)?, number(&head, 16)?);
    let marked = usize::try_from(number(&head, 24)?)?;
    let mark = if flags & MARK == 0 {
        None
    } else {
        let text = std::str::from_utf8(head.get(32..32 + marked).context("a mark beyond its sector")?)?;
        // At its end the target marks by itself.
        text.trim_end_matches('\0').parse().ok()
    };
    let len = usize::try_from(sectors)?.checked_mul(SECTOR).filter(|len| *len <= WRITE_BYTES_MAX);
    let len = len.with_context(|| format!("a write of {sectors} sectors"))?;
    let mut bytes = Vec::new();
    // No bytes follow what was given up.
    if flags & DISCARD == 0 {
        bytes.resize(len, 0);
        from.read_exact(&mut bytes)?;
    }
    let offset = usize::try_from(sector)?.checked_mul(SECTOR).context("a sector beyond everything")?;
    Ok(Entry { offset, bytes, flags, mark })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn sector(numbers: &[u64], more: &[u8]) -> Vec<u8> {
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        bytes.extend(more);
        bytes.resize(SECTOR, 0);
        bytes
    }

    #[test]
    fn writes_flushes_and_marks_are_read_in_their_order() {
        let parts = [
            sector(&[MAGIC, 1, 5, 512], &[]),
            sector(&[9, 2, 0, 0], &[]),
            vec![7; 2 * SECTOR],
            sector(&[0, 0, FLUSH, 0], &[]),
            sector(&[0, 0, MARK, 2], b"42"),
            sector(&[1, 1, FLUSH | FUA, 0], &[]),
            vec![8; SECTOR],
            sector(&[4, 1000, DISCARD, 0], &[]),
            sector(&[3, 3, 3, 3], b"not one of the five"),
        ];
        let entries = Log::read(Cursor::new(parts.concat())).unwrap().entries;
        assert_eq!(entries.len(), 5);
        assert_eq!((entries[0].offset, entries[0].bytes.len()), (9 * SECTOR, 2 * SECTOR));
        assert!(!entries[0].is_flush() && entries[1].is_flush() && entries[1].bytes.is_empty());
        assert_eq!(entries[2].mark, Some(42));
        assert!(entries[3].is_forced() && entries[3].is_flush() && entries[3].bytes == vec![8; SECTOR]);
        assert!(entries[4].bytes.is_empty());
    }

    #[test]
    fn what_is_no_log_is_refused() {
        for head in
            [[MAGIC + 1, 1, 0, 512], [MAGIC, 2, 0, 512], [MAGIC, 1, 1 << 40, 512], [MAGIC, 1, 0, 4096]]
        {
            assert!(Log::read(Cursor::new(sector(&head, &[]))).is_err(), "{head:?}");
        }
        let cut = [sector(&[MAGIC, 1, 1, 512], &[]), sector(&[0, 2, 0, 0], &[])].concat();
        assert!(Log::read(Cursor::new(cut)).is_err());
        let endless = [sector(&[MAGIC, 1, 1, 512], &[]), sector(&[0, u64::MAX, 0, 0], &[])].concat();
        assert!(
            Log::read(Cursor::new(endless)).unwrap_err().root_cause().to_string().starts_with("a write of")
        );
    }
}
