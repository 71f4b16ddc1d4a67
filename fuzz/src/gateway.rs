//! The decoders of `edge-gateway`, of its programs in the kernel, and of what all daemons share. Included by `tests/tests/fuzz_regressions.rs` as well.

use std::path::Path;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use caregate_ebpf_common::Kind;
use caregate_ebpf_common::frame as sensor_port;
use caregate_ebpf_common::map::PacketIn;
use caregate_ebpf_common::switch::map::Punt;
use caregate_ebpf_common::switch::parse::{self as switch_port, Parsed};
use caregate_host::identity::SpiffeId;
use caregate_protocol::datapath::switch::{Change, FLOWS_MAX, FlowAction, FlowEntry};
use caregate_protocol::datapath::{self, Mode, Port, Role, Welcome};
use caregate_protocol::openflow::{Framer, Hello, Message};
use caregate_protocol::policy::Mac;
use edge_gateway::config::ConfigFile;
use edge_gateway::hints::{Device, Quarantined};
use edge_gateway::inventory::oui::{Vendor, Vendors};
use edge_gateway::inventory::{frame as inventory, table::Inventory};
use edge_gateway::keys::erasures::Ordered;
use edge_gateway::keys::given::Given;
use edge_gateway::mqtt::access::Access;
use edge_gateway::mqtt::hub::Hub;
use edge_gateway::mqtt::{filter, websocket, wire};
use edge_gateway::openflow::agent::{Action, Agent, FLUSH_MAX, HelperRefused, Readings, Settings};
use edge_gateway::openflow::ports::Guard;
use edge_gateway::openflow::slow::Frame;
use edge_gateway::openflow::store::{self, Kept};
use edge_gateway::pipeline::chains::State;
use edge_gateway::spool::frame as spool;
use edge_gateway::watch::engine::Kept as Watched;
use ledger_client::verify::Enrolment;
use tokio::io::AsyncReadExt as _;

use super::Target;

/// Each target by its name.
pub const TARGETS: &[Target] = &[
    ("mqtt", mqtt),
    ("mqtt_packet", mqtt_packet),
    ("mqtt_websocket", mqtt_websocket),
    ("mqtt_sessions", mqtt_sessions),
    ("spool_frame", spool_frame),
    ("checkpoint", checkpoint),
    ("config", config),
    ("enrolment", enrolment),
    ("inventory_frame", inventory_frame),
    ("oui", oui),
    ("openflow_switch", openflow_switch),
    ("flow_store", flow_store),
    ("key_rows", key_rows),
    ("mqtt_filter", mqtt_filter),
    ("frame", frame),
    ("spiffe", spiffe),
];

/// The default of the door's packet limit.
const PACKET_BYTES_MAX: usize = 256 * 1024;
/// Of the spool file whose frames are read.
const SERIAL: u64 = 7;

/// Packets of one connection, whose version is that of its CONNECT.
fn packets<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let (mut buffer, mut version) = (BytesMut::new(), wire::Version::V4);
    let mut packets = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let before = buffer.len();
            match wire::decode(&mut buffer, version, PACKET_BYTES_MAX) {
                Ok(Some(packet)) => {
                    if let wire::Packet::Connect(connect) = &packet {
                        version = connect.version;
                    }
                    packets.push(format!("{packet:?}"));
                }
                Ok(None) => {
                    assert_eq!(buffer.len(), before);
                    break;
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty() && !error.label().is_empty());
                    assert!(error.reason().is_failure());
                    return packets;
                }
            }
            assert!(buffer.len() < before);
        }
    }
    packets
}

/// What a client sends, whole and in small pieces.
pub fn mqtt(data: &[u8]) {
    assert_eq!(packets(data.chunks(7)), packets([data]));
}

/// Packets of MQTT 5.0: what is read is written and read the same.
pub fn mqtt_packet(data: &[u8]) {
    let mut buffer = BytesMut::from(data);
    while let Ok(Some(packet)) = wire::decode(&mut buffer, wire::Version::V5, PACKET_BYTES_MAX) {
        let version =
            if let wire::Packet::Connect(connect) = &packet { connect.version } else { wire::Version::V5 };
        let mut again = BytesMut::new();
        wire::encode(&packet, version, &mut again);
        assert_eq!(again.len(), wire::encoded_len(&packet, version));
        assert_eq!(wire::decode(&mut again, version, PACKET_BYTES_MAX), Ok(Some(packet)));
        assert!(again.is_empty());
    }
}

