//! What was spooled a moment ago, kept until it is sent: the present goes up without being read back from the disk. Pure.

use std::collections::VecDeque;

/// Bytes kept: some group commits at the pace of a whole ward. What finds no room is read from the spool.
const BYTES_MAX: usize = 1 << 20;

/// Records by position, ascending.
#[derive(Debug, Default)]
pub(super) struct Recent {
    records: VecDeque<(u64, Vec<u8>)>,
    bytes: usize,
}

impl Recent {
    /// Keeps a record; the oldest make room. Positions ascend.
    pub(super) fn keep(&mut self, position: u64, record: Vec<u8>) {
        self.bytes += record.len();
        self.records.push_back((position, record));
        while self.bytes > BYTES_MAX {
            let Some((_, oldest)) = self.records.pop_front() else { return };
            self.bytes -= oldest.len();
        }
    }

    /// Takes a record out that has no more than `bytes_max`.
    pub(super) fn take(&mut self, position: u64, bytes_max: usize) -> Option<Vec<u8>> {
        let at = self.records.binary_search_by_key(&position, |(position, _)| *position).ok()?;
        if self.records[at].1.len() > bytes_max {
            return None;
        }
        let (_, record) = self.records.remove(at)?;
        self.bytes -= record.len();
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_there_once_and_the_oldest_make_room() {
        let mut recent = Recent::default();
        for position in 1..=5 {
            recent.keep(position, vec![u8::try_from(position).unwrap(); BYTES_MAX / 4]);
        }
        assert_eq!(recent.take(1, usize::MAX), None);
        assert_eq!(recent.take(3, BYTES_MAX / 4).unwrap()[0], 3);
        assert_eq!(recent.take(3, usize::MAX), None);
        assert_eq!(recent.take(2, BYTES_MAX / 4 - 1), None, "it stays");
        recent.keep(6, vec![6; BYTES_MAX / 4]);
        assert_eq!((recent.take(2, usize::MAX).unwrap()[0], recent.take(6, usize::MAX).unwrap()[0]), (2, 6));
        assert_eq!(recent.bytes, BYTES_MAX / 2);
        recent.keep(7, vec![7; BYTES_MAX + 1]);
        assert_eq!((recent.records.len(), recent.bytes), (0, 0));
    }
}
