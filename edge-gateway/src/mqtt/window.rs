//! What a door has handed to the pipeline and not yet had an answer for: first in, first answered.

use std::collections::VecDeque;

use super::limits::PUBLISH_OVERHEAD_BYTES;

/// Outstanding publishes of one connection in the order of receipt, which is also the order of their PUBACKs
/// (MQTT-4.6.0-2).
#[derive(Debug)]
pub(crate) struct Window<T> {
    entries: VecDeque<(usize, T)>,
    /// Always the sum of the entries' bytes.
    bytes: usize,
    count_max: usize,
    bytes_max: usize,
}

/// What a publish of this size counts for.
pub(crate) fn cost(topic: &str, payload: &[u8]) -> usize {
    topic.len() + payload.len() + PUBLISH_OVERHEAD_BYTES
}

impl<T> Window<T> {
    /// Both bounds are at least 1: a window that is full when empty would never be read again.
    pub(crate) fn new(count_max: usize, bytes_max: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, count_max: count_max.max(1), bytes_max: bytes_max.max(1) }
    }

    /// Full: nothing more may be taken in until the oldest is answered.
    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= self.count_max || self.bytes >= self.bytes_max
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn push(&mut self, bytes: usize, entry: T) {
        self.bytes += bytes;
        self.entries.push_back((bytes, entry));
    }

    /// Removes the oldest.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let (bytes, entry) = self.entries.pop_front()?;
        self.bytes -= bytes;
        Some(entry)
    }

    /// Where the oldest is of which this holds.
    pub(crate) fn position(&self, holds: impl Fn(&T) -> bool) -> Option<usize> {
        self.entries.iter().position(|(_, entry)| holds(entry))
    }

    /// Puts another in the place of one, which still counts for as many bytes.
    pub(crate) fn replace(&mut self, at: usize, entry: T) -> Option<T> {
        self.entries.get_mut(at).map(|(_, old)| std::mem::replace(old, entry))
    }

    /// The oldest, which is the next to be answered.
    pub(crate) fn oldest_mut(&mut self) -> Option<&mut T> {
        self.entries.front_mut().map(|(_, entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_by_count_and_by_bytes_and_free_again() {
        let mut window = Window::new(2, 100);
        window.push(10, 'a');
        assert!(!window.is_full());
        window.push(10, 'b');
        assert!(window.is_full(), "by count");
        assert_eq!(window.pop(), Some('a'));
        assert!(!window.is_full());
        window.push(90, 'c');
        assert_eq!(window.pop(), Some('b'));
        window.push(10, 'd');
        assert!(window.is_full(), "by bytes");
        assert_eq!((window.pop(), window.pop(), window.pop()), (Some('c'), Some('d'), None));
        assert!(window.is_empty() && window.bytes == 0);
    }
}
