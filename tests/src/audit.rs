//! Opens a core's store from outside, once as the patient could (with the roots that lie in the gateway) and once as each recipient
//! could: with its HPKE key, the gateways' public keys and every wrap in the store, whoever it was made for.
//!
//! It shares no code with core, gateway or feed beyond the wire formats: the two files are read by their tables' names.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use caregate_protocol::erasure;
use caregate_protocol::id::{DataClass, PatientId};
use caregate_protocol::key::{PatientRoot, TreeNode};
use caregate_protocol::reading::{self, Reading};
use caregate_protocol::record::Record;
use caregate_protocol::segment::{Segment, signer_id};
use caregate_protocol::wrap::{HpkePrivateKey, Wrap};
use ed25519_dalek::VerifyingKey;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use thiserror::Error;

mod stream;

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
const ROOTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("roots");

/// Why an audit can't be made.
#[derive(Debug, Error)]
pub enum AuditError {
    /// A store.
    #[error("{}: {source}", path.display())]
    Store {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
    /// A root that is none.
    #[error("{}: a root has the wrong shape", .0.display())]
    Root(PathBuf),
    /// A record that the core should not have taken.
    #[error("record {index}: {problem}")]
    Record {
        /// Its index in the store.
        index: u64,
        /// What is wrong.
        problem: String,
    },
    /// The output.
    #[error("output: {0}")]
    Output(#[from] io::Error),
}

/// One reading in the core's store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Its device.
    pub device: String,
    /// Its channel or metric.
    pub stream: String,
    /// Its count, unless the payload carries none.
    pub seq: Option<u64>,
    /// The sensor's time, Unix microseconds.
    pub sensor_us: Option<i64>,
    /// When its segment was sealed, Unix milliseconds by the gateway's clock.
    pub sealed_ms: f64,
    /// Whose, in hexadecimal.
    pub patient: String,
    /// For each recipient's key in the order given: whether it opens the segment.
    pub openable: Vec<bool>,
}

type Scope = (PatientId, DataClass);

/// The store's records and what opens them.
pub struct Audit {
    records: Vec<(u64, Vec<u8>)>,
    roots: HashMap<PatientId, PatientRoot>,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit").field("records", &self.records.len()).finish_non_exhaustive()
    }
}

impl Audit {
    /// Reads `core.redb`, or the folder of a NATS server in its place, and `keys.redb`. Their daemons must have ended.
    ///
    /// # Errors
    /// [`AuditError::Store`], [`AuditError::Root`].
    pub fn open(core: &Path, keys: &Path) -> Result<Self, AuditError> {
        let mut records = if core.is_dir() {
            stream::read(core)?
        } else {
            read(core, RECORDS, |key: u64, bytes: &[u8]| (key, bytes.to_vec()))?
        };
        // A request for an erasure holds no readings.
        records.retain(|(_, bytes)| !bytes.starts_with(&erasure::MAGIC));
        let stored = read(keys, ROOTS, |key: &[u8], bytes: &[u8]| (key.to_vec(), bytes.to_vec()))?;
        let mut roots = HashMap::new();
        for (patient, root) in stored {
            let (Ok(patient), Ok(root)) = (patient.try_into(), root.try_into()) else {
                return Err(AuditError::Root(keys.to_owned()));
            };
            roots.insert(PatientId(patient), PatientRoot::from_bytes(root));
        }
        Ok(Self { records, roots })
    }

