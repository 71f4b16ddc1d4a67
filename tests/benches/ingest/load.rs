//! Clients that publish at QoS 1 and measure their PUBACKs. MQTT 3.1.1 by hand, so that on a small machine the load costs little
//! beside what is measured; the same for all contenders.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use caregate_host::clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

/// Longest wait for the last PUBACKs.
const DRAIN: Duration = Duration::from_secs(120);
/// Payload of a numeric, as the issue says.
pub(crate) const PAYLOAD_BYTES: usize = 100;

/// A client.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) password: &'static str,
    pub(crate) topic: String,
    pub(crate) body: Body,
}

/// What it publishes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Body {
    /// A heart rate of [`PAYLOAD_BYTES`]; its counter is the time of the publication in Unix microseconds.
    Numeric,
    /// The same for an event.
    Event,
    /// 250 ms of a lead at 2,000 samples a second: 1,000 bytes of samples.
    Wave,
}

/// How fast.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// So many without PUBACK at once, as fast as they come.
    Window(usize),
    /// One each so often, whatever is outstanding.
    Every(Duration),
}

/// When it ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    After(Duration),
    /// PUBLISHes of each client.
    Count(u64),
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) sent: u64,
    /// Of these, acknowledged: which, by client and counter.
    pub(crate) acked: Vec<(usize, i64)>,
    pub(crate) puback_ms: Vec<f64>,
    /// From the first PUBLISH to the last PUBACK.
    pub(crate) took: Duration,
}

/// Runs all clients on a thread of their own to the end of the plan, or of their connections. `patient`: a connection that ends
/// early is no error.
pub(crate) fn run(
    to: SocketAddr,
    clients: &[Client],
    pace: Pace,
    end: End,
    patient: bool,
) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connections = Vec::new();
        for client in clients {
            connections.push(Connection::open(to, client).await.with_context(|| client.id.clone())?);
        }
        let begun = clock::monotonic();
        let count = u32::try_from(clients.len()).unwrap_or(1).max(1);
        let mut running = JoinSet::new();
        for (nth, connection) in (0..).zip(connections) {
            // Clients that publish by the clock take turns.
            let first = match pace {
                Pace::Every(every) => begun + every * nth / count,
                Pace::Window(_) => begun,
            };
            running.spawn(async move { (nth, connection.publish(pace, first, end, patient).await) });
        }
        let mut report = Report::default();
        while let Some(ended) = running.join_next().await {
            let (nth, one) = ended?;
            let one = one?;
            report.sent += one.sent;
            report.acked.extend(one.acked.iter().map(|counter| (nth as usize, *counter)));
            report.puback_ms.extend(one.puback_ms);
        }
        report.took = begun.elapsed();
        Ok(report)
    })
}

#[derive(Debug, Default)]
struct One {
    sent: u64,
    acked: Vec<i64>,
    puback_ms: Vec<f64>,
}

struct Connection {
    stream: TcpStream,
    topic: String,
    body: Body,
    output: Vec<u8>,
    input: Vec<u8>,
    outstanding: VecDeque<(u16, Instant, i64)>,
    packet_id: u16,
    counter: i64,
    one: One,
}

