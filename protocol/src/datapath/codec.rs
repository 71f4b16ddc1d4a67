//! The frames' bytes.

use std::convert::Infallible;
use std::net::IpAddr;

use minicbor::Encoder;

use super::{
    Counted, Counters, DETAIL_BYTES_MAX, DEVICES_MAX, Device, DeviceCounters, Event, FLOOR_MAX,
    FRAME_BYTES_MAX, Floor, FrameError, FromHelper, LinkCounters, Mode, NAME_BYTES_MAX, OPEN_PORTS_MAX,
    OpenPort, PACKET_BYTES_MAX, PACKET_OUTS_MAX, PORTS_MAX, PacketOut, Policy, Port, PortCounters, Punt,
    QUEUES, Reason, Refused, Reply, Request, Role, ToHelper, Traffic, WORD_BYTES_MAX, WORDS_MAX, Welcome,
    switch,
};
use crate::cbor::{CborError, Cursor};

type Out<'a> = Encoder<&'a mut Vec<u8>>;
type Written = Result<(), minicbor::encode::Error<Infallible>>;

const HELLO: u8 = 1;
const SET_POLICY: u8 = 2;
const COUNTERS: u8 = 4;
const PACKET_OUTS: u8 = 5;
const PACKET_SOCKET: u8 = 6;
const CHANGE: u8 = 7;
const SWITCH_COUNTERS: u8 = 8;
const DONE: u8 = 32;
const WELCOME: u8 = 33;
const COUNTED: u8 = 34;
const SOCKET: u8 = 35;
const REFUSED: u8 = 36;
const SWITCH_COUNTED: u8 = 37;
const PACKETS_OUT: u8 = 38;
/// In the answer to frames: one that is sent.
const SENT: u8 = 0;
const PACKET_IN: u8 = 64;
const PORT_STATUS: u8 = 65;
const PUNT: u8 = 66;

/// The length that a frame's first four bytes announce.
///
/// # Errors
/// [`FrameError::Length`].
pub fn frame_length(head: [u8; 4]) -> Result<usize, FrameError> {
    let length = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if (1..=FRAME_BYTES_MAX).contains(&length) { Ok(length) } else { Err(FrameError::Length(length)) }
}

/// Cuts a byte stream into what follows each frame's length. Holds at most one frame and what was pushed with its end.
#[derive(Debug, Default)]
pub struct Framer {
    bytes: Vec<u8>,
}

impl Framer {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes more of the stream. Whoever calls takes all whole frames before it pushes again.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, without its length.
    ///
    /// # Errors
    /// [`FrameError::Length`]; where the next frame begins is not known then.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let Some(head) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let end = 4 + frame_length(*head)?;
        if self.bytes.len() < end {
            return Ok(None);
        }
        let rest = self.bytes.split_off(end);
        let mut frame = std::mem::replace(&mut self.bytes, rest);
        frame.drain(..4);
        Ok(Some(frame))
    }
}

