//! The contract's artifact, which `cargo xtask contracts` makes of ledger-client/contracts/Caregate.sol.

use alloy_primitives::{Bytes, U256};
use serde::Deserialize;
use thiserror::Error;

/// The committed artifact.
pub const ARTIFACT: &str = include_str!("../../contracts/Caregate.json");

/// The artifact can't be read: this binary was built from a damaged checkout.
#[derive(Debug, Error)]
#[error("the contract's artifact: {0}")]
pub struct ArtifactError(#[from] serde_json::Error);

/// What the node needs of the artifact.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Creation code, without the constructor's argument.
    pub bytecode: Bytes,
    /// The compiler.
    pub solc: String,
    /// Keccak-256 of the source.
    pub source_keccak256: alloy_primitives::B256,
}

impl Artifact {
    /// The embedded one.
    ///
    /// # Errors
    /// [`ArtifactError`].
    pub fn embedded() -> Result<Self, ArtifactError> {
        Ok(serde_json::from_str(ARTIFACT)?)
    }

    /// Creation code with the registrar as the constructor's argument.
    #[must_use]
    pub fn creation(&self, registrar: &alloy_primitives::Address) -> Bytes {
        let argument = U256::from_be_slice(registrar.as_slice()).to_be_bytes::<32>();
        [self.bytecode.as_ref(), &argument].concat().into()
    }
}
