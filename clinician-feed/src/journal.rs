//! The domain's own journal: who logged in, whose readings somebody looked at, and what opens the commitments of each
//! emergency. One JSON object a line, appended and synced.
//!
//! The file is opened for each append, so that it may be rotated by renaming it; a command beside the daemon writes to the
//! same file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use caregate_protocol::id::PatientId;
use caregate_protocol::policy::Pseudonym;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Bytes of the file's end that are read at start: some thousand entries, more than the page shows.
const TAIL_BYTES: u64 = 1 << 20;
/// Rights for the owner alone: it says who is treated here, and why a glass was broken.
const MODE_PRIVATE: u32 = 0o600;
/// Rights that others must not have.
const MODE_FORBIDDEN: u32 = 0o077;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// Somebody logged in.
    Login {
        /// Who.
        user: String,
    },
    /// A patient's readings were shown to somebody.
    Look {
        /// To whom.
        user: String,
        /// Whose.
        patient: PatientId,
    },
    /// The whole history was written out by a command.
    Export {
        /// The account that ran it, by its number.
        uid: u32,
    },
    /// An emergency is about to be opened: with this its commitments can be shown to be what they are.
    Emergency {
        /// The clinician, as committed.
        user: String,
        /// Whose glass.
        pseudonym: Pseudonym,
        /// As committed.
        reason: String,
        /// Of this pseudonym.
        number: u64,
        /// First second, Unix time.
        from: u64,
        /// First second at which it holds no more.
        until: u64,
        /// Salt of the clinician's commitment, 32 bytes in hexadecimal.
        clinician_salt: String,
        /// Salt of the reason's.
        reason_salt: String,
    },
    /// It is on the ledger.
    EmergencyOpened {
        /// The clinician.
        user: String,
        /// Whose glass.
        pseudonym: Pseudonym,
        /// Which one.
        number: u64,
        /// First second at which it holds no more.
        until: u64,
        /// The ledger's block.
        block: u64,
    },
    /// It is not on the ledger, or that is not known.
    EmergencyFailed {
        /// The clinician.
        user: String,
        /// Whose glass.
        pseudonym: Pseudonym,
        /// Which one.
        number: u64,
        /// Why.
        why: String,
    },
    /// Staff are about to act on a gateway's watch.
    Command {
        /// Who.
        user: String,
        /// Whose watch.
        patient: PatientId,
        /// What.
        action: String,
        /// The command's number.
        sequence: u64,
    },
    /// What became of it.
    CommandDone {
        /// Who.
        user: String,
        /// Whose watch.
        patient: PatientId,
        /// What.
        action: String,
        /// The command's number.
        sequence: u64,
        /// None where the watch confirmed it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// Somebody opens emergencies often: for review.
    Frequent {
        /// Who.
        user: String,
        /// How many within a day, this one among them.
        count: u64,
    },
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Unix time in milliseconds.
    pub at_ms: i64,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// The journal can't be read or written.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The operating system refuses.
    #[error("journal {path}: {source}", path = .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read it.
    #[error("journal {path}: mode {mode:o} lets others in, must be 600", path = .path.display())]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

/// The journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// One append at a time: a line is never inside another.
    writing: Mutex<()>,
}

impl Journal {
    /// Opens it, or makes it; answers with its last entries, oldest first. A line that is none is passed over, and one that
    /// was torn by a crash is closed, so that the next stands by itself.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(path: &Path) -> Result<(Self, Vec<Entry>), JournalError> {
        let journal = Self { path: path.to_owned(), writing: Mutex::default() };
        let mut file = journal.file()?;
        let entries = tail(&mut file).and_then(|entries| keep_name(path).map(|()| entries));
        Ok((journal, entries.map_err(|source| Self::failed(path, source))?))
    }

    fn failed(path: &Path, source: io::Error) -> JournalError {
        JournalError::Io { path: path.to_owned(), source }
    }

    fn file(&self) -> Result<File, JournalError> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(MODE_PRIVATE);
        let file = options.open(&self.path).map_err(|source| Self::failed(&self.path, source))?;
        let mode = file.metadata().map_err(|source| Self::failed(&self.path, source))?.mode() & 0o7777;
        if mode & MODE_FORBIDDEN == 0 {
            Ok(file)
        } else {
            Err(JournalError::Mode { path: self.path.clone(), mode })
        }
    }

    /// Appends entries; they are on disk when it returns. Blocks.
    ///
    /// # Errors
    /// [`JournalError`]; then it is not known whether they are there.
    pub fn append(&self, entries: &[Entry]) -> Result<(), JournalError> {
        let mut text = Vec::new();
        for entry in entries {
            let Ok(()) = serde_json::to_writer(&mut text, entry)
                .map_err(|_source| unreachable!("text keys and numbers are always JSON"));
            text.push(b'\n');
        }
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = self.file()?;
        // One write: a command beside the daemon appends as well.
        file.write_all(&text)
            .and_then(|()| file.sync_data())
            .map_err(|source| Self::failed(&self.path, source))
    }
}