fn framed(put: impl FnOnce(&mut Out<'_>) -> Written) -> Vec<u8> {
    let mut out = vec![0; 4];
    // Writing to memory can't fail.
    drop(put(&mut Encoder::new(&mut out)));
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

/// At the frame's fields: their number, its type and the request's number.
fn begin(body: &[u8]) -> Result<(Cursor<'_>, usize, u8, u32), FrameError> {
    if body.is_empty() || body.len() > FRAME_BYTES_MAX {
        return Err(FrameError::Length(body.len()));
    }
    let mut cursor = Cursor::new(body);
    let elements = cursor.array("frame", 8)?;
    let kind = cursor.u8("type")?;
    let number = cursor.u32("number")?;
    Ok((cursor, elements, kind, number))
}

fn put_changes(out: &mut Out<'_>, number: u32, changes: &[switch::Change], more: bool) -> Written {
    out.array(4)?.u8(CHANGE)?.u32(number)?.bool(more)?.array(changes.len() as u64)?;
    changes.iter().try_for_each(|change| switch::put_change(out, change))
}

impl ToHelper {
    /// The frame of a [`Request::Change`], with its length in front, of changes that stay whoever's they are.
    #[must_use]
    pub fn encode_changes(number: u32, changes: &[switch::Change], more: bool) -> Vec<u8> {
        framed(|out| put_changes(out, number, changes, more))
    }

    /// The frame with its length in front.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        framed(|out| match &self.request {
            Request::Hello { version, session } => {
                out.array(4)?.u8(HELLO)?.u32(self.number)?.u16(*version)?.u64(*session)?;
                Ok(())
            }
            Request::SetPolicy(policy) => {
                out.array(5)?.u8(SET_POLICY)?.u32(self.number)?;
                put_policy(out, policy)
            }
            Request::Change { changes, more } => put_changes(out, self.number, changes, *more),
            Request::SwitchCounters => {
                out.array(2)?.u8(SWITCH_COUNTERS)?.u32(self.number)?;
                Ok(())
            }
            Request::Counters => {
                out.array(2)?.u8(COUNTERS)?.u32(self.number)?;
                Ok(())
            }
            Request::PacketOuts(packets) => {
                out.array(3)?.u8(PACKET_OUTS)?.u32(self.number)?.array(packets.len() as u64)?;
                for PacketOut { port, queue, frame } in packets {
                    out.array(3)?.u32(*port)?.u32(*queue)?.bytes(frame)?;
                }
                Ok(())
            }
            Request::PacketSocket { port } => {
                out.array(3)?.u8(PACKET_SOCKET)?.u32(self.number)?.u32(*port)?;
                Ok(())
            }
        })
    }

    /// Reads what follows a frame's length.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn decode(body: &[u8]) -> Result<Self, FrameError> {
        let (mut c, elements, kind, number) = begin(body)?;
        let request = match (kind, elements) {
            (HELLO, 4) => Request::Hello { version: u16_of(&mut c, "version")?, session: c.u64("session")? },
            (SET_POLICY, 5) => Request::SetPolicy(policy(&mut c)?),
            (CHANGE, 4) => {
                let more = c.bool("more")?;
                let mut shared = switch::SharedInstructions::default();
                let change = |c: &mut Cursor<'_>| switch::change(c, &mut shared);
                let changes = list(&mut c, "changes", switch::CHANGES_MAX, change)?;
                Request::Change { changes, more }
            }
            (SWITCH_COUNTERS, 2) => Request::SwitchCounters,
            (COUNTERS, 2) => Request::Counters,
            (PACKET_OUTS, 3) => Request::PacketOuts(list(&mut c, "packets", PACKET_OUTS_MAX, packet_out)?),
            (PACKET_SOCKET, 3) => Request::PacketSocket { port: c.u32("port")? },
            _ => return Err(FrameError::Type(kind)),
        };
        c.finish()?;
        Ok(Self { number, request })
    }
}

