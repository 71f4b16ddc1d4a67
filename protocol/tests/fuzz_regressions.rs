//! The fuzz targets of this crate with the inputs that are kept in `fuzz/`: crashers stay fixed without libFuzzer.

#![expect(unreachable_pub, reason = "the included files are modules of the fuzz crate's library as well")]

use std::path::Path;

#[path = "../../fuzz/src/corpus.rs"]
mod corpus;
#[path = "../../fuzz/src/protocol.rs"]
mod protocol;

type Target = (&'static str, fn(&[u8]));

#[test]
fn every_kept_input() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    corpus::replay(&fuzz, protocol::TARGETS);
    // That no folder is without a target is seen in `tests/tests/fuzz_regressions.rs`, which knows all of them.
}
