//! Which devices the controller has shut out, for the patient's page: a flow that drops whatever an address sends.

use std::collections::{BTreeMap, BTreeSet};

use caregate_protocol::policy::Mac;

use super::flow::Flow;
use super::pattern::Field;
use super::treatment::Output;

/// Addresses all of whose frames are dropped; `flows` in the order in which a frame meets them. A flow that is about a part of what an
/// address sends shuts nobody out.
#[must_use]
pub fn quarantined(flows: &[Flow]) -> BTreeSet<Mac> {
    let mut first: BTreeMap<Mac, bool> = BTreeMap::new();
    for flow in flows {
        let all =
            flow.pattern.fields().iter().all(|(field, _, _)| matches!(field, Field::InPort | Field::EthSrc));
        let source = flow.pattern.exact(Field::EthSrc).and_then(|bytes| bytes.try_into().ok()).map(Mac);
        if let Some(mac) = source.filter(|_| all) {
            first.entry(mac).or_insert(flow.treatment.output == Output::Drop);
        }
    }
    first.into_iter().filter_map(|(mac, is_dropped)| is_dropped.then_some(mac)).collect()
}
