//! Words that wait to be sent: bounded, the newest of each alarm, tried again for a while. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use caregate_protocol::alarm::Priority;

/// Words that wait: all alarms of one patient. Beyond it the oldest of the lowest priority goes.
pub const WAITING_MAX: usize = 64;
/// First pause after a failure, doubled each time up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause: a receiver that returns is used within a minute.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Attempts of one word: some five minutes; what is older than that is no alarm any more.
pub const ATTEMPTS_MAX: u32 = 10;

/// A word about one alarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The patient's place, and the alarm's number.
    pub about: (usize, u64),
    /// How urgent.
    pub priority: Priority,
    /// JSON.
    pub body: Vec<u8>,
}

/// What waits.
#[derive(Debug, Default)]
pub struct Queue {
    waiting: VecDeque<(Word, u32)>,
    pause: Option<Duration>,
}

impl Queue {
    /// Takes a word, in place of an older one about the same alarm. Returns how many were dropped for it.
    pub fn put(&mut self, word: Word) -> usize {
        let mut dropped = 0;
        if let Some((older, attempts)) = self.waiting.iter_mut().find(|(older, _)| older.about == word.about)
        {
            (*older, *attempts) = (word, 0);
            return dropped;
        }
        self.waiting.push_back((word, 0));
        while self.waiting.len() > WAITING_MAX {
            let least = self.waiting.iter().map(|(word, _)| word.priority).min();
            let at = self.waiting.iter().position(|(word, _)| Some(word.priority) == least);
            at.and_then(|at| self.waiting.remove(at));
            dropped += 1;
        }
        dropped
    }

    /// The next word to send: the oldest of the highest priority.
    #[must_use]
    pub fn next(&self) -> Option<Word> {
        let most = self.waiting.iter().map(|(word, _)| word.priority).max()?;
        self.waiting.iter().find(|(word, _)| word.priority == most).map(|(word, _)| word.clone())
    }

    /// It arrived. A newer word about the same alarm stays.
    pub fn sent(&mut self, word: &Word) {
        self.waiting.retain(|(waiting, _)| waiting != word);
        self.pause = None;
    }

    /// It did not. Returns how long to wait, and whether it was given up.
    pub fn failed(&mut self, word: &Word) -> (Duration, bool) {
        let pause = self.pause.map_or(PAUSE_MIN, |pause| (pause * 2).min(PAUSE_MAX));
        self.pause = Some(pause);
        let Some(at) = self.waiting.iter().position(|(waiting, _)| waiting == word) else {
            return (pause, false);
        };
        let given_up = self.waiting.get_mut(at).is_some_and(|(_, attempts)| {
            *attempts += 1;
            *attempts >= ATTEMPTS_MAX
        });
        if given_up {
            self.waiting.remove(at);
        }
        (pause, given_up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(number: u64, priority: Priority) -> Word {
        Word { about: (1, number), priority, body: vec![u8::try_from(number % 200).unwrap()] }
    }

    #[test]
    fn the_most_urgent_goes_first_and_the_least_urgent_makes_room() {
        let mut queue = Queue::default();
        (0..60).for_each(|n| assert_eq!(queue.put(word(n, Priority::Low)), 0));
        for n in 60..70 {
            queue.put(word(n, Priority::High));
        }
        assert_eq!((queue.waiting.len(), queue.next().unwrap().about), (WAITING_MAX, (1, 60)));
        queue.sent(&word(60, Priority::High));
        (61..70).for_each(|n| queue.sent(&word(n, Priority::High)));
        assert_eq!(queue.next().unwrap().about, (1, 6), "the first six made room");
    }

    #[test]
    fn a_newer_word_takes_the_older_ones_place_also_while_it_is_sent() {
        let mut queue = Queue::default();
        queue.put(word(1, Priority::High));
        let sending = queue.next().unwrap();
        let newer = Word { body: vec![9], ..sending.clone() };
        queue.put(newer.clone());
        queue.sent(&sending);
        assert_eq!(queue.next(), Some(newer));
    }

    #[test]
    fn it_backs_off_to_a_minute_and_gives_up() {
        let mut queue = Queue::default();
        queue.put(word(1, Priority::High));
        let pauses: Vec<_> = (0..ATTEMPTS_MAX).map(|_| queue.failed(&word(1, Priority::High))).collect();
        let seconds: Vec<_> = pauses.iter().map(|(pause, _)| pause.as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
        assert_eq!(pauses.iter().filter(|(_, given_up)| *given_up).count(), 1);
        assert!(queue.next().is_none());
        queue.put(word(2, Priority::High));
        queue.sent(&word(2, Priority::High));
        queue.put(word(3, Priority::High));
        assert_eq!(queue.failed(&word(3, Priority::High)).0, PAUSE_MIN);
    }
}
