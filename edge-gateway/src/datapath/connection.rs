//! One connection to the helper: a request out, events and the reply in, a descriptor beside it where there is one.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use caregate_protocol::datapath::switch::Change;
use caregate_protocol::datapath::{
    Event, Framer, FromHelper, Refused, Reply, Request, ToHelper, VERSION, Welcome,
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{Answer, DatapathError};

/// Longest wait for a reply: the helper answers in milliseconds, on a router under load in tens.
pub(super) const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for the first: a helper that starts has the kernel check its programs before it answers, which takes seconds.
const HELLO_TIMEOUT: Duration = Duration::from_secs(60);
/// The counters of a gateway with a few ports.
const READ_BYTES: usize = 16 * 1024;
/// Descriptors that are read and not asked for yet; only one is ever on its way.
const DESCRIPTORS_MAX: usize = 4;

/// A connection that has said hello.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    framer: Framer,
    descriptors: VecDeque<OwnedFd>,
    number: u32,
    /// Frames of a batch that goes on, whose replies nobody waits for yet; as many as a batch has.
    awaited: VecDeque<u32>,
    /// What came first of those that were refused.
    refused: Option<DatapathError>,
}

impl Connection {
    pub(super) async fn open(path: &Path, session: u64) -> Result<(Self, Welcome), DatapathError> {
        let stream = UnixStream::connect(path)
            .await
            .map_err(|source| DatapathError::Connect { path: path.display().to_string(), source })?;
        let mut connection = Self {
            stream,
            framer: Framer::new(),
            descriptors: VecDeque::new(),
            number: 0,
            awaited: VecDeque::new(),
            refused: None,
        };
        let hello = Request::Hello { version: VERSION, session };
        match connection.call_within(HELLO_TIMEOUT, hello, &mut |_event| {}).await? {
            (Reply::Welcome(welcome), _) => Ok((connection, welcome)),
            _ => Err(DatapathError::Unexpected),
        }
    }

    /// Asks, and waits for the reply; events that come before it go to `tell`. After any error but a refusal the connection is of
    /// no use.
    pub(super) async fn call(&mut self, request: Request, tell: &mut impl FnMut(Event)) -> Answer {
        self.call_within(REPLY_TIMEOUT, request, tell).await
    }

    async fn call_within(
        &mut self,
        longest: Duration,
        request: Request,
        tell: &mut impl FnMut(Event),
    ) -> Answer {
        let asked = async {
            let number = self.send(request).await?;
            self.reply(number, tell).await
        };
        timeout(longest, asked).await.map_err(|_elapsed| DatapathError::Timeout)?
    }

    /// Tells the changes of a series that goes on, and waits for no reply: the helper works at them while more is written.
    pub(super) async fn tell_changes(
        &mut self,
        series: impl Iterator<Item = (&[Change], bool)>,
    ) -> Result<(), DatapathError> {
        let told = async {
            for (changes, more) in series {
                let number = self.take_number();
                self.write(&ToHelper::encode_changes(number, changes, more)).await?;
                self.awaited.push_back(number);
            }
            Ok(())
        };
        timeout(REPLY_TIMEOUT, told).await.map_err(|_elapsed| DatapathError::Timeout)?
    }

    /// Tells the last changes of a series, and waits until all of it is in force. A refusal is the first that came.
    pub(super) async fn change(
        &mut self,
        series: impl Iterator<Item = (&[Change], bool)>,
        tell: &mut impl FnMut(Event),
    ) -> Result<(), DatapathError> {
        self.tell_changes(series).await?;
        let answered = async {
            while !self.awaited.is_empty() {
                match self.next().await? {
                    FromHelper::Event(event) => tell(event),
                    FromHelper::Reply { number, result } => self.take_reply(number, result)?,
                }
            }
            self.refused.take().map_or(Ok(()), Err)
        };
        timeout(REPLY_TIMEOUT, answered).await.map_err(|_elapsed| DatapathError::Timeout)?
    }

    /// Takes the reply to a frame of a batch: they come in the order of the frames.
    fn take_reply(&mut self, number: u32, result: Result<Reply, Refused>) -> Result<(), DatapathError> {
        match (self.awaited.pop_front(), result) {
            (Some(awaited), Ok(Reply::Done)) if awaited == number => {}
            // What it could not read has no number.
            (Some(awaited), Err(refused)) if awaited == number || number == 0 => {
                self.refused.get_or_insert_with(|| refused.into());
            }
            _ => return Err(DatapathError::Unexpected),
        }
        Ok(())
    }

    async fn send(&mut self, request: Request) -> Result<u32, DatapathError> {
        let number = self.take_number();
        self.write(&ToHelper { number, request }.encode()).await?;
        Ok(number)
    }

    fn take_number(&mut self) -> u32 {
        self.number = self.number.wrapping_add(1);
        self.number
    }

    async fn reply(&mut self, number: u32, tell: &mut impl FnMut(Event)) -> Answer {
        loop {
            match self.next().await? {
                FromHelper::Event(event) => tell(event),
                FromHelper::Reply { number: replied, result } if !self.awaited.is_empty() => {
                    self.take_reply(replied, result)?;
                }
                FromHelper::Reply { number: replied, result } => {
                    // What it could not read has no number.
                    if replied != number && !(replied == 0 && result.is_err()) {
                        return Err(DatapathError::Unexpected);
                    }
                    let reply = result?;
                    let descriptor = if reply == Reply::Socket { self.descriptors.pop_front() } else { None };
                    return Ok((reply, descriptor));
                }
            }
        }
    }

    /// The next event; a reply that nobody asked for is an error. May be dropped at any time.
    pub(super) async fn event(&mut self) -> Result<Event, DatapathError> {
        loop {
            match self.next().await? {
                FromHelper::Event(event) => return Ok(event),
                FromHelper::Reply { number, result } => self.take_reply(number, result)?,
            }
        }
    }

    async fn next(&mut self) -> Result<FromHelper, DatapathError> {
        loop {
            if let Some(frame) = self.framer.next_frame()? {
                return Ok(FromHelper::decode(&frame)?);
            }
            self.stream.readable().await?;
            let mut buffer = [0; READ_BYTES];
            let read = self
                .stream
                .try_io(Interest::READABLE, || receive(&self.stream, &mut buffer, &mut self.descriptors));
            match read {
                Ok(0) => return Err(DatapathError::Away),
                Ok(length) => self.framer.push(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn write(&self, mut bytes: &[u8]) -> Result<(), DatapathError> {
        while !bytes.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(bytes) {
                Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn receive(stream: &UnixStream, buffer: &mut [u8], descriptors: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(buffer)];
    let received = recvmsg(stream.as_fd(), &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights.take(DESCRIPTORS_MAX.saturating_sub(descriptors.len())));
        }
    }
    Ok(received.bytes)
}
