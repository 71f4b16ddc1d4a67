//! One group on its way to the disk, on a thread of its own, while the log takes the next one.

use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use caregate_host::clock;
use tokio::sync::Notify;

use super::SpoolError;
use super::direct::Led;
use super::disk::Disk;
use super::file::Pending;

/// A group with what is written behind it.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) serial: u64,
    pub(super) file: Arc<File>,
    /// Where it begins in the file.
    pub(super) at: u64,
    /// How it is written past the page cache, if it is.
    pub(super) direct: Option<Led>,
    /// Its bytes end in zeroes, behind `len`.
    pub(super) group: Pending,
    pub(super) len: usize,
}

/// And how long it took.
type Landed = (Flight, Result<(), SpoolError>, Duration);

impl Flight {
    pub(super) fn run(mut self, disk: &Disk) -> Landed {
        let begun = clock::monotonic();
        let written = match &self.direct {
            Some(direct) => disk.write_direct(self.serial, direct, self.at, &self.group.bytes),
            None => disk.write_synced(self.serial, &self.file, self.at, &self.group.bytes),
        };
        self.group.bytes.truncate(self.len);
        (self, written, begun.elapsed())
    }
}

/// Where it is done.
#[derive(Debug)]
enum Place {
    Thread {
        flights: mpsc::SyncSender<Flight>,
        landed: mpsc::Receiver<Landed>,
        thread: JoinHandle<()>,
    },
    /// By whoever waits for it: in tests, which see what lies between, and where no thread can be had.
    Here(Option<Flight>),
}

/// The owner's end; at most one flight at a time.
#[derive(Debug)]
pub(super) struct Syncer {
    disk: Arc<Disk>,
    place: Place,
    /// Told when a flight has landed.
    pub(super) landed: Arc<Notify>,
}

impl Syncer {
    pub(super) fn start(disk: Arc<Disk>) -> Self {
        let syncer = Self { disk, place: Place::Here(None), landed: Arc::default() };
        if cfg!(test) { syncer } else { syncer.on_thread() }
    }

    /// Moves the work to a thread.
    pub(super) fn on_thread(mut self) -> Self {
        let (flights, todo) = mpsc::sync_channel::<Flight>(1);
        let (done, landed) = mpsc::sync_channel(1);
        let (disk, told) = (Arc::clone(&self.disk), Arc::clone(&self.landed));
        let spawned = std::thread::Builder::new().name("sync".into()).spawn(move || {
            for flight in todo {
                if done.send(flight.run(&disk)).is_err() {
                    return;
                }
                told.notify_one();
            }
        });
        match spawned {
            Ok(thread) => self.place = Place::Thread { flights, landed, thread },
            Err(error) => tracing::warn!(%error, "no thread for the spool's syncs; commits wait for them"),
        }
        self
    }

    /// Sends a flight off.
    ///
    /// # Errors
    /// [`SpoolError::Stopped`]: the thread is gone, and the group with it.
    pub(super) fn send(&mut self, flight: Flight) -> Result<(), SpoolError> {
        match &mut self.place {
            Place::Thread { flights, .. } => flights.send(flight).map_err(|_gone| SpoolError::Stopped),
            Place::Here(waiting) => {
                *waiting = Some(flight);
                self.landed.notify_one();
                Ok(())
            }
        }
    }

    /// Waits for the flight that was sent off.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(super) fn wait(&mut self) -> Result<Landed, SpoolError> {
        match &mut self.place {
            Place::Thread { landed, .. } => landed.recv().map_err(|_gone| SpoolError::Stopped),
            Place::Here(waiting) => {
                waiting.take().map(|flight| flight.run(&self.disk)).ok_or(SpoolError::Stopped)
            }
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        if let Place::Thread { flights, landed, thread } =
            std::mem::replace(&mut self.place, Place::Here(None))
        {
            drop((flights, landed));
            if thread.join().is_err() {
                tracing::error!("the spool's syncing thread panicked");
            }
        }
    }
}
