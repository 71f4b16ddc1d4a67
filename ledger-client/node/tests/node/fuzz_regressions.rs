//! The fuzz targets of the node with the inputs that are kept in `fuzz/`.

#![expect(unreachable_pub, reason = "the included files are modules of the fuzz crate's library as well")]
#![expect(clippy::expect_used, reason = "as above")]

use std::path::Path;

#[path = "../../../../fuzz/src/corpus.rs"]
mod corpus;
#[path = "../../../../fuzz/src/node.rs"]
mod node;

type Target = (&'static str, fn(&[u8]));

#[test]
fn every_kept_input() {
    corpus::replay(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz"), node::TARGETS);
}