/// A file that was just made is found after a power loss only if its folder is synced.
fn keep_name(path: &Path) -> io::Result<()> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(folder)?.sync_all()
}

fn tail(file: &mut File) -> io::Result<Vec<Entry>> {
    let length = file.metadata()?.len();
    let from = length.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    if bytes.last().is_some_and(|last| *last != b'\n') {
        file.write_all(b"\n")?;
        file.sync_data()?;
    }
    let mut lines = bytes.split(|byte| *byte == b'\n');
    if from > 0 {
        // It begins within a line.
        lines.next();
    }
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn login(n: i64) -> Entry {
        Entry { at_ms: n, what: What::Login { user: format!("nurse-{n}") } }
    }

    fn path() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        (dir, path)
    }

    #[test]
    fn what_was_appended_is_there_after_a_restart() {
        let (_dir, path) = path();
        let (journal, before) = Journal::open(&path).unwrap();
        assert!(before.is_empty());
        let emergency = Entry {
            at_ms: 2,
            what: What::Emergency {
                user: "dr".into(),
                pseudonym: Pseudonym([1; 32]),
                reason: "found on the floor\n\"quoted\"".into(),
                number: 1,
                from: 5,
                until: 6,
                clinician_salt: "aa".repeat(32),
                reason_salt: "bb".repeat(32),
            },
        };
        journal.append(&[login(1), emergency.clone()]).unwrap();
        journal.append(&[login(3)]).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Journal::open(&path).unwrap().1, [login(1), emergency, login(3)]);
    }

    #[test]
    fn a_torn_line_costs_itself_alone() {
        let (_dir, path) = path();
        let (journal, _) = Journal::open(&path).unwrap();
        journal.append(&[login(1)]).unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"at_ms\":2,\"what\":\"lo").unwrap();
        let (journal, entries) = Journal::open(&path).unwrap();
        assert_eq!(entries, [login(1)]);
        journal.append(&[login(3)]).unwrap();
        assert_eq!(Journal::open(&path).unwrap().1, [login(1), login(3)]);
    }

    #[test]
    fn of_a_long_one_the_end_is_read() {
        let (_dir, path) = path();
        let (journal, _) = Journal::open(&path).unwrap();
        let all: Vec<_> = (0..40_000).map(login).collect();
        journal.append(&all).unwrap();
        let (_, entries) = Journal::open(&path).unwrap();
        assert!((1_000..40_000).contains(&entries.len()), "{}", entries.len());
        assert_eq!(entries, all[all.len() - entries.len()..]);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_and_a_rotated_one_is_made_anew() {
        let (_dir, path) = path();
        let (journal, _) = Journal::open(&path).unwrap();
        std::fs::rename(&path, path.with_extension("1")).unwrap();
        journal.append(&[login(1)]).unwrap();
        assert_eq!(Journal::open(&path).unwrap().1, [login(1)]);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = Journal::open(&path).unwrap_err();
        assert!(matches!(error, JournalError::Mode { mode: 0o640, .. }), "{error}");
        assert!(journal.append(&[login(2)]).is_err());
        let nowhere = Journal::open(Path::new("/nowhere/journal.jsonl")).unwrap_err();
        assert!(nowhere.to_string().starts_with("journal /nowhere/journal.jsonl: "), "{nowhere}");
    }
}
