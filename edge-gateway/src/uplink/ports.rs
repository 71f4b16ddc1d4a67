//! The UDP ports that the connections to the core come from.

use serde::Deserialize;
use thiserror::Error;

use super::schedule::Part;

/// The first of five ports in a row, in the order of [`Part::ALL`]: flow rules tell the lanes apart by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u16")]
pub struct LanePorts(u16);

/// No five ports begin there.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("{0} is the first of no five UDP ports: 1 to 65531")]
pub struct NoPorts(u16);

impl LanePorts {
    /// The port of one connection.
    #[must_use]
    pub fn of(self, part: Part) -> u16 {
        self.0 + u16::from(part.number())
    }
}

impl TryFrom<u16> for LanePorts {
    type Error = NoPorts;

    fn try_from(first: u16) -> Result<Self, NoPorts> {
        let last = Part::ALL.map(Part::number).into_iter().max().unwrap_or(0);
        match first.checked_add(u16::from(last)) {
            Some(_) if first > 0 => Ok(Self(first)),
            _ => Err(NoPorts(first)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_five_are_in_a_row_and_fit() {
        let ports = LanePorts::try_from(7400).unwrap();
        assert_eq!(Part::ALL.map(|part| ports.of(part)), [7400, 7401, 7402, 7403, 7404]);
        assert_eq!(LanePorts::try_from(65_531).unwrap().of(Part::Backlog), 65_535);
        for first in [0, 65_532, 65_535] {
            assert_eq!(LanePorts::try_from(first), Err(NoPorts(first)));
        }
    }
}
