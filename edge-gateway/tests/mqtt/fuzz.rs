//! Protocol fuzzing against the open port: connections that begin well and then send what is almost MQTT, over TCP and WebSocket. The
//! server must answer a fresh CONNECT at once all the while and afterwards, and no task may have panicked.
//!
//! A minute. `CAREGATE_SEED` repeats a run's choices.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use edge_gateway::ingest::{Fault, Verdict};
use edge_gateway::mqtt::limits::Limits;
use edge_gateway::mqtt::wire::{
    Ack, Connect, Disconnect, Filter, Packet, PacketId, Properties, Publish, QoS, Reason, RetainHandling,
    Subscribe, Unsubscribe, Version, Will, encode,
};
use futures_util::SinkExt as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::mqtt_support::{Door, SECRET, within};

/// How long they go on.
const SECONDS: u64 = 60;
/// Connections at once: with the fresh CONNECT fewer than may be before their own.
const ATTACKERS: u64 = 8;

/// How long an attacker reads before it gives up: most connections are closed at once.
const READ_TIME: Duration = Duration::from_millis(50);

/// xorshift64*: the same seed makes the same choices.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % bound.max(1)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

fn connect(version: Version, random: &mut Random) -> Packet {
    let mut properties = Properties::default();
    if version == Version::V5 {
        properties.session_expiry = Some(u32::from(random.byte()));
        properties.receive_max = Some(1 + u16::from(random.byte()));
        properties.topic_alias_max = Some(u16::from(random.byte()));
    }
    let will = random.one_in(2).then(|| Will {
        topic: "vitals/v1/a/status".to_owned(),
        payload: Bytes::from_static(b"gone"),
        qos: QoS::ExactlyOnce,
        retain: random.one_in(2),
        properties: Properties::default(),
    });
    Packet::Connect(Box::new(Connect {
        version,
        clean_start: random.one_in(2),
        keep_alive: u16::from(random.byte()),
        client_id: format!("fuzz-{}", random.below(6)),
        will,
        username: Some("user-a".to_owned()),
        password: Some(Bytes::from_static(SECRET.as_bytes())),
        properties,
    }))
}

fn packet(version: Version, random: &mut Random) -> Packet {
    let packet_id = PacketId::new(1 + u16::from(random.byte() % 4)).unwrap();
    let topics = ["vitals/v1/a/num/x", "local/v1/a/x", "vitals/v1/b/x", "", "a/+"];
    let topic = topics[random.below(topics.len())].to_owned();
    let mut properties = Properties::default();
    if version == Version::V5 && random.one_in(3) {
        properties.topic_alias = Some(u16::from(random.byte() % 20));
        properties.message_expiry = Some(u32::from(random.byte() % 3));
    }
    let reason = Reason(if random.one_in(4) { random.byte() } else { 0 });
    let ack = Ack::new(packet_id, reason);
    match random.below(10) {
        0 => Packet::PubAck(ack),
        1 => Packet::PubRec(ack),
        2 => Packet::PubRel(ack),
        3 => Packet::PubComp(ack),
        4 => {
            let paths = ["local/v1/a/#", "vitals/v1/a/+/x", "$share/g/vitals/v1/a/#", "#", "$share/g"];
            let filter = Filter {
                path: paths[random.below(paths.len())].to_owned(),
                qos: QoS::ExactlyOnce,
                no_local: random.one_in(4),
                retain_as_published: random.one_in(2),
                retain_handling: RetainHandling::Send,
            };
            Packet::Subscribe(Subscribe {
                packet_id,
                filters: vec![filter],
                properties: Properties::default(),
            })
        }
        5 => {
            let filters = vec!["local/v1/a/#".to_owned()];
            Packet::Unsubscribe(Unsubscribe { packet_id, filters, properties: Properties::default() })
        }
        6 if random.one_in(4) => Packet::Disconnect(Disconnect::new(reason)),
        _ => {
            let qos = QoS::from_bits(random.byte() % 3).unwrap();
            let packet_id = Some(packet_id).filter(|_| qos != QoS::AtMostOnce);
            let payload = Bytes::from(vec![random.byte(); random.below(300)]);
            Packet::Publish(Publish {
                dup: false,
                qos,
                retain: random.one_in(3),
                topic,
                packet_id,
                payload,
                properties,
            })
        }
    }
}

/// A conversation, damaged here and there.
fn conversation(random: &mut Random) -> Vec<u8> {
    let version = if random.one_in(3) { Version::V4 } else { Version::V5 };
    let mut bytes = BytesMut::new();
    if !random.one_in(20) {
        encode(&connect(version, random), version, &mut bytes);
    }
    let begin = bytes.len();
    for _ in 0..random.below(40) {
        encode(&packet(version, random), version, &mut bytes);
    }
    let begin = if random.one_in(4) { 0 } else { begin };
    for _ in 0..random.below(4) {
        let at = begin + random.below(bytes.len() - begin);
        match (random.below(4), bytes.len()) {
            (_, 0) => {}
            (0, len) => bytes.truncate(at.min(len)),
            (1, len) if at < len => bytes[at] = random.byte(),
            (2, len) if at < len => bytes[at] ^= 1 << random.below(8),
            _ => {
                let noise: Vec<u8> = (0..random.below(50)).map(|_| random.byte()).collect();
                bytes.extend_from_slice(&noise);
            }
        }
        if bytes.len() <= begin {
            break;
        }
    }
    bytes.to_vec()
}

