//! What staff and their programs ask a feed for, and the log that it serves. Included by `tests/tests/fuzz_regressions.rs` as well.

use std::sync::LazyLock;

use caregate_protocol::command::Action;
use clinician_feed::emergency::{Checked, MINUTES_MAX, Request};
use clinician_feed::feed::Feed;
use clinician_feed::fhir::date::DateFilter;
use clinician_feed::fhir::resource::{Coding, LOINC};
use clinician_feed::fhir::search::{COUNT_MAX, GrantSearch, LogSearch, Search, SearchError};
use clinician_feed::fhir::{audit, select};
use clinician_feed::password::Hashed;

use super::Target;

/// Each target by its name.
pub const TARGETS: &[Target] =
    &[("fhir_search", fhir_search), ("fhir_log", fhir_log), ("staff_request", staff_request)];

/// One that holds nothing.
static FEED: LazyLock<Feed> = LazyLock::new(|| Feed::new(1 << 10));

/// A query string, unescaped, for each resource that is searched; its values as dates and ids too.
pub fn fhir_search(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let pairs: Vec<_> = text
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for (_, value) in &pairs {
        date(value);
        assert!(select::read(&FEED, value).is_none());
    }
    if let Some(search) = taken(Search::parse(&pairs)) {
        assert!(search.count <= COUNT_MAX);
        assert_eq!(select::search(&FEED, &search).total, 0);
        let heart_rate = [Coding { system: LOINC, code: "8867-4".to_owned() }];
        for tokens in [&search.code, &search.combo_code, &search.category].into_iter().flatten() {
            let _either = tokens.match_any(&heart_rate);
            assert!(!tokens.match_any(&[]));
        }
        if let Some(after) = search.after {
            // As the link to the next page has it.
            let next = Search::parse(&[("_cursor".to_owned(), after.to_string())]);
            assert_eq!(next.map(|next| next.after), Ok(Some(after)));
        }
    }
    if let Some(search) = taken(LogSearch::parse(&pairs)) {
        assert!(search.count <= COUNT_MAX);
    }
    for by in ["_id", "target"] {
        if let Some(search) = taken(GrantSearch::parse(by, &pairs)) {
            assert!(search.count <= GrantSearch::COUNT_MAX);
        }
    }
}

/// What was taken. A refusal says why, and repeats no more than a little of what it refuses.
fn taken<T>(parsed: Result<T, SearchError>) -> Option<T> {
    if let Err(error) = &parsed {
        assert!((1..=1000).contains(&error.to_string().len()));
    }
    parsed.ok()
}

/// With each prefix it is a date, or with none; and what the prefixes say of an instant is as they say it of each other.
fn date(text: &str) {
    const PREFIXES: [&str; 6] = ["eq", "ne", "lt", "le", "gt", "ge"];
    let bare = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    let filters = PREFIXES.map(|prefix| DateFilter::parse(&format!("{prefix}{bare}")));
    let [Some(equal), Some(not), Some(less), Some(up_to), Some(greater), Some(from)] = filters else {
        return assert_eq!(filters, [None; 6], "{text}");
    };
    for us in [i64::MIN, 0, 1_790_000_000_000_000, i64::MAX] {
        let [less, greater] = [less, greater].map(|filter| filter.matches(us));
        assert_eq!((equal.matches(us), not.matches(us)), (!less && !greater, less || greater));
        assert_eq!((from.matches(us), up_to.matches(us)), (!less, !greater));
        assert!(!(less && greater));
    }
}

/// The end of an audit log: what a search finds is there to be read, and of a log that was changed nothing is.
pub fn fhir_log(data: &[u8]) {
    let all = LogSearch { date: Vec::new(), count: COUNT_MAX, before: None };
    let found = match audit::search(data, "hospital", &all) {
        Ok(found) => found,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return assert_eq!(audit::read(data, "hospital", "entry-1"), Err(error));
        }
    };
    assert!(found.events.len() <= found.total);
    for event in found.events.iter().take(3) {
        let id = event["id"].as_str().unwrap_or_default();
        let read = audit::read(data, "hospital", id).map(|read| read.map(|(event, _)| event));
        assert_eq!(read.as_ref(), Ok(&Some(event.clone())));
    }
}

/// The body of a request of staff: an emergency, or what a watch is to do. And a password's hash, as the configuration has it.
pub fn staff_request(data: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(data) {
        match Checked::try_from(request) {
            Ok(checked) => {
                assert!((60..=u64::from(MINUTES_MAX) * 60).contains(&checked.seconds));
                assert!(!checked.reason.is_empty() && checked.reason.trim() == checked.reason);
            }
            Err(error) => assert!(!error.to_string().is_empty() && error.reason() == "invalid"),
        }
    }
    if let Ok(action) = serde_json::from_slice::<Action>(data) {
        let bytes = serde_json::to_vec(&action).unwrap_or_else(|error| panic!("{error}"));
        assert!(serde_json::from_slice::<Action>(&bytes).is_ok());
        if let Err(error) = action.check() {
            assert!(!error.to_string().is_empty() && !error.reason().is_empty());
        }
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Err(error) = Hashed::new(text)
    {
        assert!(!error.to_string().is_empty());
    }
}
