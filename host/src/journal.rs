//! A daemon's audit log on disk: entries of `caregate_protocol::audit`, one a line, chained, appended and synced.
//!
//! ```text
//! FILE        {"n":1,"prev":"00…",…}\n{"n":2,"prev":"5e…",…}\n
//! FILE.head   {"n":2,"hash":"91…"}      so that a file that is new goes on where the one before ended
//! FILE.1      the one before, where the journal is bounded
//! ```
//! The file is opened for each append, so that it may be rotated by renaming it; a command beside the daemon writes to the
//! same file, one after the other by the lock on `FILE.head`. A line that a crash tore was never acknowledged, and is cut off.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use caregate_protocol::audit::{Entry, Head, LINE_BYTES_MAX, Line, LineError, leaf_hash};
use thiserror::Error;

/// Bytes of the file's end that are read at start: some thousand entries, more than a page shows.
const TAIL_BYTES: u64 = 1 << 20;
/// Bytes of the file's end in which its last whole line is: two of the longest.
const LAST_BYTES: u64 = 2 * (LINE_BYTES_MAX as u64 + 1);
/// A head has some 100 bytes.
const HEAD_BYTES_MAX: u64 = 256;
/// Rights for the owner alone: it says who is treated, and why a glass was broken.
const MODE_PRIVATE: u32 = 0o600;
/// Rights that others must not have.
const MODE_FORBIDDEN: u32 = 0o077;

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
    /// Its last line is no entry, so nothing can follow it.
    #[error("journal {path}: its last line {source}; look at it, and rename the file to begin a new one", path = .path.display())]
    Broken {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: LineError,
    },
    /// An entry can't be written.
    #[error("journal {path}: an entry {source}", path = .path.display())]
    Entry {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: LineError,
    },
}

/// What was known of the file after the last append: as long as it is so, the head needs no reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    device: u64,
    inode: u64,
    bytes: u64,
    head: Head,
}

/// The journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    bytes_max: Option<u64>,
    /// One append at a time: a line is never inside another.
    known: Mutex<Option<Known>>,
}

