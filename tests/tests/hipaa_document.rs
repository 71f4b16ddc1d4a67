//! `docs/hipaa.md` names tests for each line of HIPAA's technical safeguards. They are there, and no line is without.

use std::collections::BTreeMap;
use std::path::Path;

/// The lines of 45 CFR §164.312.
const LINES: [&str; 12] = [
    "(a)(1)",
    "(a)(2)(i)",
    "(a)(2)(ii)",
    "(a)(2)(iii)",
    "(a)(2)(iv)",
    "(b)",
    "(c)(1)",
    "(c)(2)",
    "(d)",
    "(e)(1)",
    "(e)(2)(i)",
    "(e)(2)(ii)",
];

/// What stands between backticks.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn each_line_of_the_rule_has_its_tests_and_they_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &str| {
        std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let document = read("docs/hipaa.md");
    // | `word` | `file` | what it runs |
    let mut files = BTreeMap::new();
    for line in document.lines() {
        let cells: Vec<&str> = line.split(" | ").collect();
        if let [word, file, _] = cells[..]
            && let (Some(word), Some(file)) = (quoted(word).next(), quoted(file).next())
        {
            files.insert(word, (read(file), 0));
        }
    }
    for rule in LINES {
        let mut rows = document.lines().filter(|line| {
            line.strip_prefix("| ").and_then(|line| line.split(' ').next()).is_some_and(|first| first == rule)
        });
        let row = rows.next().unwrap_or_else(|| panic!("{rule} has no row"));
        assert!(rows.next().is_none(), "{rule} has two rows");
        let tests: Vec<_> = quoted(row).filter_map(|token| token.split_once("::")).collect();
        assert!(!tests.is_empty(), "{rule} has no test");
        for (word, name) in tests {
            let Some((text, uses)) = files.get_mut(word) else {
                panic!("no file is said for {word}::{name}")
            };
            assert!(is_test(text, name), "{rule}: {word}::{name} is no test that runs");
            *uses += 1;
        }
    }
    let unused: Vec<_> = files.iter().filter(|(_, (_, uses))| *uses == 0).map(|(word, _)| word).collect();
    assert!(unused.is_empty(), "{unused:?}");
}

/// Whether the function of this name is a test, by its attributes or in a suite's list, and one that is not left out.
fn is_test(text: &str, name: &str) -> bool {
    let Some(at) = text.find(&format!("fn {name}(")) else { return false };
    let from = text[..at].rfind("\n\n").unwrap_or(0);
    let before = &text[from..at];
    let has = |attribute: &str| before.lines().any(|line| line.trim().starts_with(attribute));
    let is_listed = text.lines().any(|line| line.trim().strip_suffix(',') == Some(name));
    (has("#[test]") || has("#[tokio::test") || is_listed) && !has("#[ignore") && !before.ends_with("// ")
}
