//! Headers in QBFT's form (Hyperledger Besu), sealed by one key.
//!
//! `extraData = RLP [ vanity (32 bytes), [validator], vote [], round 0, [seal] ]`. The seal is over the header with an empty list of
//! seals; since the round is 0, that hash is also the block's id.

use alloy_consensus::Header;
use alloy_primitives::{Address, B256, Bytes, b256, keccak256};
use alloy_rlp::Encodable;
use caregate_host::key_file::{self, KeyFileError};
use k256::ecdsa::{RecoveryId, Signature, SigningKey, VerifyingKey};
use thiserror::Error;

/// Besu's mix hash of IBFT-family headers: "Istanbul digest".
pub const MIX_HASH: B256 = b256!("63746963616c2062797a616e74696e65206661756c7420746f6c6572616e6365");
/// The first 32 bytes of the extra data, free to use: who reads a header sees what kind of chain it is from.
const VANITY: [u8; 32] = *b"caregate ledger-node, one sealer";

/// r, s and the recovery id.
pub const SEAL_BYTES: usize = 65;

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
        let address = address_of(key.verifying_key());
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

    /// Seals a header; its extra data are overwritten. Returns the block's id.
    pub fn seal(&self, header: &mut Header) -> B256 {
        header.extra_data = extra(self.address, None);
        let id = keccak256(alloy_rlp::encode(&*header));
        let (rs, recovery) = self.key.sign_prehash_recoverable(&id.0);
        let mut seal = [0; SEAL_BYTES];
        seal[..64].copy_from_slice(&rs.to_bytes());
        // Besu writes the recovery id as 0 or 1.
        seal[64] = u8::from(recovery.is_y_odd());
        header.extra_data = extra(self.address, Some(&seal));
        id
    }
}

fn address_of(key: &VerifyingKey) -> Address {
    // SEC 1 §2.3.3: the first byte is the point's form.
    Address::from_slice(&keccak256(&key.to_sec1_point(false).as_bytes()[1..])[12..])
}

fn extra(validator: Address, seal: Option<&[u8; SEAL_BYTES]>) -> Bytes {
    let mut payload = Vec::with_capacity(160);
    VANITY.encode(&mut payload);
    vec![validator].encode(&mut payload);
    payload.push(alloy_rlp::EMPTY_LIST_CODE);
    0_u64.encode(&mut payload);
    let seals: Vec<Bytes> = seal.map(|seal| Bytes::copy_from_slice(seal)).into_iter().collect();
    seals.encode(&mut payload);
    let mut out = Vec::with_capacity(payload.len() + 3);
    alloy_rlp::Header { list: true, payload_length: payload.len() }.encode(&mut out);
    out.extend_from_slice(&payload);
    out.into()
}

/// The id of a header that this node sealed, and its seal; `None` where its extra data are not of this form.
#[must_use]
pub fn opened(header: &Header) -> Option<(B256, [u8; SEAL_BYTES])> {
    let seal = header.extra_data.last_chunk::<SEAL_BYTES>()?;
    if header.extra_data != extra(header.beneficiary, Some(seal)) {
        return None;
    }
    let unsealed = Header { extra_data: extra(header.beneficiary, None), ..header.clone() };
    Some((keccak256(alloy_rlp::encode(&unsealed)), *seal))
}

/// Whether a seal over an id is this validator's.
#[must_use]
pub fn is_by(id: &B256, seal: &[u8; SEAL_BYTES], validator: &Address) -> bool {
    let [rs @ .., odd] = seal;
    let key = Signature::from_slice(rs)
        .ok()
        .zip(RecoveryId::from_byte(*odd))
        .and_then(|(rs, recovery)| VerifyingKey::recover_from_prehash(&id.0, &rs, recovery).ok());
    key.is_some_and(|key| address_of(&key) == *validator)
}
