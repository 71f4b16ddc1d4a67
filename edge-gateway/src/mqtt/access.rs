//! Who may publish where, and who may read what.
//!
//! ```text
//!  vitals/v1/{device}/…   readings: to the pipeline, and to displays once stored
//!  local/v1/{device}/…    between clients in the home only: requests, answers, a display's state
//!  gateway/v1/…           the gateway's own messages
//! ```
//! A client publishes under its own device in the first two. It reads its own trees and, while it is bound to a patient on the
//! ledger, what the operator wrote down for it.

use std::collections::BTreeMap;

use caregate_protocol::id::DeviceId;
use serde::Deserialize;
use thiserror::Error;

use super::filter;
use super::topic;

/// The root of what clients say to each other.
pub const LOCAL_ROOT: &str = "local/v1/";
/// The root of what the gateway says.
pub const GATEWAY_ROOT: &str = "gateway/v1/";

/// What the operator lets one device read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reader {
    /// Which: a display is a device like others, with a name and credentials.
    pub device: DeviceId,
    /// Topic filters; a subscription must be within one of them.
    pub filters: Vec<String>,
}

/// What a topic of a client's own is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tree {
    /// Readings.
    Vitals,
    /// Between clients.
    Local,
}

/// Why a list of readers was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AccessError {
    /// Not a topic filter, or a shared one.
    #[error("reader {device}: {filter:?} is no topic filter")]
    Filter {
        /// Whose.
        device: DeviceId,
        /// Which.
        filter: String,
    },
    /// A device that stands twice.
    #[error("reader {device} stands twice")]
    Twice {
        /// Which.
        device: DeviceId,
    },
}

/// All that operators wrote down.
#[derive(Debug, Clone, Default)]
pub struct Access(BTreeMap<DeviceId, Vec<String>>);

impl Access {
    /// Takes the configured list.
    ///
    /// # Errors
    /// [`AccessError`] names the device whose entry is wrong.
    pub fn new(list: impl IntoIterator<Item = Reader>) -> Result<Self, AccessError> {
        let mut readers = BTreeMap::new();
        for Reader { device, filters } in list {
            if let Some(filter) = filters.iter().find(|f| !filter::is_valid(f) || filter::is_shared(f)) {
                return Err(AccessError::Filter { device, filter: filter.clone() });
            }
            if readers.contains_key(&device) {
                return Err(AccessError::Twice { device });
            }
            readers.insert(device, filters);
        }
        Ok(Self(readers))
    }

    /// Whether the operator lets `device` subscribe to a filter (without `$share/{name}/`), or it is in its own trees.
    #[must_use]
    pub fn may_read(&self, device: &DeviceId, path: &str) -> bool {
        let permitted =
            || self.0.get(device).is_some_and(|filters| filters.iter().any(|f| filter::covers(f, path)));
        is_own(device, path) || permitted()
    }
}

/// Whether a topic or a filter stays within the trees of `device`.
#[must_use]
pub fn is_own(device: &DeviceId, path: &str) -> bool {
    [topic::ROOT, LOCAL_ROOT].iter().any(|root| {
        let below = path.strip_prefix(root).and_then(|rest| rest.strip_prefix(device.as_str()));
        below.is_some_and(|rest| rest.starts_with('/'))
    })
}

/// Which of its own trees a topic of `device` is in, if in one: where it may publish.
#[must_use]
pub fn own_tree(device: &DeviceId, topic: &str) -> Option<Tree> {
    if topic::is_own(device, topic) {
        return Some(Tree::Vitals);
    }
    let rest = topic.strip_prefix(LOCAL_ROOT)?.strip_prefix(device.as_str())?.strip_prefix('/')?;
    (!rest.is_empty()).then_some(Tree::Local)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str) -> DeviceId {
        DeviceId::new(name).unwrap()
    }

    fn reader(name: &str, filters: &[&str]) -> Reader {
        Reader { device: device(name), filters: filters.iter().map(|f| (*f).to_owned()).collect() }
    }

    #[test]
    fn a_device_reads_its_own_trees_and_what_was_written_down_for_it() {
        let access = Access::new([reader("display", &["vitals/v1/+/num/#", "gateway/v1/#"])]).unwrap();
        let may = |name: &str, path: &str| access.may_read(&device(name), path);
        assert!(may("a", "vitals/v1/a/#") && may("a", "local/v1/a/x") && may("a", "vitals/v1/a/num/+"));
        for foreign in [
            "vitals/v1/b/#",
            "vitals/v1/+/#",
            "#",
            "gateway/v1/#",
            "vitals/v1/a",
            "vitals/v1/ab/#",
            "+/v1/a/#",
        ] {
            assert!(!may("a", foreign), "{foreign}");
        }
        assert!(may("display", "vitals/v1/a/num/heart-rate") && may("display", "vitals/v1/+/num/#"));
        assert!(may("display", "gateway/v1/alarm/+"));
        for foreign in ["vitals/v1/+/wave/#", "vitals/v1/#", "local/v1/a/#", "#"] {
            assert!(!may("display", foreign), "{foreign}");
        }
    }

    #[test]
    fn a_device_publishes_under_its_own_name_only() {
        let tree = |topic: &str| own_tree(&device("a"), topic);
        assert_eq!(tree("vitals/v1/a/num/x"), Some(Tree::Vitals));
        assert_eq!(tree("local/v1/a/answer/1"), Some(Tree::Local));
        for foreign in
            ["local/v1/a", "local/v1/a/", "local/v1/ab/x", "gateway/v1/a/x", "vitals/v1/b/num/x", "x"]
        {
            assert_eq!(tree(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_wrong_entry_is_named() {
        let wrong = |filter: &str| Access::new([reader("a", &[filter])]).err();
        for filter in ["a#", "", "$share/g/a"] {
            let expected = AccessError::Filter { device: device("a"), filter: filter.to_owned() };
            assert_eq!(wrong(filter), Some(expected));
        }
        let twice = Access::new([reader("a", &[]), reader("a", &[])]).err();
        assert_eq!(twice, Some(AccessError::Twice { device: device("a") }));
    }
}
