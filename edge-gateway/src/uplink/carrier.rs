//! What a connection to the core is made of: the same frames on QUIC's streams, or one after the other on TLS over TCP.

use std::net::SocketAddr;
use std::sync::Arc;

use caregate_host::net;
use caregate_protocol::id::Lane;
use caregate_protocol::uplink::{Frame, Framer};
use quinn::{Connection, Endpoint, RecvStream, SendStream, UdpStats, VarInt};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::congestion::Sample;
use super::connection::{LinkError, transport};
use super::schedule::Part;

/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;
/// Frames handed over ahead of a TCP connection. Few, so that what is chosen is sent soon.
const AHEAD_FRAMES: usize = 4;

/// What went out by UDP.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Datagrams {
    pub(super) datagrams: u64,
    /// Calls of the kernel: fewer than datagrams where it segments (UDP GSO).
    pub(super) sends: u64,
}

/// Where frames of a connection go.
#[derive(Debug, Clone)]
pub(super) enum Carrier {
    /// Each lane on a stream of its own.
    Quic(Connection),
    /// To the task that writes; what is for the control stream goes the same way.
    Tcp(mpsc::Sender<Vec<u8>>),
}

impl Carrier {
    /// The core's end, for the log.
    pub(super) fn way(&self) -> &'static str {
        match self {
            Self::Quic(_) => "quic",
            Self::Tcp(_) => "tcp",
        }
    }

    pub(super) fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    /// What QUIC says of the way; TCP gathers by itself what it can't send.
    pub(super) fn sample(&self) -> Option<Sample> {
        let Self::Quic(connection) = self else { return None };
        let path = connection.stats().path;
        Some(Sample { events: path.congestion_events, rtt: path.rtt })
    }

    /// What went out by UDP since `before`, which becomes now; nothing on TCP.
    pub(super) fn sent_since(&self, before: &mut Datagrams) -> Datagrams {
        let Self::Quic(connection) = self else { return Datagrams::default() };
        let UdpStats { datagrams, ios, .. } = connection.stats().udp_tx;
        let Datagrams { datagrams: datagrams_before, sends: sends_before } =
            std::mem::replace(before, Datagrams { datagrams, sends: ios });
        Datagrams {
            datagrams: datagrams.saturating_sub(datagrams_before),
            sends: ios.saturating_sub(sends_before),
        }
    }

    /// Tells the core that we are done, or that something is wrong.
    pub(super) fn close(&self, wrong: bool) {
        if let Self::Quic(connection) = self {
            connection.close(VarInt::from_u32(u32::from(wrong)), b"");
        }
    }
}

/// The control stream, towards the core.
#[derive(Debug)]
pub(super) enum ControlOut {
    /// Stays open as long as the connection: its end would tell the core that we are done.
    Quic(SendStream),
    Tcp(mpsc::Sender<Vec<u8>>),
}

impl ControlOut {
    /// Sends what counts only now. On TCP it is left out where records wait to be written: the next one says as much.
    pub(super) async fn say(&mut self, frame: &Frame) -> Result<(), LinkError> {
        match self {
            Self::Quic(stream) => stream.write_all(&frame.encode()).await.map_err(transport),
            Self::Tcp(writer) => match writer.try_send(frame.encode()) {
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
                Err(closed @ mpsc::error::TrySendError::Closed(_)) => Err(transport(closed)),
            },
        }
    }

    /// Sends what is said once. On TCP it waits for its turn among the records.
    pub(super) async fn tell(&mut self, frame: &Frame) -> Result<(), LinkError> {
        match self {
            Self::Quic(stream) => stream.write_all(&frame.encode()).await.map_err(transport),
            Self::Tcp(writer) => writer.send(frame.encode()).await.map_err(transport),
        }
    }
}

/// One lane's records on a connection.
#[derive(Debug)]
pub(super) struct LaneOut {
    carrier: Carrier,
    lane: Lane,
    part: Part,
    stream: Option<SendStream>,
}

impl LaneOut {
    pub(super) fn new(carrier: Carrier, lane: Lane, part: Part) -> Self {
        Self { carrier, lane, part, stream: None }
    }

    /// Whether records may go up before they are durable here. By TCP, where one frame follows the other whatever lane it is of, nothing
    /// is held for what comes.
    pub(super) fn takes_early(&self) -> bool {
        matches!((&self.carrier, self.part), (Carrier::Quic(_), Part::Live(_)))
    }