impl Journal {
    /// One that is opened with its first append, for who must go on without it.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), bytes_max: None, known: Mutex::default() }
    }

    /// Opens it, or makes it; answers with its last entries, oldest first.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(path: &Path) -> Result<(Self, Vec<Entry>), JournalError> {
        let journal = Self::at(path);
        journal.append(&[])?;
        let mut file = journal.file(path)?;
        let entries = tail(&mut file).map_err(failed(path))?;
        Ok((journal, entries))
    }

    /// Bounds it: a file that has so many bytes becomes `FILE.1`, in place of the one before.
    #[must_use]
    pub fn bounded(self, bytes_max: u64) -> Self {
        Self { bytes_max: Some(bytes_max), ..self }
    }

    fn file(&self, path: &Path) -> Result<File, JournalError> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(MODE_PRIVATE);
        private(options.open(path).map_err(failed(path))?, path)
    }

    /// Appends entries; they are on disk when it returns. Blocks.
    ///
    /// # Errors
    /// [`JournalError`]; then it is not known whether they are there.
    pub fn append(&self, entries: &[Entry]) -> Result<(), JournalError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let head_path = beside(&self.path, ".head");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(MODE_PRIVATE);
        let head_file = private(options.open(&head_path).map_err(failed(&head_path))?, &head_path)?;
        head_file.lock().map_err(failed(&head_path))?;
        let is_new = !self.path.exists();
        let mut file = self.file(&self.path)?;
        if is_new {
            keep_name(&self.path).map_err(failed(&self.path))?;
        }
        let metadata = file.metadata().map_err(failed(&self.path))?;
        let is_known = |known: &Known| {
            (known.device, known.inode, known.bytes) == (metadata.dev(), metadata.ino(), metadata.len())
        };
        let mut head = match known.take().filter(is_known) {
            Some(known) => known.head,
            None => self.read_head(&mut file, &head_file, &head_path)?,
        };
        let mut text = Vec::new();
        for entry in entries {
            head.append(entry, &mut text)
                .map_err(|source| JournalError::Entry { path: self.path.clone(), source })?;
        }
        if !text.is_empty() {
            file = self.rotated(file, text.len() as u64)?;
            file.write_all(&text).and_then(|()| file.sync_data()).map_err(failed(&self.path))?;
        }
        write_head(&head_file, &head).map_err(failed(&head_path))?;
        let metadata = file.metadata().map_err(failed(&self.path))?;
        let (device, inode, bytes) = (metadata.dev(), metadata.ino(), metadata.len());
        *known = Some(Known { device, inode, bytes, head });
        Ok(())
    }

    /// The whole lines among the last `bytes_max` bytes of the file, and whether there are more before them. Blocks, and holds up no append.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn end(&self, bytes_max: u64) -> Result<(Vec<u8>, bool), JournalError> {
        let read = || {
            let mut file = File::open(&self.path)?;
            let bytes = file.metadata()?.len();
            let from = bytes.saturating_sub(bytes_max);
            file.seek(SeekFrom::Start(from))?;
            let mut text = Vec::new();
            file.take(bytes - from).read_to_end(&mut text)?;
            Ok((text, from))
        };
        let (mut text, from) = read().map_err(failed(&self.path))?;
        // What comes after the last line's end is being written.
        text.truncate(text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
        if from > 0 {
            let within = text.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            text.drain(..within);
        }
        Ok((text, from > 0 || beside(&self.path, ".1").exists()))
    }

    /// The file's last entry; of an empty one what the file before ended with.
    fn read_head(&self, file: &mut File, head_file: &File, head_path: &Path) -> Result<Head, JournalError> {
        let bytes = file.metadata().map_err(failed(&self.path))?.len();
        let from = bytes.saturating_sub(LAST_BYTES);
        let mut end = Vec::new();
        file.seek(SeekFrom::Start(from))
            .and_then(|_| file.take(LAST_BYTES).read_to_end(&mut end))
            .map_err(failed(&self.path))?;
        let whole = end.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < end.len() {
            // Torn by a crash: its append was never answered.
            file.set_len(from + whole as u64).and_then(|()| file.sync_data()).map_err(failed(&self.path))?;
        }
        let Some(lines) = end[..whole].strip_suffix(b"\n") else {
            return Self::kept_head(head_file).map_err(failed(head_path));
        };
        let last = lines.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        let line =
            Line::decode(last).map_err(|source| JournalError::Broken { path: self.path.clone(), source })?;
        Ok(Head { n: line.n, hash: leaf_hash(last) })
    }

    /// An empty file is a log's beginning; anything else that is no head is said.
    fn kept_head(file: &File) -> io::Result<Head> {
        let mut text = Vec::new();
        file.take(HEAD_BYTES_MAX).read_to_end(&mut text)?;
        if text.is_empty() { Ok(Head::default()) } else { Ok(serde_json::from_slice(&text)?) }
    }

    /// The file to write to: another one where this one is full.
    fn rotated(&self, file: File, more: u64) -> Result<File, JournalError> {
        let bytes = file.metadata().map_err(failed(&self.path))?.len();
        if bytes == 0 || self.bytes_max.is_none_or(|most| bytes.saturating_add(more) <= most) {
            return Ok(file);
        }
        fs::rename(&self.path, beside(&self.path, ".1")).map_err(failed(&self.path))?;
        let file = self.file(&self.path)?;
        keep_name(&self.path).map_err(failed(&self.path))?;
        Ok(file)
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError::Io { path, source }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn private(file: File, path: &Path) -> Result<File, JournalError> {
    let mode = file.metadata().map_err(failed(path))?.mode() & 0o7777;
    if mode & MODE_FORBIDDEN == 0 {
        Ok(file)
    } else {
        Err(JournalError::Mode { path: path.to_owned(), mode })
    }
}

fn write_head(file: &File, head: &Head) -> io::Result<()> {
    let text = serde_json::to_vec(head)?;
    file.write_all_at(&text, 0)?;
    file.set_len(text.len() as u64)?;
    file.sync_data()
}

/// A file that was just made is found after a power loss only if its folder is synced.
fn keep_name(path: &Path) -> io::Result<()> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(folder)?.sync_all()
}

