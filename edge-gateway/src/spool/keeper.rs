//! What takes the file system's journal, on a thread of its own: files are let go and the spare is made ready while the log commits.
//!
//! A rename, a deletion and a file of new blocks wait for a commit of the journal, and that one for whatever anybody has written to the same
//! file system: tenths of a second where a backlog drains. No promise hangs on any of it: what is let go was acknowledged durably
//! before, and without a spare the log makes a file by itself.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::SpoolError;
use super::disk::Disk;

/// One thing to do. As many wait as there are files, and one spare.
#[derive(Debug)]
pub(super) enum Task {
    /// Let go of a file, or keep it as the spare of so many bytes.
    Recycle { serial: u64, capacity: u64 },
    /// Have a spare of so many bytes.
    Spare { capacity: u64 },
    /// Give back the room behind a closed file's last frame.
    Cut { serial: u64, file: Arc<File>, len: u64 },
    /// Say that all before it is done.
    Answer(mpsc::Sender<()>),
}

/// What the thread and its owner share.
#[derive(Debug)]
struct Work {
    disk: Arc<Disk>,
    failed: Mutex<Option<SpoolError>>,
    written: AtomicU64,
}

impl Work {
    fn run(&self, task: Task) {
        let done = match task {
            Task::Recycle { serial, capacity } => self.disk.recycle(serial, capacity),
            Task::Spare { capacity } => self.disk.make_spare(capacity),
            Task::Cut { serial, file, len } => {
                // Recovery gives the room back as well.
                if let Err(error) = self.disk.set_len(serial, &file, len) {
                    tracing::warn!(%error, "spool file could not be closed in good order");
                }
                return;
            }
            Task::Answer(answer) => {
                // Who does not wait any more need not hear it.
                answer.send(()).ok();
                return;
            }
        };
        match done {
            Ok(bytes) => drop(self.written.fetch_add(bytes, Ordering::Relaxed)),
            // The next file is made without a spare, or is refused.
            Err(error @ SpoolError::NoSpace { .. }) => tracing::debug!(%error, "no room for a spare"),
            Err(error) => *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error),
        }
    }
}

/// Where the work is done.
#[derive(Debug)]
enum Place {
    Thread {
        tasks: mpsc::Sender<Task>,
        thread: JoinHandle<()>,
    },
    /// At once, by the caller: where no thread can be had.
    Here,
    /// When the test says so.
    #[cfg(test)]
    Later(std::collections::VecDeque<Task>),
}

/// The owner's end. Dropping it waits until all is done.
#[derive(Debug)]
pub(super) struct Keeper {
    work: Arc<Work>,
    place: Place,
}

impl Keeper {
    /// In tests the work is done at once, so that they see what it comes to.
    pub(super) fn start(disk: Arc<Disk>) -> Self {
        let keeper = Self::here(disk);
        if cfg!(test) { keeper } else { keeper.on_thread() }
    }

    fn here(disk: Arc<Disk>) -> Self {
        let work = Work { disk, failed: Mutex::default(), written: AtomicU64::default() };
        Self { work: Arc::new(work), place: Place::Here }
    }

    /// Moves the work to a thread.
    pub(super) fn on_thread(mut self) -> Self {
        let (tasks, todo) = mpsc::channel();
        let work = Arc::clone(&self.work);
        let thread = std::thread::Builder::new().name("spool".into());
        match thread.spawn(move || todo.into_iter().for_each(|task| work.run(task))) {
            Ok(thread) => self.place = Place::Thread { tasks, thread },
            Err(error) => tracing::warn!(%error, "no thread for the spool's files; commits wait for them"),
        }
        self
    }

    /// Has a task done. Nobody waits for it.
    pub(super) fn give(&mut self, task: Task) {
        match &mut self.place {
            Place::Thread { tasks, .. } => {
                if let Err(mpsc::SendError(task)) = tasks.send(task) {
                    self.work.run(task);
                }
            }
            Place::Here => self.work.run(task),
            #[cfg(test)]
            Place::Later(tasks) => tasks.push_back(task),
        }
    }

    /// Waits until all that was given is done.
    pub(super) fn wait(&mut self) {
        let (answer, answered) = mpsc::channel();
        self.give(Task::Answer(answer));
        #[cfg(test)]
        while self.next() {}
        // A thread that is gone has dropped the other end.
        answered.recv().ok();
    }

    /// What has failed since the last call.
    pub(super) fn check(&self) -> Result<(), SpoolError> {
        let failed = self.work.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
        failed.map_or(Ok(()), Err)
    }

    /// Bytes handed to the file system.
    pub(super) fn written(&self) -> u64 {
        self.work.written.load(Ordering::Relaxed)
    }

    /// Keeps the work until [`Self::next`].
    #[cfg(test)]
    pub(super) fn later(&mut self) {
        self.place = Place::Later(std::collections::VecDeque::new());
    }

    /// Does one piece of what was kept; false where there is none.
    #[cfg(test)]
    pub(super) fn next(&mut self) -> bool {
        let Place::Later(tasks) = &mut self.place else { return false };
        let task = tasks.pop_front();
        let some = task.is_some();
        task.into_iter().for_each(|task| self.work.run(task));
        some
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Place::Thread { tasks, thread } = std::mem::replace(&mut self.place, Place::Here) {
            drop(tasks);
            if thread.join().is_err() {
                tracing::error!("the spool's thread panicked");
            }
        }
    }
}
