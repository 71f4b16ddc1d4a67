//! The connection to the controller, as bytes: made, read, written, lost.

use std::future::pending;
use std::io;
use std::time::{Duration, Instant};

use caregate_host::clock;
use caregate_protocol::openflow::Framer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::time::{sleep_until, timeout};

use super::dial::{DialError, Dialing, Stream};

/// Bytes per read: a longest TLS record.
const READ_BYTES: usize = 16 * 1024;
/// Bytes that the controller has not taken, above which nothing more is read from it: two longest messages.
const UNSENT_BYTES_MAX: usize = 128 * 1024;
/// A controller that takes no bytes for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// For what is due before a connection is closed from here.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the way to the controller stands.
pub(super) enum Line {
    Waiting(Instant),
    Dialing(Dialing),
    Open(Box<Open>),
}

/// What has happened on it.
pub(super) enum Moved {
    /// The pause is over.
    Due,
    Dialed(Result<Box<Stream>, DialError>),
    /// Bytes have come, into the framer as far as there is room.
    Read,
    /// Bytes have gone.
    Written,
    /// The controller closed it, or the network did.
    Lost,
    /// The controller takes nothing.
    Stalled,
}

/// A connection.
pub(super) struct Open {
    reader: ReadHalf<Stream>,
    writer: WriteHalf<Stream>,
    pub(super) framer: Framer,
    /// Read, and not yet taken by the framer: at most [`READ_BYTES`].
    unframed: Vec<u8>,
    /// To be written. Beyond [`UNSENT_BYTES_MAX`] it grows by the answers to one more frame, and by what is told unasked of
    /// ports and flows while the controller takes nothing, for at most [`WRITE_TIMEOUT`].
    unsent: Vec<u8>,
    is_flushed: bool,
    /// Since when the controller has taken nothing of what waits.
    since: Instant,
}

impl Open {
    pub(super) fn new(stream: Stream) -> Box<Self> {
        let (reader, writer) = split(stream);
        Box::new(Self {
            reader,
            writer,
            framer: Framer::new(),
            unframed: Vec::new(),
            unsent: Vec::new(),
            is_flushed: true,
            since: clock::monotonic(),
        })
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        if self.is_flushed {
            self.since = clock::monotonic();
            self.is_flushed = false;
        }
        self.unsent.extend_from_slice(bytes);
    }

    /// Whether the controller takes what it is sent.
    pub(super) fn has_room(&self) -> bool {
        self.unsent.len() < UNSENT_BYTES_MAX
    }

    /// Gives the framer more of what was read; whether there was any.
    pub(super) fn refill(&mut self) -> bool {
        let taken = self.framer.accept(&self.unframed);
        self.unframed.drain(..taken);
        taken > 0
    }

    /// Sends what is due and ends the connection.
    pub(super) async fn close(mut self: Box<Self>) {
        let due = async {
            self.writer.write_all(&self.unsent).await?;
            self.writer.shutdown().await
        };
        // Whoever is told of an error has to read; whoever does not is left.
        if !matches!(timeout(CLOSE_TIMEOUT, due).await, Ok(Ok(()))) {
            tracing::debug!("the connection was not closed in order");
        }
    }

    /// May be dropped at any time: what was read is in `unframed`, what was written is off `unsent`.
    async fn next(&mut self, may_read: bool) -> Moved {
        let mut bytes = [0; READ_BYTES];
        let may_read = may_read && self.unframed.is_empty() && self.has_room();
        let is_unsent = !self.unsent.is_empty();
        tokio::select! {
            read = self.reader.read(&mut bytes), if may_read => match read {
                Ok(0) | Err(_) => Moved::Lost,
                Ok(count) => {
                    self.unframed.extend_from_slice(&bytes[..count]);
                    Moved::Read
                }
            },
            written = write(&mut self.writer, &self.unsent), if !self.is_flushed => match written {
                Err(_) => Moved::Lost,
                Ok(count) => {
                    self.unsent.drain(..count);
                    self.is_flushed = !is_unsent;
                    self.since = clock::monotonic();
                    Moved::Written
                }
            },
            () = sleep_until((self.since + WRITE_TIMEOUT).into()), if !self.is_flushed => Moved::Stalled,
            else => pending().await,
        }
    }
}

/// Some of `bytes`; without any, TLS' own buffer.
async fn write(writer: &mut WriteHalf<Stream>, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return writer.flush().await.map(|()| 0);
    }
    match writer.write(bytes).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        count => Ok(count),
    }
}

impl Line {
    pub(super) async fn next(&mut self, may_read: bool) -> Moved {
        match self {
            Self::Waiting(until) => {
                sleep_until((*until).into()).await;
                Moved::Due
            }
            Self::Dialing(dialing) => Moved::Dialed(dialing.await.map(Box::new)),
            Self::Open(open) => open.next(may_read).await,
        }
    }
}
