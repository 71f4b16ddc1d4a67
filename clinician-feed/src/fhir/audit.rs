//! The feed's own audit log as AuditEvents (R4 §6.4), newest first. Pure.
//!
//! The log's end is read for each request and its chain is checked, so that nothing is served of a log that somebody has changed. What is
//! older than that end is for `caregatectl audit fhir`.

use caregate_protocol::audit::{Hash, Line, LineError, leaf_hash};
use caregate_protocol::fhir::audit_event;
use serde_json::Value;
use thiserror::Error;

use super::date::is_writable;
use super::search::LogSearch;
use crate::record::Extent;

/// Bytes of the log's end that are served: some 50,000 entries, weeks of a ward, read and checked in 0.2 s.
pub const LOG_BYTES_MAX: u64 = 16 << 20;
/// What the id of each event begins with.
const ID: &str = "entry-";

/// What was read is no log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LogError {
    /// A line is none of its entries.
    #[error("the audit log is broken after entry {after}: a line {source}; see `caregatectl audit verify`")]
    Line {
        /// The last good one; 0 where there was none.
        after: u64,
        /// Why.
        source: LineError,
    },
    /// An entry does not follow the one before.
    #[error(
        "the audit log is broken: entry {0} does not follow the one before; see `caregatectl audit verify`"
    )]
    Chain(u64),
}

/// A page of a search.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    /// Matches, on this page and on others.
    pub total: usize,
    /// AuditEvents, newest first.
    pub events: Vec<Value>,
    /// Where the next page begins.
    pub next: Option<u64>,
    /// From the oldest match to the newest, also those on other pages; none where nothing matches.
    pub extent: Option<Extent>,
}

/// The extent of some of a log's end; none where there is none.
fn extent(lines: &[(Line, Hash)], first: u64, last: u64) -> Option<Extent> {
    let (oldest, newest) = (lines.first()?.0.n, lines.last()?.0.n);
    Some(Extent { first, last, oldest, newest })
}

/// The lines of a log's end, oldest first, each the one that the next names.
fn lines(text: &[u8]) -> Result<Vec<(Line, Hash)>, LogError> {
    let mut lines: Vec<(Line, Hash)> = Vec::new();
    for bytes in text.split(|byte| *byte == b'\n').filter(|bytes| !bytes.is_empty()) {
        let last = lines.last();
        let after = last.map_or(0, |(line, _)| line.n);
        let line = Line::decode(bytes).map_err(|source| LogError::Line { after, source })?;
        let follows = match last {
            Some((before, hash)) => line.prev == *hash && before.n.checked_add(1) == Some(line.n),
            None => line.n != 1 || line.prev == Hash::NONE,
        };
        if !follows {
            return Err(LogError::Chain(line.n));
        }
        lines.push((line, leaf_hash(bytes)));
    }
    Ok(lines)
}

/// Searches the whole lines of a log's end; `source` is the name of who keeps it.
///
/// # Errors
/// [`LogError`].
pub fn search(text: &[u8], source: &str, search: &LogSearch) -> Result<Found, LogError> {
    let (mut found, lines) = (Found::default(), lines(text)?);
    for (line, hash) in lines.iter().rev() {
        let at_us = line.entry.at_ms.saturating_mul(1000);
        // Times that FHIR can't write can't be searched for either.
        if !is_writable(at_us) || !search.date.iter().all(|date| date.matches(at_us)) {
            continue;
        }
        found.total += 1;
        let last = found.extent.map_or(line.n, |extent| extent.last);
        found.extent = extent(&lines, line.n, last);
        if search.before.is_some_and(|before| line.n >= before) {
            continue;
        }
        if found.events.len() < search.count {
            found.events.extend(audit_event::of_line(line, hash, source));
        } else if search.count > 0 {
            found.next = found.next.or(Some(line.n + 1));
        }
    }
    Ok(found)
}

/// The event with this id, and its extent; none where the log's end does not have it.
///
/// # Errors
/// [`LogError`].
pub fn read(text: &[u8], source: &str, id: &str) -> Result<Option<(Value, Extent)>, LogError> {
    let Some(n) = id.strip_prefix(ID).and_then(|n| n.parse::<u64>().ok()) else { return Ok(None) };
    let lines = lines(text)?;
    let found = lines.iter().find(|(line, _)| line.n == n);
    let event = found.and_then(|(line, hash)| audit_event::of_line(line, hash, source));
    Ok(event.filter(|event| event["id"] == id).zip(extent(&lines, n, n)))
}

