//! What operators hand the controller's REST interface. Included by `sdn-controller/tests/fuzz_regressions.rs` as well.

use caregate_protocol::openflow::{FlowMod, Message};
use sdn_controller::flow_json::FlowModFile;
use sdn_controller::intent::Intent;

use super::Target;

/// Each target by its name.
pub const TARGETS: &[Target] = &[("flow_rule", flow_rule), ("intent", intent)];

/// A rule that is taken is a message that a switch reads.
pub fn flow_rule(data: &[u8]) {
    let Ok(file) = serde_json::from_slice::<FlowModFile>(data) else { return };
    let Ok(flow_mod) = FlowMod::try_from(file) else { return };
    if let Ok(bytes) = Message::FlowMod(flow_mod.clone()).encode(1) {
        match Message::decode(&bytes) {
            Ok((_, Message::FlowMod(read))) => assert_eq!(read, flow_mod),
            Ok(other) => panic!("a flow-mod was read as {other:?}"),
            // Its fields may lack what they require, or be there twice: the switch says so.
            Err(_) => {}
        }
    }
}

/// An intent is written as it was read.
pub fn intent(data: &[u8]) {
    let Ok(intent) = serde_json::from_slice::<Intent>(data) else { return };
    let again = serde_json::to_vec(&intent).and_then(|bytes| serde_json::from_slice::<Intent>(&bytes));
    assert_eq!(again.ok().as_ref(), Some(&intent));
    // Whether it may be so is its own answer.
    drop(intent.check());
}
