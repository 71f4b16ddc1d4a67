//! `docs/openflow.md` names a test for each of the standard's features. They are there.

use std::collections::BTreeMap;
use std::path::Path;

/// What stands between backticks.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn each_test_that_is_named_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &str| {
        std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let document = read("docs/openflow.md");
    // | `word` | `file` | what it runs |
    let mut files = BTreeMap::new();
    for line in document.lines() {
        let cells: Vec<&str> = line.split(" | ").collect();
        if let [word, file, _] = cells[..]
            && let (Some(word), Some(file)) = (quoted(word).next(), quoted(file).next())
            && file.ends_with(".rs")
        {
            files.insert(word, (read(file), 0));
        }
    }
    assert!(files.len() > 30, "{:?}", files.keys());
    for line in document.lines() {
        for (word, name) in quoted(line).filter_map(|token| token.split_once("::")) {
            // By its name, or by what the names of several begin with.
            let Some((text, uses)) = files.get_mut(word) else {
                panic!("no file is said for {word}::{name}")
            };
            assert!(text.contains(&format!("fn {name}")), "{word}::{name} is not there");
            *uses += 1;
        }
    }
    let unused: Vec<_> = files.iter().filter(|(_, (_, uses))| *uses == 0).map(|(word, _)| word).collect();
    assert!(unused.is_empty(), "{unused:?}");
}