#[cfg(test)]
mod tests {
    use caregate_protocol::audit::{Entry, Head, What};

    use super::*;

    const AT_MS: i64 = 1_790_000_000_000;

    /// `count` logins, a minute after each other.
    fn log(count: i64) -> Vec<u8> {
        let (mut head, mut text) = (Head::default(), Vec::new());
        for n in 0..count {
            let what = What::Login { user: format!("nurse-{n}") };
            head.append(&Entry { at_ms: AT_MS + n * 60_000, what }, &mut text).unwrap();
        }
        text
    }

    fn ids(found: &Found) -> Vec<&str> {
        found.events.iter().map(|event| event["id"].as_str().unwrap()).collect()
    }

    fn parsed(pairs: &[(&str, &str)]) -> LogSearch {
        let pairs: Vec<_> = pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        LogSearch::parse(&pairs).unwrap()
    }

    #[test]
    fn pages_go_from_the_newest_back_and_miss_none() {
        let (text, mut seen, mut cursor) = (log(7), Vec::new(), None::<u64>);
        loop {
            let text_of = cursor.map(|cursor| cursor.to_string());
            let mut pairs = vec![("_count", "3")];
            pairs.extend(text_of.as_deref().map(|cursor| ("_cursor", cursor)));
            let found = search(&text, "hospital", &parsed(&pairs)).unwrap();
            assert_eq!(found.total, 7);
            assert_eq!(
                found.extent,
                Some(Extent { first: 1, last: 7, oldest: 1, newest: 7 }),
                "whatever the page"
            );
            seen.extend(ids(&found).into_iter().map(str::to_owned));
            cursor = found.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, (1..=7).rev().map(|n| format!("entry-{n}")).collect::<Vec<_>>());
        let none = search(&text, "hospital", &parsed(&[("_count", "0")])).unwrap();
        assert_eq!((none.total, none.events.len(), none.next), (7, 0, None));
    }

    #[test]
    fn dates_are_those_of_the_entries() {
        let text = log(7);
        let pairs = [("date", "ge2026-09-21T14:14:20Z"), ("date", "lt2026-09-21T14:16:20Z")];
        let found = search(&text, "hospital", &parsed(&pairs)).unwrap();
        assert_eq!((found.total, ids(&found)), (2, vec!["entry-3", "entry-2"]));
        assert_eq!(found.events[1]["recorded"], "2026-09-21T14:14:20Z");
        assert_eq!(found.events[1]["source"]["observer"]["identifier"]["value"], "hospital");
        assert_eq!(found.extent, Some(Extent { first: 2, last: 3, oldest: 1, newest: 7 }));
        let (event, extent) = read(&text, "hospital", "entry-2").unwrap().unwrap();
        assert_eq!((&event, extent), (&found.events[1], Extent { first: 2, last: 2, oldest: 1, newest: 7 }));
        let nothing = search(&text, "hospital", &parsed(&[("date", "lt2026")])).unwrap();
        assert_eq!((nothing.total, nothing.extent), (0, None));
        for id in ["entry-0", "entry-8", "entry-02", "entry-", "2", ""] {
            assert_eq!(read(&text, "hospital", id).unwrap(), None, "{id}");
        }
    }

    #[test]
    fn nothing_is_served_of_a_log_that_was_changed() {
        let text = String::from_utf8(log(5)).unwrap();
        let all = parsed(&[]);
        let changed = text.replace("nurse-2", "nurse-9");
        assert_eq!(search(changed.as_bytes(), "h", &all), Err(LogError::Chain(4)));
        let left_out: String =
            text.lines().filter(|line| !line.contains("nurse-2")).map(|line| format!("{line}\n")).collect();
        assert_eq!(search(left_out.as_bytes(), "h", &all), Err(LogError::Chain(4)));
        let planted = text.replacen('{', "{ ", 2);
        let error = search(planted.as_bytes(), "h", &all).unwrap_err();
        assert!(matches!(error, LogError::Line { after: 0, .. }), "{error}");
        // Of a log's end the first line is taken as it is.
        let end = text.split_once('\n').unwrap().1;
        assert_eq!(search(end.as_bytes(), "h", &all).unwrap().total, 4);
    }
}
