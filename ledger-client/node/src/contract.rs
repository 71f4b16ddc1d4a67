//! The contract's artifact, which `cargo xtask contracts` makes of ledger-client/contracts/Caregate.sol.

use std::collections::BTreeMap;
use std::fmt;

use alloy_primitives::{Address, B256, Bytes, U256};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The committed artifact.
pub const ARTIFACT: &str = include_str!("../../contracts/Caregate.json");

/// The artifact can't be read: this binary was built from a damaged checkout.
#[derive(Debug, Error)]
#[error("the contract's artifact: {0}")]
pub struct ArtifactError(#[from] serde_json::Error);

/// Who says who takes part: so many of the governors, and how long what widens waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Council {
    /// 1 to 16, distinct.
    pub governors: Vec<Address>,
    /// How many of them a change needs.
    pub threshold: u8,
    /// Seconds, 30 days at most.
    pub delay_s: u64,
}

impl fmt::Display for Council {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of", self.threshold)?;
        self.governors.iter().try_for_each(|governor| write!(f, " {governor}"))?;
        write!(f, " after {} s", self.delay_s)
    }
}

/// What the node needs of the artifact.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Creation code, without the constructor's argument.
    pub bytecode: Bytes,
    /// The compiler.
    pub solc: String,
    /// Keccak-256 of each source file, by its path.
    pub sources: BTreeMap<String, B256>,
}

impl Artifact {
    /// The embedded one.
    ///
    /// # Errors
    /// [`ArtifactError`].
    pub fn embedded() -> Result<Self, ArtifactError> {
        Ok(serde_json::from_str(ARTIFACT)?)
    }

    /// Creation code with the council as the constructor's arguments: `(address[], uint8, uint64)`, ABI-encoded.
    #[must_use]
    pub fn creation(&self, council: &Council) -> Bytes {
        let word = |value: u64| U256::from(value).to_be_bytes::<32>();
        let mut code = self.bytecode.to_vec();
        // The list's place, after the three words of the head.
        for head in [96, u64::from(council.threshold), council.delay_s] {
            code.extend_from_slice(&word(head));
        }
        code.extend_from_slice(&word(council.governors.len() as u64));
        for governor in &council.governors {
            code.extend_from_slice(governor.into_word().as_slice());
        }
        code.into()
    }
}