    /// Sends a record. Each stream says once what it carries; on TCP, where lanes take turns, each record does.
    pub(super) async fn send(&mut self, data: &Frame) -> Result<(), LinkError> {
        let frame = Frame::Lane { lane: self.lane, backlog: self.part == Part::Backlog };
        match &self.carrier {
            Carrier::Quic(connection) => {
                let out = match &mut self.stream {
                    Some(out) => out,
                    none => {
                        let mut out = connection.open_uni().await.map_err(transport)?;
                        // On the backlog's connection the lanes share by priority.
                        out.set_priority(-i32::from(self.lane as u8)).map_err(transport)?;
                        out.write_all(&frame.encode()).await.map_err(transport)?;
                        none.insert(out)
                    }
                };
                out.write_all(&data.encode()).await.map_err(transport)
            }
            Carrier::Tcp(writer) => {
                let both = [frame.encode(), data.encode()].concat();
                writer.send(both).await.map_err(transport)
            }
        }
    }
}

/// The core's frames.
pub(super) struct ControlIn {
    stream: Incoming,
    framer: Framer,
}

enum Incoming {
    Quic(RecvStream),
    Tcp { stream: ReadHalf<TlsStream<TcpStream>>, buffer: Box<[u8]> },
}

impl ControlIn {
    /// The next frame. Cancel-safe: what was read stays in the framer.
    pub(super) async fn next(&mut self) -> Result<Frame, LinkError> {
        loop {
            if let Some(frame) = self.framer.next_frame()? {
                return Ok(frame);
            }
            match &mut self.stream {
                Incoming::Quic(stream) => {
                    match stream.read_chunk(READ_BYTES, true).await.map_err(transport)? {
                        Some(chunk) => self.framer.push(&chunk.bytes),
                        None => return Err(transport("the core closed the control stream")),
                    }
                }
                Incoming::Tcp { stream, buffer } => match stream.read(buffer).await.map_err(transport)? {
                    0 => return Err(transport("the core closed the connection")),
                    read => self.framer.push(&buffer[..read]),
                },
            }
        }
    }
}

/// A connection before its greeting.
pub(super) struct Made {
    pub(super) carrier: Carrier,
    pub(super) out: ControlOut,
    pub(super) control: ControlIn,
    /// Of TCP: what writes; its end is the connection's.
    pub(super) writer: Option<Writer>,
}

/// Connects by QUIC.
pub(super) async fn quic(endpoint: &Endpoint, core: SocketAddr) -> Result<Made, LinkError> {
    let connection = endpoint.connect(core, "core").map_err(transport)?.await.map_err(transport)?;
    let (out, incoming) = connection.open_bi().await.map_err(transport)?;
    let control = ControlIn { stream: Incoming::Quic(incoming), framer: Framer::new() };
    Ok(Made { carrier: Carrier::Quic(connection), out: ControlOut::Quic(out), control, writer: None })
}

/// Connects by TLS over TCP.
pub(super) async fn tcp(config: Arc<ClientConfig>, core: SocketAddr) -> Result<Made, LinkError> {
    let stream = TcpStream::connect(core).await.map_err(transport)?;
    net::watched(&stream).map_err(transport)?;
    let name = ServerName::try_from("core").map_err(transport)?;
    let stream = TlsConnector::from(config).connect(name, stream).await.map_err(transport)?;
    let (incoming, outgoing) = tokio::io::split(stream);
    let (handle, frames) = mpsc::channel(AHEAD_FRAMES);
    let stream = Incoming::Tcp { stream: incoming, buffer: vec![0; READ_BYTES].into() };
    Ok(Made {
        carrier: Carrier::Tcp(handle.clone()),
        out: ControlOut::Tcp(handle),
        control: ControlIn { stream, framer: Framer::new() },
        writer: Some(Writer { stream: outgoing, frames }),
    })
}

/// The one that writes to a TCP connection, so that nobody's frame is cut by another's.
pub(super) struct Writer {
    stream: WriteHalf<TlsStream<TcpStream>>,
    frames: mpsc::Receiver<Vec<u8>>,
}

impl Writer {
    /// Writes the first frame alone: the hello.
    pub(super) async fn first(mut self) -> Result<Self, LinkError> {
        if let Some(frame) = self.frames.recv().await {
            self.stream.write_all(&frame).await.map_err(transport)?;
            self.stream.flush().await.map_err(transport)?;
        }
        Ok(self)
    }

    /// Until nobody has anything to send any more.
    pub(super) async fn run(mut self) -> Result<(), LinkError> {
        while let Some(frame) = self.frames.recv().await {
            self.stream.write_all(&frame).await.map_err(transport)?;
            if self.frames.is_empty() {
                self.stream.flush().await.map_err(transport)?;
            }
        }
        self.stream.shutdown().await.map_err(transport)
    }
}