impl FromHelper {
    /// The frame with its length in front.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        framed(|out| match self {
            Self::Reply { number, result } => put_reply(out, *number, result),
            Self::Event(Event::PacketIn { uplink, rule, total_len, frame }) => {
                out.array(6)?.u8(PACKET_IN)?.u32(0)?;
                out.u32(*uplink)?.u64(*rule)?.u16(*total_len)?.bytes(frame)?;
                Ok(())
            }
            Self::Event(Event::Punt(Punt { in_port, before, total_len, remarks, is_handed, frame })) => {
                out.array(8)?.u8(PUNT)?.u32(0)?;
                out.u32(*in_port)?.u8(*before)?.u32(*total_len)?;
                out.bytes(remarks)?.bool(*is_handed)?.bytes(frame)?;
                Ok(())
            }
            Self::Event(Event::PortStatus(port)) => {
                out.array(3)?.u8(PORT_STATUS)?.u32(0)?;
                put_port(out, port)
            }
        })
    }

    /// Reads what follows a frame's length.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn decode(body: &[u8]) -> Result<Self, FrameError> {
        let (mut c, elements, kind, number) = begin(body)?;
        let reply = |result| Self::Reply { number, result };
        let frame = match (kind, elements) {
            (DONE, 2) => reply(Ok(Reply::Done)),
            (WELCOME, 5) => reply(Ok(Reply::Welcome(Welcome {
                version: u16_of(&mut c, "version")?,
                queues: c.u32("queues")?,
                ports: list(&mut c, "ports", PORTS_MAX, port)?,
            }))),
            (COUNTED, 4) => reply(Ok(Reply::Counters(Counters {
                ports: c.list("ports", PORTS_MAX, port_counters)?,
                devices: list(&mut c, "devices", DEVICES_MAX, device_counters)?,
            }))),
            (SWITCH_COUNTED, 6) => reply(Ok(Reply::SwitchCounters(switch::counters(&mut c)?))),
            (PACKETS_OUT, 3) => {
                reply(Ok(Reply::PacketOuts(list(&mut c, "packets", PACKET_OUTS_MAX, outcome)?)))
            }
            (PUNT, 8) => Self::Event(Event::Punt(Punt {
                in_port: c.u32("in_port")?,
                before: c.u8("before")?,
                total_len: c.u32("total_len")?,
                remarks: c.fixed("remarks")?,
                is_handed: c.bool("is_handed")?,
                frame: c.bytes("frame", PACKET_BYTES_MAX)?.to_vec(),
            })),
            (SOCKET, 2) => reply(Ok(Reply::Socket)),
            (REFUSED, 4) => {
                let reason = reason(c.u8("reason")?)?;
                reply(Err(Refused { reason, detail: c.text("detail", DETAIL_BYTES_MAX)?.to_owned() }))
            }
            (PACKET_IN, 6) => Self::Event(Event::PacketIn {
                uplink: c.u32("uplink")?,
                rule: c.u64("rule")?,
                total_len: u16_of(&mut c, "total_len")?,
                frame: c.bytes("frame", PACKET_BYTES_MAX)?.to_vec(),
            }),
            (PORT_STATUS, 3) => Self::Event(Event::PortStatus(port(&mut c)?)),
            _ => return Err(FrameError::Type(kind)),
        };
        c.finish()?;
        if matches!(frame, Self::Event(_)) && number != 0 {
            return Err(FrameError::Value { field: "number", value: number.into() });
        }
        Ok(frame)
    }
}

fn u16_of(c: &mut Cursor<'_>, field: &'static str) -> Result<u16, CborError> {
    c.item(field, |decoder| decoder.u16())
}

