//! What a program links. The gateway verifies the ledger with a few hundred lines of its own: neither alloy nor an EVM may come into it,
//! by whatever feature or crate between. cargo-deny's bans know a crate's direct parents only; this walks the whole tree.

use std::process::Command;

use anyhow::{Context, bail};

use crate::build;

/// What runs on the appliance or is made for it.
const SMALL: [&str; 4] = ["edge-gateway", "ledger-client", "caregate-switch", "caregate-datapathd"];
/// Beginnings of names that none of them may link.
const BANNED: [&str; 4] = ["alloy", "revm", "foundry", "reth"];
/// Links both, so that a look that finds nothing anywhere is noticed.
const LARGE: &str = "ledger-node";

/// Fails if one of the small programs links what it must not.
///
/// # Errors
/// Naming the program and the crates.
pub(crate) fn check() -> anyhow::Result<()> {
    if banned(&tree(LARGE)?).is_empty() {
        bail!("{LARGE} links no EVM: this check finds nothing any more");
    }
    for package in SMALL {
        let tree = tree(package)?;
        let found = banned(&tree);
        if !found.is_empty() {
            bail!(
                "{package} must not link {}; cargo tree -p {package} -e normal -i {} says why",
                found.join(", "),
                found[0]
            );
        }
    }
    Ok(())
}

/// Everything that a package links with all its features, on any of the targets.
fn tree(package: &str) -> anyhow::Result<String> {
    let mut command = build::cargo_command();
    command.args(["tree", "--locked", "--offline", "--edges", "normal,build", "--prefix", "none"]);
    command.args(["--all-features", "--target", "all", "--package", package]);
    output(command.current_dir(build::root()?))
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().context("cargo tree")?;
    if !output.status.success() {
        bail!("cargo tree: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The banned crates of a tree's lines, which begin with a name.
fn banned(tree: &str) -> Vec<&str> {
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    let mut found: Vec<_> =
        names.filter(|name| BANNED.iter().any(|banned| name.starts_with(banned))).collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_banned_crate_is_found_at_any_depth() {
        let tree = "edge-gateway v0.1.0 (/caregate/edge-gateway)\nsha3 v0.12.0\nalloy-primitives v1.7.0\nrevm v43.0.0 (*)\n\
            alloy-primitives v1.7.0 (*)\n";
        assert_eq!(banned(tree), ["alloy-primitives", "revm"]);
        assert!(banned("ledger-client v0.1.0 (/x)\nhex v0.4.3\nk256 v0.14.0\n").is_empty());
    }
}
