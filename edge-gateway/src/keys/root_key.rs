//! The key under which roots lie in the store, where there is a TPM.

use std::path::Path;
use std::sync::Arc;

use caregate_protocol::id::PatientId;
use caregate_protocol::tpm::Sealed;
use redb::{ReadableTable, WriteTransaction};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::envelope::{self, RootKey, Stored, Vault};
use super::{KeyStoreError, ROOT_KEY, ROOTS, SEALED, Unopened, failed, scrub, tpm};
use crate::watch::store::WatchStore;

/// The key of the roots: opened by the TPM, or made and sealed to it, and then the roots that lay open with it.
pub(super) fn open(
    txn: &WriteTransaction,
    tpm: Option<&Path>,
    unopened: Unopened,
    random: &SystemRandom,
) -> Result<Option<Arc<RootKey>>, KeyStoreError> {
    let mut table = txn.open_table(SEALED).map_err(failed("open sealed"))?;
    let kept = table.get(ROOT_KEY).map_err(failed("read the sealed key"))?.map(|kept| kept.value().to_vec());
    let Some(path) = tpm else {
        return match (kept, unopened) {
            (None, _) => Ok(None),
            (Some(_), Unopened::Refuse) => Err(KeyStoreError::NoTpm),
            (Some(_), Unopened::Leave) => Ok(None),
            (Some(_), Unopened::MakeAnew) => {
                table.remove(ROOT_KEY).map_err(failed("remove the sealed key"))?;
                Ok(None)
            }
        };
    };
    let mut tpm = tpm::Tpm::open(path)?;
    if let Some(kept) = kept {
        let sealed = Sealed::decode(&kept).map_err(|_wire| KeyStoreError::Shape("sealed key"))?;
        match (tpm.unseal(&sealed), unopened) {
            (Ok(secret), _) => return RootKey::new(&secret, &sealed).map(|key| Some(Arc::new(key))),
            (Err(failure), Unopened::Refuse | Unopened::Leave) => return Err(failure.into()),
            (Err(_), Unopened::MakeAnew) => {}
        }
    }
    let mut secret = Zeroizing::new([0; 32]);
    random.fill(secret.as_mut_slice()).map_err(|_unspecified| KeyStoreError::Random)?;
    let sealed = tpm.seal(&secret)?;
    table.insert(ROOT_KEY, sealed.encode().as_slice()).map_err(failed("write the sealed key"))?;
    let key = Arc::new(RootKey::new(secret.as_slice(), &sealed)?);
    seal_open_roots(txn, &key)?;
    let plain = WatchStore::seal_open_keys(txn, &Vault(Some(Arc::clone(&key))))?;
    plain.iter().try_for_each(|key| scrub::note(txn, key))?;
    Ok(Some(key))
}

fn seal_open_roots(txn: &WriteTransaction, key: &RootKey) -> Result<(), KeyStoreError> {
    let mut roots = txn.open_table(ROOTS).map_err(failed("open roots"))?;
    let mut open = Vec::new();
    for entry in roots.iter().map_err(failed("read roots"))? {
        let (patient, stored) = entry.map_err(failed("read roots"))?;
        if envelope::is_plain(stored.value()) {
            let shape = |_length| KeyStoreError::Shape("patient");
            let patient = PatientId(patient.value().try_into().map_err(shape)?);
            if let Stored::Root(root) = envelope::open(None, patient, stored.value())? {
                open.push((patient, root));
            }
        }
    }
    for (patient, root) in open {
        let sealed = envelope::seal(Some(key), patient, &root)?;
        roots.insert(patient.0.as_slice(), sealed.as_slice()).map_err(failed("write a root"))?;
        // The pages in which it lay open.
        scrub::note(txn, root.as_bytes())?;
    }
    Ok(())
}