/// What a client sends over WebSocket: its handshake, or frames after it.
pub fn mqtt_websocket(data: &[u8]) {
    let stream = tokio::io::join(data, tokio::io::sink());
    let read = async {
        let accepted = if data.starts_with(b"GET ") {
            websocket::accept(stream, PACKET_BYTES_MAX).await.ok()
        } else {
            Some(websocket::resume(stream, PACKET_BYTES_MAX).await)
        };
        let mut bytes = Vec::new();
        if let Some(mut stream) = accepted {
            // An error is what most inputs end with; what came before it counts.
            drop(stream.read_to_end(&mut bytes).await);
        }
        bytes
    };
    // Neither end ever makes it wait.
    let mut context = Context::from_waker(Waker::noop());
    let Poll::Ready(bytes) = std::pin::pin!(read).poll(&mut context) else {
        panic!("it waits for what is there")
    };
    assert!(bytes.len() <= data.len());
    mqtt(&bytes);
}

/// What is kept of MQTT sessions, behind its seal. What is written back reads the same.
pub fn mqtt_sessions(data: &[u8]) {
    let access = Access::new([]).unwrap_or_else(|_| unreachable!("nobody may read anything"));
    let (now, unix_s) = (std::time::Duration::from_secs(9), 1_790_000_000);
    let mut hub = Hub::new(64);
    match hub.restore(data, now, unix_s, &access) {
        Ok(_) => {
            let bytes = hub.snapshot(now).encode(unix_s, true);
            let mut again = Hub::new(64);
            let read = again.restore(&bytes, now, unix_s, &access);
            assert!(read.is_ok(), "{read:?}");
            assert_eq!(again.sizes(), hub.sizes());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A spool file: its header, then frames, then what the log's own frames carry.
pub fn spool_frame(data: &[u8]) {
    if let Err(error) = spool::Header::decode(data) {
        assert!(!error.to_string().is_empty());
    }
    let mut left = data;
    while let Ok(frame) = spool::decode_record(left, SERIAL) {
        assert!(frame.frame_len() <= left.len());
        left = &left[frame.frame_len()..];
        payloads(frame.payload);
    }
    payloads(data);
}

fn payloads(data: &[u8]) {
    if let Ok(ranges) = spool::decode_acks(data) {
        assert!(ranges.iter().all(|range| range.start <= range.end));
    }
    if let Ok(files) = spool::decode_manifest(data) {
        assert!(files.iter().all(|file| file.positions.start <= file.positions.end));
    }
}

/// The pipeline's state at the head of a spool file. What is written back reads the same.
pub fn checkpoint(data: &[u8]) {
    match State::decode(data) {
        Ok(state) => {
            let bytes = state.encode();
            let again = State::decode(&bytes).map(|state| state.encode());
            assert!(matches!(again, Ok(again) if again == bytes));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A configuration file; the other daemons' are read by the same code.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = caregate_host::config::parse::<ConfigFile>(Path::new("x.toml"), text) {
        assert!(!error.to_string().is_empty());
    }
}

/// An enrolment: what is read is written and read back the same, with the same devices under the same commitments, or each time refused.
pub fn enrolment(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read = |text: &str| caregate_host::config::parse::<Enrolment>(Path::new("x.toml"), text);
    match read(text) {
        Ok(enrolment) => {
            let again = toml::to_string(&enrolment).ok().and_then(|text| read(&text).ok());
            assert_eq!(again.as_ref(), Some(&enrolment));
            assert_eq!(again.map(|again| again.pins()), Some(enrolment.pins()));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A frame from a sensor port, as the device inventory reads it.
pub fn inventory_frame(data: &[u8]) {
    match inventory::read(data) {
        Ok(sighting) => {
            assert!(sighting.mac.is_unicast());
            for said in [&sighting.name, &sighting.about].into_iter().flatten() {
                assert!((1..=96).contains(&said.len()) && !said.contains(char::is_control));
            }
            let mut table = Inventory::default();
            table.note(1, &sighting, 0);
            assert_eq!(table.len(), 1);
        }
        Err(fault) => assert!(!fault.to_string().is_empty()),
    }
}

/// A registry of vendors.
pub fn oui(data: &[u8]) {
    match Vendors::read(data) {
        Ok(vendors) => {
            assert!(!vendors.is_empty());
            if let Some(mac) = data.first_chunk::<6>()
                && let Vendor::Named(name) = vendors.of(Mac(*mac))
            {
                assert!(!name.is_empty());
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The uplink of the switch below; the ports before it are sensors', the one after it is the switch's.
const UPLINK: u32 = 3;

fn ports() -> Welcome {
    let port =
        |number, role, mode| Port { number, name: format!("p{number}"), mac: [2; 6], role, mode, up: true };
    let ports = vec![
        port(1, Role::Sensor, Mode::Native),
        port(2, Role::Sensor, Mode::Native),
        port(UPLINK, Role::Uplink, Mode::Egress),
        port(UPLINK + 1, Role::Switch, Mode::Native),
    ];
    Welcome { version: datapath::VERSION, queues: datapath::QUEUES, ports }
}

/// No flow lets a sensor's frame elsewhere than to the gateway, and none sends to a sensor.
fn narrows(flow: &FlowEntry) -> bool {
    let port = flow.value.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    let excludes_sensors = flow.mask[..4] == [0xff; 4] && port >= UPLINK;
    let mut actions = flow.instructions.apply.iter().chain(&flow.instructions.write);
    flow.table > 0
        && actions.all(|action| match action {
            FlowAction::Output { port: datapath::PORT_LOCAL, .. } => true,
            FlowAction::Output { port, .. } => excludes_sensors && *port >= UPLINK,
            FlowAction::SetField { .. }
            | FlowAction::Group(_)
            | FlowAction::SetQueue(_)
            | FlowAction::PushVlan(_)
            | FlowAction::PopVlan
            | FlowAction::PushMpls(_)
            | FlowAction::PopMpls(_)
            | FlowAction::CopyTtlOut
            | FlowAction::CopyTtlIn
            | FlowAction::SetMplsTtl(_)
            | FlowAction::DecMplsTtl
            | FlowAction::SetNwTtl(_)
            | FlowAction::DecNwTtl => excludes_sensors,
        })
}

fn assert_narrows(change: &Change) {
    assert!(!matches!(change, Change::PutFlow(flow) if !narrows(flow)), "{change:?}");
}

/// Does what the switch says; its helper refuses now and then.
fn obey(agent: &mut Agent, mut actions: Vec<Action>, turn: usize) {
    let now = std::time::Duration::from_secs(turn as u64);
    while let Some(action) = actions.pop() {
        let result = if turn % 5 == 4 { Err(HelperRefused) } else { Ok(()) };
        actions.extend(match action {
            Action::Prepare { changes, .. } => {
                changes.iter().for_each(assert_narrows);
                Vec::new()
            }
            Action::Install { kept, changes, .. } => {
                changes.iter().for_each(assert_narrows);
                assert!(agent.tables().flows().len() <= FLOWS_MAX);
                if let Some(kept) = kept {
                    assert_eq!(store::decode(&store::encode(&kept)), Some(kept));
                }
                agent.handle_installed(result, now)
            }
            Action::PacketOut { ticket, packet } => {
                assert!(packet.port >= UPLINK);
                agent.handle_packet_out(ticket, result, now)
            }
            Action::ReadCounters => agent.handle_counters(result.map(|()| Readings::default()), now),
            Action::Send(bytes) => {
                Message::decode(&bytes).expect("what is sent can be read");
                Vec::new()
            }
            Action::Keep(_) | Action::Established | Action::Refused(_) | Action::Close(_) => Vec::new(),
        });
    }
}

/// What a controller sends after its hello.
pub fn openflow_switch(data: &[u8]) {
    let settings = Settings { datapath_id: 1, name: "gateway".to_owned(), version: "fuzz", guard: Guard::On };
    let (mut agent, actions, _) = Agent::new(settings, &ports(), &Kept::default(), std::time::Duration::ZERO);
    obey(&mut agent, actions, 0);
    let greeting = agent.handle_connected(std::time::Duration::ZERO);
    obey(&mut agent, greeting, 0);
    let hello = Message::Hello(Hello::ours()).encode(1).expect("a hello is short");
    let mut framer = Framer::new();
    assert_eq!(framer.accept(&hello), hello.len());
    let (mut left, mut turn) = (data, 0);
    loop {
        while let Ok(Some(frame)) = framer.next_frame() {
            turn += 1;
            let now = std::time::Duration::from_secs(turn as u64);
            let mut actions = agent.handle_frame(frame, now);
            actions.extend(agent.handle_timeout(now));
            if turn % 3 == 0 {
                actions.extend(agent.handle_timeout(now + FLUSH_MAX));
            }
            if turn % 7 == 0 {
                let total_len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
                let in_port = 1 + total_len % 4;
                actions.extend(agent.handle_punt(Frame { total_len, ..Frame::new(in_port, frame) }, now));
            }
            obey(&mut agent, actions, turn);
            assert!(!agent.is_waiting(), "the helper has answered");
        }
        let taken = framer.accept(left);
        left = &left[taken..];
        if taken == 0 {
            return;
        }
    }
}

/// Flows, groups and meters on disk.
pub fn flow_store(data: &[u8]) {
    if let Some(kept) = store::decode(data) {
        assert_eq!(store::decode(&store::encode(&kept)), Some(kept));
    }
}

/// Rows of the key store and of what can be rebuilt: what is read is written and read the same.
pub fn key_rows(data: &[u8]) {
    if let Some(ordered) = Ordered::decode(data) {
        assert_eq!(ordered.encode(), data);
    }
    if let Some(given) = Given::decode(data) {
        assert_eq!(given.encode(), data);
    }
    json::<Watched>(data);
    json::<Quarantined>(data);
    json::<Device>(data);
}

/// What is read is written and read again, numbers as near as JSON has them.
fn json<T: serde::Serialize + serde::de::DeserializeOwned>(data: &[u8]) {
    if let Ok(row) = serde_json::from_slice::<T>(data) {
        let bytes = serde_json::to_vec(&row).unwrap_or_else(|error| panic!("{error}"));
        assert!(serde_json::from_slice::<T>(&bytes).is_ok());
    }
}

/// Two topic filters and a topic, a line each. What the one covers of the other it also matches.
pub fn mqtt_filter(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(3, '\n');
    let (Some(outer), Some(inner), Some(topic)) = (lines.next(), lines.next(), lines.next()) else { return };
    for path in [outer, inner].into_iter().filter(|path| filter::is_valid(path)) {
        match filter::shared(path) {
            Some((name, path)) => assert!(!name.is_empty() && !name.contains(['+', '#']) && !path.is_empty()),
            None => assert!(!filter::is_shared(path) && filter::covers(path, path)),
        }
    }
    let is_plain = |path: &str| filter::is_valid(path) && !filter::is_shared(path);
    if is_plain(outer) && is_plain(inner) && !topic.contains(['+', '#', '\0']) {
        let is_covered = filter::covers(outer, inner) && filter::matches(inner, topic);
        assert!(!is_covered || filter::matches(outer, topic), "{outer:?} {inner:?} {topic:?}");
    }
}

/// A frame, as the programs in the kernel and the switch's slow path read it; and entries of the rings between kernel and helper.
pub fn frame(data: &[u8]) {
    let headers = sensor_port::parse(data);
    assert_eq!(sensor_port::classify(data), headers.kind);
    assert!(headers.network_at <= data.len());
    let mut parsed = Parsed::default();
    switch_port::parse(data, &mut parsed);
    if headers.kind != Kind::ShortEthernet {
        assert_eq!((parsed.key[2] >> 16, parsed.key[3] >> 16), (headers.destination, headers.source));
    }
    // Nothing stays of the frame before, which here is this one's end.
    let mut again = Parsed::default();
    switch_port::parse(data.get(data.len() / 2..).unwrap_or_default(), &mut again);
    switch_port::parse(data, &mut again);
    assert_eq!((again.key, again.layers), (parsed.key, parsed.layers));
    assert!(PacketIn::read(data).is_none_or(|(_, _, _, frame)| frame.len() < data.len()));
    assert!(Punt::read(data).is_none_or(|punted| punted.frame.len() < data.len()));
}

/// Whose a certificate is, and an id as configurations and the ledger have it.
pub fn spiffe(data: &[u8]) {
    let named = SpiffeId::from_certificate(&data.into());
    let written = std::str::from_utf8(data).ok().map(str::parse::<SpiffeId>);
    for (id, text) in [(Some(named), None), (written, std::str::from_utf8(data).ok())] {
        match id {
            Some(Ok(id)) => {
                assert!(text.is_none_or(|text| text == id.to_string()), "one spelling");
                assert_eq!(id.to_string().parse().ok().as_ref(), Some(&id));
            }
            Some(Err(error)) => assert!(!error.to_string().is_empty()),
            None => {}
        }
    }
}