fn tail(file: &mut File) -> io::Result<Vec<Entry>> {
    let from = file.metadata()?.len().saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let mut lines = bytes.split(|byte| *byte == b'\n');
    if from > 0 {
        // It begins within a line.
        lines.next();
    }
    Ok(lines.filter_map(|line| Line::decode(line).ok()).map(|line| line.entry).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use caregate_protocol::audit::{What, verify};
    use caregate_protocol::policy::Pseudonym;

    use super::*;

    fn login(n: i64) -> Entry {
        Entry { at_ms: n, what: What::Login { user: format!("nurse-{n}") } }
    }

    fn path() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        (dir, path)
    }

    fn whole(text: &[u8]) -> Vec<Entry> {
        verify::log(text, &[]).unwrap().lines.into_iter().map(|line| line.entry).collect()
    }

    #[test]
    fn what_was_appended_is_there_after_a_restart_and_is_one_chain() {
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
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let (again, entries) = Journal::open(&path).unwrap();
        assert_eq!(entries, [login(1), emergency.clone(), login(3)]);
        // Two that have it open, in turns.
        again.append(&[login(4)]).unwrap();
        journal.append(&[login(5)]).unwrap();
        let all = whole(&fs::read(&path).unwrap());
        assert_eq!(all, [login(1), emergency, login(3), login(4), login(5)]);
    }

    #[test]
    fn a_torn_line_costs_itself_alone() {
        let (_dir, path) = path();
        let (journal, _) = Journal::open(&path).unwrap();
        journal.append(&[login(1)]).unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"n\":2,\"prev\":\"00").unwrap();
        journal.append(&[login(2)]).unwrap();
        file.write_all(b"{\"n\":3").unwrap();
        let (journal, entries) = Journal::open(&path).unwrap();
        assert_eq!(entries, [login(1), login(2)]);
        journal.append(&[login(3)]).unwrap();
        assert_eq!(whole(&fs::read(&path).unwrap()), [login(1), login(2), login(3)]);
    }

    #[test]
    fn of_a_long_one_the_end_is_read() {
        let (_dir, path) = path();
        let (journal, _) = Journal::open(&path).unwrap();
        let all: Vec<_> = (0..20_000).map(login).collect();
        journal.append(&all).unwrap();
        let (_, entries) = Journal::open(&path).unwrap();
        assert!((1_000..20_000).contains(&entries.len()), "{}", entries.len());
        assert_eq!(entries, all[all.len() - entries.len()..]);
    }

    #[test]
    fn its_end_has_whole_lines_alone() {
        let (_dir, path) = path();
        let (journal, _) = Journal::open(&path).unwrap();
        assert_eq!(journal.end(1 << 20).unwrap(), (Vec::new(), false));
        journal.append(&[login(1), login(2), login(3)]).unwrap();
        let text = fs::read(&path).unwrap();
        assert_eq!(journal.end(1 << 20).unwrap(), (text.clone(), false));
        let last = text.len() - text[..text.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() - 1;
        let (end, is_more) = journal.end(u64::try_from(last + 3).unwrap()).unwrap();
        assert_eq!((end.as_slice(), is_more), (&text[text.len() - last..], true));
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"n\":4").unwrap();
        assert_eq!(journal.end(1 << 20).unwrap(), (text, false));
    }

    #[test]
    fn a_rotated_journal_goes_on_with_its_numbers() {
        let (dir, path) = path();
        let (journal, _) = Journal::open(&path).unwrap();
        journal.append(&[login(1), login(2)]).unwrap();
        let old = dir.path().join("old");
        fs::rename(&path, &old).unwrap();
        journal.append(&[login(3)]).unwrap();
        assert_eq!(Journal::open(&path).unwrap().1, [login(3)]);
        let text = [fs::read(&old).unwrap(), fs::read(&path).unwrap()].concat();
        assert_eq!(whole(&text), [login(1), login(2), login(3)]);
        // And by itself where it is bounded.
        let journal = Journal::open(&path).unwrap().0.bounded(400);
        (4..8).for_each(|n| journal.append(&[login(n)]).unwrap());
        assert!(fs::metadata(&path).unwrap().len() <= 400);
        let kept = [fs::read(beside(&path, ".1")).unwrap(), fs::read(&path).unwrap()].concat();
        let last = kept.split(|byte| *byte == b'\n').rev().nth(1).unwrap();
        assert_eq!(Line::decode(last).unwrap().n, 7);
    }

    #[test]
    fn a_file_that_others_may_read_or_that_is_no_log_is_refused() {
        let (_dir, path) = path();
        let (journal, _) = Journal::open(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Journal::open(&path).unwrap_err();
        assert!(matches!(error, JournalError::Mode { mode: 0o640, .. }), "{error}");
        assert!(journal.append(&[login(2)]).is_err());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "{\"at_ms\":1,\"what\":\"login\",\"user\":\"of an earlier version\"}\n").unwrap();
        let error = Journal::open(&path).unwrap_err().to_string();
        assert!(error.contains("is no entry") && error.contains("rename the file"), "{error}");
        let nowhere = Journal::open(Path::new("/nowhere/journal.jsonl")).unwrap_err();
        assert!(nowhere.to_string().starts_with("journal /nowhere/journal.jsonl"), "{nowhere}");
    }

    #[test]
    fn an_entry_that_is_too_long_leaves_the_journal_as_it_was() {
        let (_dir, path) = path();
        let (journal, _) = Journal::open(&path).unwrap();
        let long = Entry { at_ms: 1, what: What::Login { user: "x".repeat(LINE_BYTES_MAX) } };
        assert!(matches!(journal.append(&[login(1), long]), Err(JournalError::Entry { .. })));
        journal.append(&[login(1)]).unwrap();
        assert_eq!(whole(&fs::read(&path).unwrap()), [login(1)]);
    }
}