impl Connection {
    async fn open(to: SocketAddr, client: &Client) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&connect(&client.id, client.password)).await?;
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).await?;
        if connack != [0x20, 2, 0, 0] {
            bail!("CONNACK {connack:?}");
        }
        Ok(Self {
            stream,
            topic: client.topic.clone(),
            body: client.body,
            output: Vec::new(),
            input: Vec::new(),
            outstanding: VecDeque::new(),
            packet_id: 0,
            counter: 0,
            one: One::default(),
        })
    }

    async fn publish(mut self, pace: Pace, first: Instant, end: End, patient: bool) -> anyhow::Result<One> {
        match timeout(DRAIN, self.until_end(pace, first, end)).await {
            Ok(Ok(())) => Ok(self.one),
            Ok(Err(_)) | Err(_) if patient => Ok(self.one),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => bail!("{} PUBACKs are missing after {DRAIN:?}", self.outstanding.len()),
        }
    }

    async fn until_end(&mut self, pace: Pace, first: Instant, end: End) -> io::Result<()> {
        let (mut due, begun) = (first, clock::monotonic());
        let mut chunk = [0; 4096];
        loop {
            let now = clock::monotonic();
            let ended = match end {
                End::After(span) => now.duration_since(begun) >= span,
                End::Count(count) => self.one.sent >= count,
            };
            if ended && self.outstanding.is_empty() {
                return Ok(());
            }
            let window = match pace {
                Pace::Window(window) => window.saturating_sub(self.outstanding.len()),
                Pace::Every(every) => {
                    let mut owed = 0;
                    while due <= now {
                        due += every;
                        owed += 1;
                    }
                    owed
                }
            };
            let room = match end {
                _ if ended => 0,
                End::After(_) => window,
                End::Count(count) => window.min(usize::try_from(count - self.one.sent).unwrap_or(usize::MAX)),
            };
            (0..room).for_each(|_| self.encode(now));
            if !self.output.is_empty() {
                self.stream.write_all(&self.output).await?;
                self.output.clear();
            }
            let read = tokio::select! {
                read = self.stream.read(&mut chunk) => read?,
                () = sleep_until(due.into()), if matches!(pace, Pace::Every(_)) && !ended => continue,
            };
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.input.extend_from_slice(&chunk[..read]);
            self.pubacks()?;
        }
    }

    fn encode(&mut self, now: Instant) {
        self.packet_id = if self.packet_id == u16::MAX { 1 } else { self.packet_id + 1 };
        self.counter = clock::now_us().max(self.counter + 1);
        let payload = payload(self.body, self.counter);
        self.output.push(0x32);
        let mut length = 4 + self.topic.len() + payload.len();
        while length >= 0x80 {
            self.output.push(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
            length >>= 7;
        }
        self.output.push(u8::try_from(length).unwrap_or(0));
        string(&mut self.output, &self.topic);
        self.output.extend_from_slice(&self.packet_id.to_be_bytes());
        self.output.extend_from_slice(&payload);
        self.outstanding.push_back((self.packet_id, now, self.counter));
        self.one.sent += 1;
    }

    /// PUBACKs come in the order of the PUBLISHes (MQTT 3.1.1 §4.6); nothing else may come.
    fn pubacks(&mut self) -> io::Result<()> {
        let whole = self.input.len() / 4 * 4;
        let now = clock::monotonic();
        for ack in self.input[..whole].chunks_exact(4) {
            let (id, sent, counter) = self.outstanding.pop_front().ok_or(io::ErrorKind::InvalidData)?;
            if ack[..2] != [0x40, 2] || ack[2..] != id.to_be_bytes() {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{ack:?} in place of PUBACK {id}"),
                ));
            }
            self.one.acked.push(counter);
            self.one.puback_ms.push(now.duration_since(sent).as_secs_f64() * 1000.0);
        }
        self.input.drain(..whole);
        Ok(())
    }
}

fn payload(body: Body, counter: i64) -> Vec<u8> {
    let t = counter / 1000;
    match body {
        Body::Numeric => {
            let mut text = format!(r#"{{"v":{},"u":"/min","t":{t},"seq":{counter}"#, 50 + counter % 100);
            while text.len() < PAYLOAD_BYTES - 1 {
                text.push(' ');
            }
            text.push('}');
            text.into_bytes()
        }
        Body::Event => format!(r#"{{"seq":{counter},"t":{t}}}"#).into_bytes(),
        Body::Wave => {
            let mut map = minicbor::Encoder::new(Vec::new());
            let samples: Vec<u8> =
                (0..500_i64).flat_map(|n| (counter + n).to_le_bytes()[..2].to_vec()).collect();
            let encoded = map.map(6).and_then(|m| {
                m.str("t0")?.i64(counter)?.str("period")?.u32(500_000)?.str("seq")?.i64(counter)?;
                m.str("scale")?.f64(0.005)?.str("unit")?.str("mV")?.str("data")?.bytes(&samples)
            });
            if encoded.is_err() {
                unreachable!("writing to memory does not fail");
            }
            map.into_writer()
        }
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A clean session with user name and password, no keep-alive.
pub(crate) fn connect(id: &str, password: &str) -> Vec<u8> {
    let mut body = Vec::new();
    string(&mut body, "MQTT");
    body.extend_from_slice(&[4, 0xc2, 0, 0]);
    string(&mut body, id);
    string(&mut body, id);
    string(&mut body, password);
    let mut packet = vec![0x10, u8::try_from(body.len()).unwrap_or(0)];
    packet.extend_from_slice(&body);
    packet
}
