//! Which devices the controller has shut out, for the patient's page: a flow that drops whatever an address sends.

use std::collections::{BTreeMap, BTreeSet};

use caregate_protocol::openflow::MatchField;
use caregate_protocol::policy::Mac;

use super::pattern::Pattern;
use super::tables::Tables;

/// The one address that a flow of this pattern is about, and all of whose frames it is about.
pub(super) fn source(pattern: &Pattern) -> Option<u128> {
    let source = pattern.exact(MatchField::EthSrc)?;
    pattern.is_about(&[MatchField::InPort, MatchField::EthSrc]).then_some(source)
}

/// Addresses all of whose frames are dropped, by the first of the controller's tables. A flow that is about a part of what an address
/// sends shuts nobody out.
#[must_use]
pub fn quarantined(tables: &Tables) -> BTreeSet<Mac> {
    let mut first: BTreeMap<Mac, bool> = BTreeMap::new();
    let table = tables.first_table();
    for flow in tables.flows().of_sources().filter(|flow| flow.table == table) {
        let Some(source) = source(&flow.pattern) else { continue };
        let [.., a, b, c, d, e, f] = source.to_be_bytes();
        first.entry(Mac([a, b, c, d, e, f])).or_insert_with(|| flow.drops());
    }
    first.into_iter().filter_map(|(mac, is_dropped)| is_dropped.then_some(mac)).collect()
}