    /// Writes a line for each reading in the store; answers with how many. Wraps open as from one of `gateways`.
    ///
    /// # Errors
    /// [`AuditError::Record`] for a record that doesn't parse or that the patient's root doesn't open; [`AuditError::Output`].
    pub fn write(
        &self,
        keys: &[HpkePrivateKey],
        gateways: &[VerifyingKey],
        mut out: impl Write,
    ) -> Result<u64, AuditError> {
        let mut held: Vec<HashMap<Scope, Vec<TreeNode>>> = vec![HashMap::new(); keys.len()];
        for (index, bytes) in &self.records {
            if let Record::Wrap(wrap) = decode(*index, bytes)? {
                let named = gateways.iter().find(|gateway| signer_id(gateway) == wrap.signer);
                let gateway = named.ok_or_else(|| AuditError::Record {
                    index: *index,
                    problem: "a wrap of no gateway that was named".into(),
                })?;
                for (key, held) in keys.iter().zip(&mut held) {
                    hold(&wrap, gateway, key, held);
                }
            }
        }
        let mut count = 0;
        for (index, bytes) in &self.records {
            if let Record::Segment(segment) = decode(*index, bytes)? {
                let openable: Vec<bool> = held.iter().map(|held| opens(&segment, held)).collect();
                for reading in self.readings(*index, &segment)? {
                    serde_json::to_writer(&mut out, &line(&segment, &reading, &openable))
                        .map_err(io::Error::from)?;
                    out.write_all(b"\n")?;
                    count += 1;
                }
            }
        }
        out.flush()?;
        Ok(count)
    }

    fn readings(&self, index: u64, segment: &Segment<'_>) -> Result<Vec<Reading>, AuditError> {
        let failed = |problem: String| AuditError::Record { index, problem };
        let header = &segment.header;
        let root =
            self.roots.get(&header.patient).ok_or_else(|| failed("a patient without a root".into()))?;
        let class_key = root.class_key(header.class, header.generation);
        let key =
            class_key.epoch_key(header.epoch).ok_or_else(|| failed("an epoch outside the tree".into()))?;
        let plaintext = segment.open(&key).map_err(|error| failed(error.to_string()))?;
        let mut readings = reading::decode(&plaintext).map_err(|error| failed(error.to_string()))?;
        // What the gateway's own watch says was published by no sensor.
        readings.retain(|reading| !matches!(reading.value, reading::Value::Standing(_)));
        Ok(readings)
    }
}

fn read<K: redb::Key + 'static, V: redb::Value + 'static, T>(
    path: &Path,
    table: TableDefinition<'_, K, V>,
    entry: impl for<'a> Fn(K::SelfType<'a>, V::SelfType<'a>) -> T,
) -> Result<Vec<T>, AuditError> {
    let failed = |source: redb::Error| AuditError::Store { path: path.to_owned(), source: Box::new(source) };
    let db = Database::open(path).map_err(|e| failed(e.into()))?;
    let txn = db.begin_read().map_err(|e| failed(e.into()))?;
    let table = txn.open_table(table).map_err(|e| failed(e.into()))?;
    let mut entries = Vec::new();
    for stored in table.iter().map_err(|e| failed(e.into()))? {
        let (key, value) = stored.map_err(|e| failed(e.into()))?;
        entries.push(entry(key.value(), value.value()));
    }
    Ok(entries)
}

fn decode(index: u64, bytes: &[u8]) -> Result<Record<'_>, AuditError> {
    Record::decode(bytes).map_err(|error| AuditError::Record { index, problem: error.to_string() })
}

/// Keeps what the key makes of a wrap, if anything. That the wrap names another recipient keeps nobody from trying.
fn hold(wrap: &Wrap, gateway: &VerifyingKey, key: &HpkePrivateKey, held: &mut HashMap<Scope, Vec<TreeNode>>) {
    if let Ok(node) = wrap.open(key, gateway) {
        held.entry((wrap.patient, wrap.class)).or_default().push(node);
    }
}

/// Tries every node of the patient and class, of whatever generation it was made for.
fn opens(segment: &Segment<'_>, held: &HashMap<Scope, Vec<TreeNode>>) -> bool {
    let header = &segment.header;
    let nodes = held.get(&(header.patient, header.class)).map(Vec::as_slice).unwrap_or_default();
    let mut keys = nodes.iter().filter_map(|node| node.epoch_key(header.epoch));
    keys.any(|key| segment.open(&key).is_ok())
}

fn line(segment: &Segment<'_>, reading: &Reading, openable: &[bool]) -> Line {
    Line {
        device: reading.device.to_string(),
        stream: reading.stream.to_string(),
        seq: reading.seq,
        sensor_us: reading.sensor_time_us,
        sealed_ms: segment.header.sealed_us as f64 / 1000.0,
        patient: segment.header.patient.to_string(),
        openable: openable.to_vec(),
    }
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
