//! Headers in QBFT's form (Hyperledger Besu), sealed by one key.
//!
//! `extraData = RLP [ vanity (32 bytes), [validator], vote [], round 0, [seal] ]`. The seal is over the header with an empty list of
//! seals; since the round is 0, that hash is also the block's id.

use alloy_consensus::Header;
use alloy_primitives::{Address, B256, Bytes, b256, keccak256};
use alloy_rlp::Encodable;
use caregate_host::key_file::{self, KeyFileError};
use k256::ecdsa::SigningKey;
use thiserror::Error;

/// Besu's mix hash of IBFT-family headers: "Istanbul digest".
pub const MIX_HASH: B256 = b256!("63746963616c2062797a616e74696e65206661756c7420746f6c6572616e6365");
/// The first 32 bytes of the extra data, free to use: who reads a header sees what kind of chain it is from.
const VANITY: [u8; 32] = *b"caregate ledger-node, one sealer";

/// Why there is no sealing key.
#[derive(Debug, Error)]
pub enum SealerError {
    /// The file.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// Zero, or not below the group order.
    #[error("{0}: not a secp256k1 secret key")]
    Key(String),
}

/// The one key that seals.
pub struct Sealer {
    key: SigningKey,
    address: Address,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Sealer {
    /// Takes a secret scalar; `None` where it is none.
    #[must_use]
    pub fn from_bytes(secret: &[u8; 32]) -> Option<Self> {
        let key = SigningKey::from_slice(secret).ok()?;
        let point = key.verifying_key().to_sec1_point(false);
        // SEC 1 §2.3.3: the first byte is the point's form.
        let address = Address::from_slice(&keccak256(&point.as_bytes()[1..])[12..]);
        Some(Self { key, address })
    }

    /// Reads the key's file: 32 bytes in hexadecimal, mode 0600.
    ///
    /// # Errors
    /// [`SealerError`].
    pub fn read(path: &std::path::Path) -> Result<Self, SealerError> {
        let secret = key_file::read_hex::<32>(path)?;
        Self::from_bytes(&secret).ok_or_else(|| SealerError::Key(path.display().to_string()))
    }

    /// Makes a key and its file, where there is none.
    ///
    /// # Errors
    /// [`SealerError`], also where there is a file.
    pub fn create(path: &std::path::Path) -> Result<Self, SealerError> {
        use k256::elliptic_curve::Generate;
        let secret = zeroize::Zeroizing::new(<[u8; 32]>::from(SigningKey::generate().to_bytes()));
        key_file::write_hex(path, secret.as_slice(), key_file::Existing::Keep)?;
        Self::read(path)
    }

    /// The validator that a gateway pins.
    #[must_use]
    pub fn address(&self) -> Address {
        self.address
    }

    fn extra(&self, seal: Option<&[u8; 65]>) -> Bytes {
        let mut payload = Vec::with_capacity(160);
        VANITY.encode(&mut payload);
        vec![self.address].encode(&mut payload);
        payload.push(alloy_rlp::EMPTY_LIST_CODE);
        0_u64.encode(&mut payload);
        let seals: Vec<Bytes> = seal.map(|seal| Bytes::copy_from_slice(seal)).into_iter().collect();
        seals.encode(&mut payload);
        let mut out = Vec::with_capacity(payload.len() + 3);
        alloy_rlp::Header { list: true, payload_length: payload.len() }.encode(&mut out);
        out.extend_from_slice(&payload);
        out.into()
    }

    /// Seals a header; its extra data are overwritten. Returns the block's id.
    pub fn seal(&self, header: &mut Header) -> B256 {
        header.extra_data = self.extra(None);
        let id = keccak256(alloy_rlp::encode(&*header));
        let (rs, recovery) = self.key.sign_prehash_recoverable(&id.0);
        let mut seal = [0; 65];
        seal[..64].copy_from_slice(&rs.to_bytes());
        // Besu writes the recovery id as 0 or 1.
        seal[64] = u8::from(recovery.is_y_odd());
        header.extra_data = self.extra(Some(&seal));
        id
    }
}
