//! The fuzz targets of the controller's interface with the inputs that are kept in `fuzz/`.

#![expect(unreachable_pub, reason = "the included files are modules of the fuzz crate's library as well")]

use std::path::Path;

#[path = "../../fuzz/src/controller.rs"]
mod controller;
#[path = "../../fuzz/src/corpus.rs"]
mod corpus;

type Target = (&'static str, fn(&[u8]));

#[test]
fn every_kept_input() {
    corpus::replay(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz"), controller::TARGETS);
}
