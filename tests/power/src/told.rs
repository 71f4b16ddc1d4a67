//! What the kernel's command line says to us.

use anyhow::{Context, bail};
use caregate_crash::Syncs;
use caregate_guest::machine;

use crate::work::{Mark, Work};
use crate::{pipeline, spool, store};

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Spool,
    /// Gateway and core.
    Pipeline,
    /// The core alone.
    Store,
}

impl Kind {
    pub(crate) fn live(self, told: &Told, mark: &Mark<'_>) -> anyhow::Result<Box<dyn Work>> {
        match self {
            Self::Spool => spool::live(told, mark),
            Self::Pipeline => pipeline::live(told, mark),
            Self::Store => store::live(told, mark),
        }
    }
}

/// What to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) work: Kind,
    pub(crate) syncs: Syncs,
    /// At which the power is cut.
    pub(crate) points: u64,
    /// How much is done before: group commits, readings or records.
    pub(crate) amount: u64,
    pub(crate) seed: u64,
}

impl Told {
    pub(crate) fn parse(line: &str) -> anyhow::Result<Self> {
        let number =
            |key: &str| machine::told(line, key)?.parse::<u64>().with_context(|| format!("caregate.{key}"));
        let work = match machine::told(line, "work")?.as_str() {
            "spool" => Kind::Spool,
            "pipeline" => Kind::Pipeline,
            "store" => Kind::Store,
            other => bail!("caregate.work={other}"),
        };
        let syncs = match machine::told(line, "syncs")?.as_str() {
            "real" => Syncs::Real,
            "out" => Syncs::TakenOut,
            other => bail!("caregate.syncs={other}"),
        };
        Ok(Self { work, syncs, points: number("points")?, amount: number("amount")?, seed: number("seed")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_read_and_what_is_missing_is_named() {
        let line = "console=ttyS0 caregate.work=store caregate.syncs=out caregate.points=9 caregate.amount=8";
        let told = Told::parse(&format!("{line} caregate.seed=7")).unwrap();
        assert_eq!((told.work, told.syncs), (Kind::Store, Syncs::TakenOut));
        assert_eq!((told.points, told.amount, told.seed), (9, 8, 7));
        let error = Told::parse(line).unwrap_err();
        assert!(error.to_string().ends_with("caregate.seed"), "{error}");
    }
}
