//! The connection to the controller, as bytes: made, read, written, lost.

use std::future::pending;
use std::io;
use std::time::{Duration, Instant};

use caregate_host::clock;
use caregate_protocol::datapath::switch::SharedInstructions;
use caregate_protocol::openflow::{FrameError, Framer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::agent::Incoming;
use super::dial::{DialError, Dialing, Stream};

/// Bytes per read: a longest TLS record.
const READ_BYTES: usize = 16 * 1024;
/// Reads that wait for the agent: it is not to wait for whoever reads to wake up. With the two that are in hand, and 2,048 of the
/// shortest messages in each, 5 MB of decoded messages at most.
const READS_MAX: usize = 8;
/// A flow-mod that matches a few fields and has one output: as many messages there is room for in what a read gives.
const MESSAGE_BYTES: usize = 96;
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
    /// So many messages have come.
    Read(usize),
    /// Bytes have gone.
    Written,
    /// Where the next message begins is lost.
    Unframed(FrameError),
    /// The controller closed it, or the network did.
    Lost,
    /// The controller takes nothing.
    Stalled,
}

/// A connection.
pub(super) struct Open {
    writer: WriteHalf<Stream>,
    /// Ends with the connection.
    _reader: AbortOnDropHandle<()>,
    reads: mpsc::Receiver<Read>,
    /// Of the last read, what the agent has not taken.
    messages: std::vec::IntoIter<Incoming>,
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
        let (reads_out, reads) = mpsc::channel(READS_MAX);
        Box::new(Self {
            writer,
            _reader: AbortOnDropHandle::new(tokio::spawn(read(reader, reads_out))),
            reads,
            messages: Vec::new().into_iter(),
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

    /// The next message that has been read.
    pub(super) fn next_message(&mut self) -> Option<Incoming> {
        self.messages.next()
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

    /// May be dropped at any time: what was read is in `messages`, what was written is off `unsent`.
    async fn next(&mut self, may_read: bool) -> Moved {
        let may_read = may_read && self.messages.len() == 0 && self.has_room();
        let is_unsent = !self.unsent.is_empty();
        tokio::select! {
            read = self.reads.recv(), if may_read => match read {
                Some(Read::Messages(messages)) => {
                    self.messages = messages.into_iter();
                    Moved::Read(self.messages.len())
                }
                Some(Read::Unframed(error)) => Moved::Unframed(error),
                None => Moved::Lost,
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

/// What the reading of a connection gives.
enum Read {
    /// Whole messages.
    Messages(Vec<Incoming>),
    /// Nothing follows.
    Unframed(FrameError),
}

/// Reads until the controller closes, or writes what is no message. It decodes beside the agent, so that on two cores a table comes in
/// while the one before is checked; and it waits where [`READS_MAX`] of its reads are waited for, so that the socket stays unread.
async fn read(mut reader: ReadHalf<Stream>, reads: mpsc::Sender<Read>) {
    let (mut framer, mut shared) = (Framer::new(), SharedInstructions::default());
    let mut bytes = vec![0; READ_BYTES];
    while let Ok(count @ 1..) = reader.read(&mut bytes).await {
        let (messages, error) = decode(&mut framer, &bytes[..count], &mut shared);
        if !messages.is_empty() && reads.send(Read::Messages(messages)).await.is_err() {
            return;
        }
        if let Some(error) = error {
            drop(reads.send(Read::Unframed(error)).await);
            return;
        }
    }
}

/// The messages that end in `bytes`.
fn decode(
    framer: &mut Framer,
    mut bytes: &[u8],
    shared: &mut SharedInstructions,
) -> (Vec<Incoming>, Option<FrameError>) {
    let mut messages = Vec::with_capacity(bytes.len() / MESSAGE_BYTES);
    while !bytes.is_empty() {
        // All that was whole is taken out below, so that there is room.
        let taken = framer.accept(bytes);
        bytes = bytes.get(taken..).unwrap_or_default();
        loop {
            match framer.next_frame() {
                Ok(Some(frame)) => messages.push(Incoming::of(frame, shared)),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
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
