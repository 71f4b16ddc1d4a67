//! Records as a gateway seals them, for tests: one patient and class, one chain.

#![allow(dead_code, clippy::unwrap_used, reason = "a test's own helpers, of which each file uses its part")]

use caregate_protocol::id::{DataClass, PatientId, RecipientId};
use caregate_protocol::key::{PatientRoot, TREE_DEPTH};
use caregate_protocol::search::{TOKENS, Token, Tokens};
use caregate_protocol::segment::{Cipher, Header, SegmentHash, signer_id};
use caregate_protocol::wrap::{WrapScope, generate_keypair};
use ed25519_dalek::SigningKey;

pub(crate) const EPOCH: u32 = 29_000_000;

pub(crate) fn recipient(n: u8) -> RecipientId {
    RecipientId([n; 20])
}

/// A gateway's sealing, with the device key made of `device`.
#[derive(Clone)]
pub(crate) struct Sealing {
    pub(crate) device: SigningKey,
    pub(crate) patient: PatientId,
}

impl Sealing {
    pub(crate) fn new(device: u8) -> Self {
        Self { device: SigningKey::from_bytes(&[device; 32]), patient: PatientId([device; 16]) }
    }

    fn root() -> PatientRoot {
        PatientRoot::from_bytes([7; 32])
    }

    /// A segment of `bytes` bytes of plaintext.
    pub(crate) fn segment_of(&self, sequence: u64, bytes: usize) -> Vec<u8> {
        self.sealed(DataClass::Vitals, sequence, bytes)
    }

    fn sealed(&self, class: DataClass, sequence: u64, bytes: usize) -> Vec<u8> {
        let header = Header {
            class,
            cipher: Cipher::Aes256Gcm,
            patient: self.patient,
            signer: signer_id(&self.device.verifying_key()),
            generation: 0,
            epoch: EPOCH,
            sequence,
            prev: SegmentHash::NONE,
            salt: [9; 16],
            sealed_us: 0,
            readings: 0,
        };
        let key = Self::root().class_key(class, 0).epoch_key(EPOCH).unwrap();
        header.seal(&vec![0x5a; bytes], &key, &self.device).unwrap().0
    }

    /// A segment of class alarm.
    pub(crate) fn alarm(&self, sequence: u64) -> Vec<u8> {
        self.sealed(DataClass::Alarm, sequence, 100)
    }

    /// What a segment of class alarm can be found by.
    pub(crate) fn tokens(&self, sequence: u64, tokens: [Token; TOKENS]) -> Vec<u8> {
        let (class, patient) = (DataClass::Alarm, self.patient);
        let tokens = Tokens { class, patient, generation: 0, epoch: EPOCH, sequence, tokens };
        tokens.sign(&self.device).to_vec()
    }

    pub(crate) fn segment(&self, sequence: u64) -> Vec<u8> {
        self.segment_of(sequence, 100)
    }

    pub(crate) fn wrap(&self, to: u8) -> Vec<u8> {
        let scope = WrapScope {
            class: DataClass::Vitals,
            patient: self.patient,
            generation: 0,
            recipient: recipient(to),
        };
        let leaf = Self::root().class_key(DataClass::Vitals, 0).descend(EPOCH, TREE_DEPTH).unwrap();
        scope.seal(&leaf, &generate_keypair().1, &self.device).unwrap().to_vec()
    }
}
