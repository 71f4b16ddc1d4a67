//! Which devices the controller has shut out, for the patient's page: a flow that drops whatever an address sends.

use std::collections::{BTreeMap, BTreeSet};

use caregate_protocol::openflow::MatchField;
use caregate_protocol::policy::Mac;

use super::tables::Tables;

/// Addresses all of whose frames are dropped, by the first of the controller's tables. A flow that is about a part of what an address
/// sends shuts nobody out.
#[must_use]
pub fn quarantined(tables: &Tables) -> BTreeSet<Mac> {
    let mut first: BTreeMap<Mac, bool> = BTreeMap::new();
    for flow in tables.flows().of_table(tables.first_table()) {
        if !flow.pattern.is_about(&[MatchField::InPort, MatchField::EthSrc]) {
            continue;
        }
        let Some(source) = flow.pattern.exact(MatchField::EthSrc) else { continue };
        let [.., a, b, c, d, e, f] = source.to_be_bytes();
        first.entry(Mac([a, b, c, d, e, f])).or_insert_with(|| flow.drops());
    }
    first.into_iter().filter_map(|(mac, is_dropped)| is_dropped.then_some(mac)).collect()
}
