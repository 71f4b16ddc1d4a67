//! What the verifier followed in each kernel when it was last recorded, and what is more than that by too much: a program that grows
//! towards the verifier's limit (a million instructions) is seen long before a kernel refuses it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;

use super::Program;

/// Above the recorded number by more than this, in percent: a change of the programs, not of a point release's verifier.
const GROWTH_PERCENT_MAX: u64 = 10;
const HEAD: &str = "# Instructions that the verifier followed, by kernel and program. `cargo xtask kernels` fails where it follows over 10 % more;\n# `cargo xtask kernels --record` writes this file.\n\n";

/// By kernel and program.
#[derive(Debug, Default)]
pub(super) struct Limits(BTreeMap<String, BTreeMap<String, u32>>);

impl Limits {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        Ok(Self(toml::from_str(text)?))
    }

    fn text(&self) -> anyhow::Result<String> {
        Ok(format!("{HEAD}{}", toml::to_string(&self.0)?))
    }

    pub(super) fn write(&self, path: &Path) -> anyhow::Result<()> {
        std::fs::write(path, self.text()?).with_context(|| path.display().to_string())
    }

    /// Takes a kernel's numbers in the place of those that there were.
    pub(super) fn record(&mut self, kernel: &str, programs: &[Program]) {
        let numbers = programs.iter().map(|program| (program.name.clone(), program.verified_insns));
        self.0.insert(kernel.to_owned(), numbers.collect());
    }

    /// What is not recorded, or grew too much.
    pub(super) fn exceeded(&self, kernel: &str, programs: &[Program]) -> Vec<String> {
        let recorded = self.0.get(kernel);
        let judge = |Program { name, verified_insns, .. }: &Program| {
            let Some(limit) = recorded.and_then(|programs| programs.get(name)) else {
                return Some(format!("{name} is not in tests/kernels/verifier.toml; --record puts it there"));
            };
            let is_more = u64::from(*verified_insns) * 100 > u64::from(*limit) * (100 + GROWTH_PERCENT_MAX);
            is_more.then(|| {
                format!("{name}: the verifier followed {verified_insns} instructions, recorded are {limit}")
            })
        };
        programs.iter().filter_map(judge).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str, verified_insns: u32) -> Program {
        Program { name: name.into(), verified_insns, jited_bytes: 1 }
    }

    #[test]
    fn a_tenth_more_is_taken_and_anything_above_is_not() {
        let limits = Limits::parse("[\"6.1\"]\nsensor = 1000\n").unwrap();
        assert!(limits.exceeded("6.1", &[program("sensor", 1100)]).is_empty());
        let told = limits.exceeded("6.1", &[program("sensor", 1101)]);
        assert_eq!(told, ["sensor: the verifier followed 1101 instructions, recorded are 1000"]);
    }

    #[test]
    fn what_is_not_recorded_fails_by_name() {
        let limits = Limits::parse("[\"6.1\"]\nsensor = 1000\n").unwrap();
        for (kernel, name) in [("6.1", "walk"), ("5.10", "sensor")] {
            let told = limits.exceeded(kernel, &[program(name, 1)]);
            assert!(told.len() == 1 && told[0].starts_with(&format!("{name} is not in")), "{told:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut limits = Limits::parse("[\"5.10\"]\ngone = 9\n").unwrap();
        limits.record("5.10", &[program("sensor", 3)]);
        limits.record("6.1", &[program("sensor", 4)]);
        let text = limits.text().unwrap();
        assert!(!text.contains("gone"), "{text}");
        let again = Limits::parse(&text).unwrap();
        assert_eq!(again.0, limits.0);
        assert!(again.exceeded("6.1", &[program("sensor", 4)]).is_empty());
    }
}
