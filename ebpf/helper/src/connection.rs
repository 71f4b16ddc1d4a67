//! One daemon's connection: requests are answered in order, events are passed on between them.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use caregate_protocol::datapath::{
    FrameError, Framer, FromHelper, PacketOut, Reason, Refused, Reply, Request, ToHelper, VERSION,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use thiserror::Error;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::shared::{Kind, Shared};
use crate::switch::Series;

/// A hundred flows are 30 kB.
const READ_BYTES: usize = 64 * 1024;
/// A daemon that doesn't take an answer for so long is gone, or hangs.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a connection ended.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The daemon does not read.
    #[error("the daemon took no answer for {} s", WRITE_TIMEOUT.as_secs())]
    Stuck,
    /// What came is no request.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Another version.
    #[error("the daemon speaks version {0}, this helper {VERSION}")]
    Version(u16),
}

/// Serves one connection until it ends or `stop`.
///
/// # Errors
/// [`ConnectionError`]; none where the daemon closed it.
pub async fn serve(
    stream: UnixStream,
    shared: Shared,
    metrics: Metrics,
    stop: CancellationToken,
) -> Result<(), ConnectionError> {
    let mut connection = Connection { stream, shared, metrics, session: None, series: Series::Closed };
    let mut events = connection.shared.subscribe();
    let mut punts = connection.shared.subscribe_punts();
    let mut framer = Framer::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            ready = connection.stream.readable() => {
                ready?;
                match connection.stream.try_read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(length) => framer.push(buffer.get(..length).unwrap_or_default()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error.into()),
                }
                while let Some(frame) = framer.next_frame()? {
                    connection.answer(&frame).await?;
                }
            }
            event = events.recv() => match event {
                Ok(event) if connection.session.is_some() => {
                    connection.send(&FromHelper::Event(event), None).await?;
                }
                Ok(_) => {}
                Err(RecvError::Lagged(lost)) => connection.metrics.events_lost(lost),
                Err(RecvError::Closed) => return Ok(()),
            },
            punt = punts.recv() => match punt {
                Ok(punt) if connection.session.is_some() => {
                    connection.send(&FromHelper::Event(punt), None).await?;
                }
                Ok(_) => {}
                Err(RecvError::Lagged(lost)) => connection.metrics.punts_lost(lost),
                Err(RecvError::Closed) => return Ok(()),
            },
        }
    }
}

struct Connection {
    stream: UnixStream,
    shared: Shared,
    metrics: Metrics,
    /// Of the daemon's hello.
    session: Option<u64>,
    /// Of changes of the switch.
    series: Series,
}

impl Connection {
    async fn answer(&mut self, frame: &[u8]) -> Result<(), ConnectionError> {
        let ToHelper { number, request } = match ToHelper::decode(frame) {
            Ok(request) => request,
            Err(error) => {
                let refused = Refused { reason: Reason::Malformed, detail: error.to_string() };
                self.reply(0, Err(refused), None).await?;
                return Err(error.into());
            }
        };
        if let Request::Hello { version, .. } = request
            && version != VERSION
        {
            let detail = format!("version {version} was offered, {VERSION} is spoken");
            self.reply(number, Err(Refused { reason: Reason::Version, detail }), None).await?;
            return Err(ConnectionError::Version(version));
        }
        let turn = match request {
            Request::SetPolicy(_) => Some(self.shared.turn(Kind::Policy).await),
            Request::Change { more: false, .. } => Some(self.shared.turn(Kind::Switch).await),
            Request::Hello { .. }
            | Request::Change { more: true, .. }
            | Request::Counters
            | Request::SwitchCounters
            | Request::PacketOuts(_)
            | Request::PacketSocket { .. } => None,
        };
        let (result, descriptor) = match self.act(request) {
            Ok((reply, descriptor)) => (Ok(reply), descriptor),
            Err(refused) => (Err(refused), None),
        };
        // What was refused after the store would have to be waited for as well.
        if let Some(turn) = turn {
            turn.settle();
        }
        self.reply(number, result, descriptor).await
    }

    fn act(&mut self, request: Request) -> Result<(Reply, Option<OwnedFd>), Refused> {
        let order = || Refused { reason: Reason::Order, detail: "no hello yet".into() };
        match (request, self.session) {
            (Request::Hello { session, .. }, _) => {
                self.session = Some(session);
                return Ok((Reply::Welcome(self.shared.welcome()), None));
            }
            (_, None) => return Err(order()),
            (Request::SetPolicy(policy), _) => self.shared.set_policy(&policy)?,
            (Request::Counters, _) => {
                let counters = self.shared.counters();
                let failed = |error| Refused { reason: Reason::Kernel, detail: format!("{error}") };
                return Ok((Reply::Counters(counters.map_err(failed)?), None));
            }
            (Request::Change { changes, more }, Some(session)) => {
                self.shared.change(&mut self.series, changes, more, session)?;
            }
            (Request::SwitchCounters, _) => {
                return Ok((Reply::SwitchCounters(self.shared.switch_counters()?), None));
            }
            (Request::PacketOuts(packets), _) => {
                let outcomes = packets.iter().map(|packet| self.packet_out(packet));
                return Ok((Reply::PacketOuts(outcomes.collect()), None));
            }
            (Request::PacketSocket { port }, _) => {
                return Ok((Reply::Socket, Some(self.shared.packet_socket(port)?)));
            }
        }
        Ok((Reply::Done, None))
    }

    /// Why a frame is not sent.
    fn packet_out(&self, packet: &PacketOut) -> Option<Reason> {
        let refused = self.shared.packet_out(packet).err()?;
        self.metrics.refused(refused.reason);
        tracing::warn!(reason = refused.reason.as_str(), detail = refused.detail, "a frame is not sent");
        Some(refused.reason)
    }

    async fn reply(
        &self,
        number: u32,
        result: Result<Reply, Refused>,
        descriptor: Option<OwnedFd>,
    ) -> Result<(), ConnectionError> {
        match &result {
            Ok(_) => self.metrics.done(),
            Err(refused) => {
                self.metrics.refused(refused.reason);
                tracing::warn!(reason = refused.reason.as_str(), detail = refused.detail, "refused");
            }
        }
        self.send(&FromHelper::Reply { number, result }, descriptor).await
    }

    async fn send(&self, frame: &FromHelper, descriptor: Option<OwnedFd>) -> Result<(), ConnectionError> {
        let bytes = frame.encode();
        let written = self.write(&bytes, descriptor.as_ref());
        timeout(WRITE_TIMEOUT, written).await.map_err(|_elapsed| ConnectionError::Stuck)??;
        Ok(())
    }

    /// The descriptor goes beside the first bytes.
    async fn write(&self, mut bytes: &[u8], mut descriptor: Option<&OwnedFd>) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.writable().await?;
            let written = self.stream.try_io(Interest::WRITABLE, || {
                send_with(self.stream.as_fd(), bytes, descriptor).map_err(io::Error::from)
            });
            match written {
                Ok(length) => {
                    descriptor = None;
                    bytes = bytes.get(length..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn send_with(
    socket: std::os::fd::BorrowedFd<'_>,
    bytes: &[u8],
    descriptor: Option<&OwnedFd>,
) -> rustix::io::Result<usize> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.map(|descriptor| [descriptor.as_fd()]);
    if let Some(descriptors) = &descriptors {
        // There is room for one.
        let _fits = ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)
}
