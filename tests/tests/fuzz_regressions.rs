//! The fuzz targets of the gateway, of core and feed, of the ledger's verifier and of the recordings with the inputs that are kept in `fuzz/`.

#![expect(unreachable_pub, reason = "the included files are modules of the fuzz crate's library as well")]

use std::path::Path;

#[path = "../../fuzz/src/core.rs"]
mod core;
#[path = "../../fuzz/src/corpus.rs"]
mod corpus;
#[path = "../../fuzz/src/feed.rs"]
mod feed;
#[path = "../../fuzz/src/gateway.rs"]
mod gateway;
#[path = "../../fuzz/src/ledger.rs"]
mod ledger;
#[path = "../../fuzz/src/recordings.rs"]
mod recordings;

type Target = (&'static str, fn(&[u8]));

#[test]
fn every_kept_input() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    corpus::replay(&fuzz, core::TARGETS);
    corpus::replay(&fuzz, feed::TARGETS);
    corpus::replay(&fuzz, gateway::TARGETS);
    corpus::replay(&fuzz, ledger::TARGETS);
    corpus::replay(&fuzz, recordings::TARGETS);
    // Each fed by its own crate's plain tests.
    let others = [
        include_str!("../../fuzz/src/client.rs"),
        include_str!("../../fuzz/src/controller.rs"),
        include_str!("../../fuzz/src/node.rs"),
        include_str!("../../fuzz/src/protocol.rs"),
    ]
    .concat();
    for folder in folders(&fuzz) {
        let mut targets =
            [core::TARGETS, feed::TARGETS, gateway::TARGETS, ledger::TARGETS, recordings::TARGETS]
                .into_iter()
                .flatten();
        let here = targets.any(|(name, _)| *name == folder);
        assert!(here || others.contains(&format!("(\"{folder}\", ")), "no target takes {folder}");
    }
}

/// The names of all folders of seeds and regressions.
fn folders(fuzz: &Path) -> Vec<String> {
    let mut names: Vec<_> = ["seeds", "regressions"]
        .iter()
        .flat_map(|kind| std::fs::read_dir(fuzz.join(kind)).into_iter().flatten())
        .map(|entry| entry.expect("a readable folder"))
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names.dedup();
    names
}