async fn over_tcp(port: u16, bytes: &[u8]) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(bytes).await?;
    let mut answers = Vec::new();
    drop(timeout(READ_TIME, stream.read_to_end(&mut answers)).await);
    Ok(())
}

/// In messages of random sizes; sometimes the frames themselves are damaged.
async fn over_websocket(port: u16, bytes: &[u8], random: &mut Random) {
    let mut request = format!("ws://127.0.0.1:{port}/mqtt").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("mqtt"));
    let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let Ok((mut socket, _)) = tokio_tungstenite::client_async(request, stream).await else { return };
    let mut left = bytes;
    while !left.is_empty() {
        let (part, rest) = left.split_at(1 + random.below(left.len()));
        if random.one_in(8) {
            drop(socket.get_mut().write_all(part).await);
        } else if socket.send(Message::Binary(Bytes::copy_from_slice(part))).await.is_err() {
            return;
        }
        left = rest;
    }
    let mut answers = Vec::new();
    drop(timeout(READ_TIME, socket.get_mut().read_to_end(&mut answers)).await);
}

/// A fresh CONNECT of another device is answered.
async fn answers(door: &Door, version: Version) {
    let mut properties = Properties::default();
    properties.session_expiry = None;
    let connect = Packet::Connect(Box::new(Connect {
        version,
        clean_start: true,
        keep_alive: 30,
        client_id: "fresh".to_owned(),
        will: None,
        username: Some("user-b".to_owned()),
        password: Some(Bytes::from_static(SECRET.as_bytes())),
        properties,
    }));
    let mut bytes = BytesMut::new();
    encode(&connect, version, &mut bytes);
    encode(&Packet::PingReq, version, &mut bytes);
    let mut stream = within("a connection", TcpStream::connect(door.address)).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut connack = [0; 2];
    let read = within("a CONNACK", stream.read_exact(&mut connack)).await;
    assert!(read.is_ok(), "{read:?}; refused {:?}; closed {:?}", door.refusals(), door.closes());
    let mut rest = vec![0; usize::from(connack[1]) + 2];
    within("the rest of it and a PINGRESP", stream.read_exact(&mut rest)).await.unwrap();
    assert_eq!((connack[0], rest[1]), (0x20, 0), "accepted");
    assert_eq!(rest[rest.len() - 2..], [0xd0, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_answers_a_fresh_connect_whatever_others_send() {
    let seed: u64 = std::env::var("CAREGATE_SEED").map_or(0x5eed, |text| text.parse().unwrap());
    let mut door = Door::open(Limits { inflight_max: 8, ..Limits::default() }).await;
    let (tcp, websocket) = (door.address.port(), door.websocket.port());
    let mut inbound = door.take_inbound();
    let pipeline = tokio::spawn(async move {
        let mut random = Random(seed | 1);
        while let Some(inbound) = inbound.recv().await {
            let verdicts =
                [Verdict::Stored, Verdict::Stored, Verdict::Quarantined(Fault::Payload), Verdict::Refused];
            // At times none: the pipeline lost it.
            if !random.one_in(16) {
                inbound.verdict.send(verdicts[random.below(verdicts.len())]).ok();
            }
        }
    });
    let until = Instant::now() + Duration::from_secs(SECONDS);
    let count = Arc::new(AtomicU64::new(0));
    let mut attackers = tokio::task::JoinSet::new();
    for number in 0..ATTACKERS {
        let mut random = Random(seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1);
        let count = Arc::clone(&count);
        attackers.spawn(async move {
            while Instant::now() < until {
                let bytes = conversation(&mut random);
                if random.one_in(3) {
                    over_websocket(websocket, &bytes, &mut random).await;
                } else {
                    over_tcp(tcp, &bytes).await.ok();
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while Instant::now() < until {
        answers(&door, Version::V4).await;
        answers(&door, Version::V5).await;
    }
    while let Some(ended) = attackers.join_next().await {
        ended.unwrap();
    }
    answers(&door, Version::V5).await;
    let closes = door.closes();
    let (count, refusals) = (count.load(Ordering::Relaxed), door.refusals());
    println!("seed {seed}: {count} connections in {SECONDS} s; refused {refusals:?}; closed {closes:?}");
    assert!(closes.iter().all(|(reason, _)| reason != "panic"), "{closes:?}");
    assert!(count > 10 * SECONDS, "attacked in earnest");
    within("all connections to end", async {
        while door.metrics.connections.get() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    pipeline.abort();
}
