//! Who gets what was published: a reader of the hospital's feed, or a client of the far broker.

use std::collections::HashSet;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, bail};
use caregate_host::clock;
use caregate_tests::feed::{Credentials, follow};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::load;
use crate::site::{SECRET, USER};

/// What has come.
#[derive(Debug, Default)]
pub(crate) struct Came {
    /// With repetitions.
    pub(crate) count: u64,
    /// From publication to arrival, in milliseconds; of numbers, and of events.
    pub(crate) numeric_ms: Vec<f64>,
    pub(crate) event_ms: Vec<f64>,
    /// By device and counter; kept where it is asked for.
    pub(crate) names: Option<HashSet<(String, i64)>>,
}

impl Came {
    fn take(&mut self, device: &str, counter: i64, is_event: bool, arrived_us: i64) {
        self.count += 1;
        let ms = (arrived_us - counter) as f64 / 1000.0;
        if is_event {
            self.event_ms.push(ms)
        } else {
            self.numeric_ms.push(ms)
        }
        if let Some(names) = &mut self.names {
            names.insert((device.to_owned(), counter));
        }
    }
}

/// One that runs on a thread of its own.
pub(crate) struct Subscriber {
    came: Arc<Mutex<Came>>,
    stop: CancellationToken,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Subscriber {
    /// Of the feed's stream, from what comes next.
    pub(crate) fn of_feed(page: SocketAddr, names: bool) -> anyhow::Result<Self> {
        Self::start(names, move |came, stop| async move {
            let address = format!("http://{page}").parse()?;
            let credentials = Credentials { user: USER.into(), password: SECRET.into() };
            let mut lines = Lines { came, line: Vec::new() };
            follow(&address, &credentials, None, &mut lines, &stop).await?;
            Ok(())
        })
    }

    /// Of all topics at a broker.
    pub(crate) fn of_broker(broker: SocketAddr, names: bool) -> anyhow::Result<Self> {
        Self::start(names, move |came, stop| async move {
            let mut stream = TcpStream::connect(broker).await?;
            stream.set_nodelay(true)?;
            stream.write_all(&load::connect("subscriber", SECRET)).await?;
            // SUBSCRIBE, packet 1, "#" at QoS 1.
            stream.write_all(&[0x82, 6, 0, 1, 0, 1, b'#', 1]).await?;
            tokio::select! {
                ended = receive(&mut stream, &came) => ended,
                () = stop.cancelled() => Ok(()),
            }
        })
    }

    fn start<F, R>(names: bool, run: F) -> anyhow::Result<Self>
    where
        F: FnOnce(Arc<Mutex<Came>>, CancellationToken) -> R + Send + 'static,
        R: Future<Output = anyhow::Result<()>>,
    {
        let came = Arc::new(Mutex::new(Came { names: names.then(HashSet::new), ..Came::default() }));
        let stop = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (shared, stopped) = (Arc::clone(&came), stop.clone());
        let thread = std::thread::spawn(move || runtime.block_on(run(shared, stopped)));
        Ok(Self { came, stop, thread: Some(thread) })
    }

    fn came(&self) -> MutexGuard<'_, Came> {
        self.came.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self) -> u64 {
        self.came().count
    }

    /// Forgets what has come so far.
    pub(crate) fn forget(&self) {
        let mut came = self.came();
        *came = Came { names: came.names.is_some().then(HashSet::new), ..Came::default() };
    }

    /// What has come since.
    pub(crate) fn taken(&self) -> Came {
        let mut came = self.came();
        let names = came.names.is_some().then(HashSet::new);
        std::mem::replace(&mut came, Came { names, ..Came::default() })
    }

    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        let thread = self.thread.take().context("it has ended")?;
        thread.join().map_err(|_panic| anyhow::anyhow!("the subscriber panicked"))?
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Takes the feed's messages as lines.
struct Lines {
    came: Arc<Mutex<Came>>,
    line: Vec<u8>,
}

#[derive(Deserialize)]
struct Message<'a> {
    arrived_ms: f64,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(default)]
    class: &'a str,
    #[serde(default)]
    device: &'a str,
    seq: Option<i64>,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let message: Message<'_> = serde_json::from_slice(&self.line[..end])?;
            // Of a backlog nobody asks how old it is.
            if let ("reading", Some(counter)) = (message.kind, message.seq)
                && message.class != "waveform"
            {
                #[expect(clippy::cast_possible_truncation, reason = "a time of this century in microseconds")]
                let arrived_us = (message.arrived_ms * 1000.0) as i64;
                let mut came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
                came.take(message.device, counter, message.class == "alarm", arrived_us);
            }
            self.line.drain(..=end);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes PUBLISHes at QoS 1 and acknowledges them.
async fn receive(stream: &mut TcpStream, came: &Mutex<Came>) -> anyhow::Result<()> {
    let (mut input, mut chunk, mut output) = (Vec::new(), vec![0; 64 << 10], Vec::new());
    loop {
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            bail!("the broker closed the connection");
        }
        input.extend_from_slice(&chunk[..read]);
        let arrived_us = clock::now_us();
        let mut at = 0;
        while let Some((head, body)) = packet(&input[at..]) {
            let whole = &input[at + head..at + head + body];
            if input[at] >> 4 == 3 {
                let topic_len = usize::from(u16::from_be_bytes([whole[0], whole[1]]));
                let topic = std::str::from_utf8(&whole[2..2 + topic_len])?;
                let mut payload = &whole[2 + topic_len..];
                if input[at] & 0x06 != 0 {
                    output.extend_from_slice(&[0x40, 2, payload[0], payload[1]]);
                    payload = &payload[2..];
                }
                let device = topic.split('/').nth(2).unwrap_or_default();
                let mut came = came.lock().unwrap_or_else(PoisonError::into_inner);
                came.take(device, counter(payload).unwrap_or(arrived_us), false, arrived_us);
            }
            at += head + body;
        }
        input.drain(..at);
        stream.write_all(&output).await?;
        output.clear();
    }
}

/// Lengths of a whole packet's fixed header and of what follows it.
fn packet(input: &[u8]) -> Option<(usize, usize)> {
    let (mut length, mut shift) = (0, 0);
    for (at, byte) in input.iter().enumerate().skip(1).take(4) {
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return (input.len() > at + length).then_some((at + 1, length));
        }
    }
    None
}

/// The counter in a numeric's payload.
fn counter(payload: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(payload).ok()?;
    let (_, rest) = text.split_once("\"seq\":")?;
    rest.trim_end_matches('}').trim_end().parse().ok()
}