fn list<T>(
    c: &mut Cursor<'_>,
    field: &'static str,
    max: usize,
    mut entry: impl FnMut(&mut Cursor<'_>) -> Result<T, FrameError>,
) -> Result<Vec<T>, FrameError> {
    let len = c.array(field, max)?;
    // No memory is taken for entries that are announced and not there.
    let mut list = Vec::new();
    for _ in 0..len {
        list.push(entry(c)?);
    }
    Ok(list)
}

fn known<T: Copy>(
    all: &[T],
    field: &'static str,
    value: u64,
    number: impl Fn(T) -> u8,
) -> Result<T, FrameError> {
    let found = all.iter().copied().find(|one| u64::from(number(*one)) == value);
    found.ok_or(FrameError::Value { field, value })
}

fn put_policy(out: &mut Out<'_>, policy: &Policy) -> Written {
    out.array(policy.devices.len() as u64)?;
    for device in &policy.devices {
        out.array(2)?.u16(device.index)?.bytes(&device.mac)?;
    }
    out.array(policy.ports.len() as u64)?;
    for open in &policy.ports {
        out.array(2)?.u8(open.protocol)?.u16(open.port)?;
    }
    out.array(policy.floor.len() as u64)?;
    for floor in &policy.floor {
        out.array(3)?.u8(floor.protocol)?;
        match floor.address {
            IpAddr::V4(address) => out.bytes(&address.octets())?,
            IpAddr::V6(address) => out.bytes(&address.octets())?,
        };
        out.u16(floor.port)?;
    }
    Ok(())
}

fn policy(c: &mut Cursor<'_>) -> Result<Policy, FrameError> {
    let devices = list(c, "devices", DEVICES_MAX, |c| {
        c.array_of("device", 2)?;
        let index = u16_of(c, "index")?;
        if usize::from(index) >= DEVICES_MAX {
            return Err(FrameError::Value { field: "index", value: index.into() });
        }
        Ok(Device { index, mac: c.fixed("mac")? })
    })?;
    let ports = list(c, "open ports", OPEN_PORTS_MAX, |c| {
        c.array_of("open port", 2)?;
        Ok(OpenPort { protocol: protocol(c)?, port: u16_of(c, "port")? })
    })?;
    let floor = list(c, "floor", FLOOR_MAX, |c| {
        c.array_of("floor", 3)?;
        let protocol = protocol(c)?;
        let address = c.bytes("address", 16)?;
        let (v4, v6) = (<[u8; 4]>::try_from(address).ok(), <[u8; 16]>::try_from(address).ok());
        let address = v4.map(IpAddr::from).or_else(|| v6.map(IpAddr::from));
        let address = address.ok_or(FrameError::Value { field: "address", value: 0 })?;
        Ok(Floor { protocol, address, port: u16_of(c, "port")? })
    })?;
    Ok(Policy { devices, ports, floor })
}

/// TCP or UDP.
fn protocol(c: &mut Cursor<'_>) -> Result<u8, FrameError> {
    match c.u8("protocol")? {
        protocol @ (6 | 17) => Ok(protocol),
        other => Err(FrameError::Value { field: "protocol", value: other.into() }),
    }
}

fn packet_out(c: &mut Cursor<'_>) -> Result<PacketOut, FrameError> {
    c.array_of("packet", 3)?;
    let (port, queue) = (c.u32("port")?, c.u32("queue")?);
    if queue >= QUEUES {
        return Err(FrameError::Value { field: "queue", value: queue.into() });
    }
    Ok(PacketOut { port, queue, frame: c.bytes("frame", PACKET_BYTES_MAX)?.to_vec() })
}

fn reason(number: u8) -> Result<Reason, FrameError> {
    known(&Reason::ALL, "reason", number.into(), |reason| reason as u8)
}

fn outcome(c: &mut Cursor<'_>) -> Result<Option<Reason>, FrameError> {
    match c.u8("outcome")? {
        SENT => Ok(None),
        number => reason(number).map(Some),
    }
}

fn put_port(out: &mut Out<'_>, port: &Port) -> Written {
    out.array(6)?.u32(port.number)?.str(&port.name)?.bytes(&port.mac)?;
    out.u8(port.role as u8)?.u8(port.mode as u8)?.bool(port.up)?;
    Ok(())
}

fn port(c: &mut Cursor<'_>) -> Result<Port, FrameError> {
    c.array_of("port", 6)?;
    Ok(Port {
        number: c.u32("number")?,
        name: c.text("name", NAME_BYTES_MAX)?.to_owned(),
        mac: c.fixed("mac")?,
        role: known(&Role::ALL, "role", c.u8("role")?.into(), |role| role as u8)?,
        mode: known(&Mode::ALL, "mode", c.u8("mode")?.into(), |mode| mode as u8)?,
        up: c.bool("up")?,
    })
}

fn put_reply(out: &mut Out<'_>, number: u32, result: &Result<Reply, Refused>) -> Written {
    match result {
        Ok(Reply::Done) => out.array(2)?.u8(DONE)?.u32(number)?,
        Ok(Reply::Socket) => out.array(2)?.u8(SOCKET)?.u32(number)?,
        Ok(Reply::Welcome(welcome)) => {
            out.array(5)?.u8(WELCOME)?.u32(number)?.u16(welcome.version)?.u32(welcome.queues)?;
            out.array(welcome.ports.len() as u64)?;
            return welcome.ports.iter().try_for_each(|port| put_port(out, port));
        }
        Ok(Reply::Counters(counters)) => {
            out.array(4)?.u8(COUNTED)?.u32(number)?;
            return put_counters(out, counters);
        }
        Ok(Reply::SwitchCounters(counters)) => {
            out.array(6)?.u8(SWITCH_COUNTED)?.u32(number)?;
            return switch::put_counters(out, counters);
        }
        Ok(Reply::PacketOuts(outcomes)) => {
            out.array(3)?.u8(PACKETS_OUT)?.u32(number)?.array(outcomes.len() as u64)?;
            for outcome in outcomes {
                out.u8(outcome.map_or(SENT, |reason| reason as u8))?;
            }
            out
        }
        Err(refused) => {
            let end = refused.detail.floor_char_boundary(DETAIL_BYTES_MAX);
            out.array(4)?.u8(REFUSED)?.u32(number)?.u8(refused.reason as u8)?.str(&refused.detail[..end])?
        }
    };
    Ok(())
}

fn put_traffic(out: &mut Out<'_>, traffic: Traffic) -> Written {
    out.u64(traffic.frames)?.u64(traffic.bytes)?;
    Ok(())
}

fn traffic(c: &mut Cursor<'_>) -> Result<Traffic, CborError> {
    Ok(Traffic { frames: c.u64("frames")?, bytes: c.u64("bytes")? })
}

fn put_counters(out: &mut Out<'_>, counters: &Counters) -> Written {
    out.array(counters.ports.len() as u64)?;
    for port in &counters.ports {
        out.array(5)?.u32(port.number)?;
        for words in [&port.kinds, &port.verdicts] {
            out.array(words.len() as u64)?;
            for counted in words {
                out.array(3)?.str(&counted.word)?;
                put_traffic(out, counted.traffic)?;
            }
        }
        out.array(port.queues.len() as u64)?;
        port.queues.iter().try_for_each(|traffic| put_traffic(out, *traffic))?;
        out.array(port.link.iter().len() as u64)?;
        port.link.iter().try_for_each(|link| put_link(out, link))?;
    }
    out.array(counters.devices.len() as u64)?;
    for device in &counters.devices {
        out.array(5)?.u16(device.index)?;
        put_traffic(out, device.passed)?;
        put_traffic(out, device.dropped)?;
    }
    Ok(())
}

fn port_counters(c: &mut Cursor<'_>) -> Result<PortCounters, CborError> {
    fn counted(c: &mut Cursor<'_>) -> Result<Counted, CborError> {
        c.array_of("counted", 3)?;
        Ok(Counted { word: c.text("word", WORD_BYTES_MAX)?.to_owned(), traffic: traffic(c)? })
    }
    c.array_of("port", 5)?;
    Ok(PortCounters {
        number: c.u32("number")?,
        kinds: c.list("kinds", WORDS_MAX, counted)?,
        verdicts: c.list("verdicts", WORDS_MAX, counted)?,
        queues: c.list("queues", QUEUES as usize, traffic)?,
        link: c.list("link", 1, link)?.pop(),
    })
}

fn put_link(out: &mut Out<'_>, link: &LinkCounters) -> Written {
    out.array(12)?;
    put_traffic(out, link.rx)?;
    put_traffic(out, link.tx)?;
    let errors = [link.rx_errors, link.tx_errors, link.rx_dropped, link.tx_dropped];
    let causes = [link.collisions, link.rx_over_errors, link.rx_crc_errors, link.rx_frame_errors];
    errors.iter().chain(&causes).try_for_each(|number| out.u64(*number).map(drop))
}

fn link(c: &mut Cursor<'_>) -> Result<LinkCounters, CborError> {
    c.array_of("link", 12)?;
    Ok(LinkCounters {
        rx: traffic(c)?,
        tx: traffic(c)?,
        rx_errors: c.u64("rx_errors")?,
        tx_errors: c.u64("tx_errors")?,
        rx_dropped: c.u64("rx_dropped")?,
        tx_dropped: c.u64("tx_dropped")?,
        collisions: c.u64("collisions")?,
        rx_over_errors: c.u64("rx_over_errors")?,
        rx_crc_errors: c.u64("rx_crc_errors")?,
        rx_frame_errors: c.u64("rx_frame_errors")?,
    })
}

fn device_counters(c: &mut Cursor<'_>) -> Result<DeviceCounters, FrameError> {
    c.array_of("device", 5)?;
    Ok(DeviceCounters { index: u16_of(c, "index")?, passed: traffic(c)?, dropped: traffic(c)? })
}
