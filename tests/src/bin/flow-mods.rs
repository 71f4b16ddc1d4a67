//! A controller that gives a switch many flows at once and says how soon they are in force: a barrier is answered, and a frame that only
//! the last flow lets through has come out.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use caregate_host::clock;
use caregate_host::identity::{Identity, IdentityFiles, Role};
use caregate_protocol::openflow::{Command, FlowMod, Framer, Hello, Instruction, Message};
use caregate_tests::packet::PacketSocket;
use caregate_tests::rules::{self, FRAME};
use clap::{Parser, Subcommand};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Longest wait for the switch to come, for its answers, and for the frame.
const WAIT: Duration = Duration::from_secs(120);
/// Between two frames.
const PROBE_EVERY: Duration = Duration::from_millis(1);
/// The table in which all flows are.
const TABLE: u8 = 1;
/// The first flow-mod's transaction; the setting up has those below.
const FIRST_XID: u32 = 1000;
/// Errors that are told; the others are of one cause.
const ERRORS_TOLD: usize = 5;

/// Measures how fast a switch takes flows.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Write flows of both rule sets as flow-mods, one message after another.
    Write {
        /// How many.
        #[arg(long, default_value_t = 4096)]
        flows: usize,
        /// Where to.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Wait for a switch, send it the file and a barrier, and print one JSON object.
    Send(Send),
}

#[derive(Debug, clap::Args)]
struct Send {
    /// The file.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Where the switch finds its controller.
    #[arg(long)]
    listen: SocketAddr,
    /// The controller's certificate, and TLS; without it TCP.
    #[arg(long, value_name = "FILE", requires = "key", requires = "ca")]
    certificate: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The switch's CA.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Have table 0 go on to the flows' table first, where that does not go by itself.
    #[arg(long)]
    table_0_goes_on: bool,
    /// The interface at whose end is the switch's port 1.
    #[arg(long)]
    probe_from: String,
    /// The one at whose end is port 2.
    #[arg(long)]
    probe_to: String,
}

fn main() -> ExitCode {
    caregate_host::exit::code(run(Arguments::parse().command))
}

fn run(what: What) -> anyhow::Result<()> {
    match what {
        What::Write { flows, out } => write(flows, &out),
        What::Send(how) => {
            let report = tokio::runtime::Runtime::new()?.block_on(send(&how))?;
            Ok(writeln!(std::io::stdout(), "{report}")?)
        }
    }
}

fn write(flows: usize, out: &Path) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    for (xid, flow) in (FIRST_XID..).zip(rules::mixed(flows, rules::SEED)) {
        bytes.extend(Message::FlowMod(flow.flow_mod(TABLE)?).encode(xid)?);
    }
    std::fs::write(out, bytes).with_context(|| out.display().to_string())
}

/// A connection, cut into messages.
struct Connection<S> {
    stream: S,
    framer: Framer,
    errors: Vec<String>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn tell(&mut self, xid: u32, message: &Message) -> anyhow::Result<()> {
        Ok(self.stream.write_all(&message.encode(xid)?).await?)
    }

    /// The next message. Echoes are answered, errors noted.
    async fn next(&mut self) -> anyhow::Result<(u32, Message)> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            while let Some(frame) = self.framer.next_frame()? {
                // What a switch of others says beside answers is not ours to judge.
                let Ok((xid, message)) = Message::decode(frame) else { continue };
                if let Message::EchoRequest(data) = message {
                    self.tell(xid, &Message::EchoReply(data)).await?;
                } else if let Message::Error(error) = message {
                    self.errors.push(format!("{xid}: {:?}", error.kind));
                } else {
                    return Ok((xid, message));
                }
            }
            let bytes = tokio::time::timeout(WAIT, self.stream.read(&mut buffer)).await;
            let bytes = bytes.context("the switch says nothing")??;
            if bytes == 0 {
                bail!("the switch has gone; errors: {:?}", self.errors);
            }
            let mut rest = &buffer[..bytes];
            while !rest.is_empty() {
                let taken = self.framer.accept(rest);
                rest = rest.get(taken..).unwrap_or_default();
                if taken == 0 {
                    bail!("a message is too long");
                }
            }
        }
    }

    async fn await_barrier(&mut self, barrier: u32) -> anyhow::Result<()> {
        loop {
            if matches!(self.next().await?, (xid, Message::BarrierReply) if xid == barrier) {
                return Ok(());
            }
        }
    }

    async fn greet(&mut self, table_0_goes_on: bool) -> anyhow::Result<()> {
        self.tell(1, &Message::Hello(Hello::ours())).await?;
        self.tell(2, &Message::FeaturesRequest).await?;
        while !matches!(self.next().await?.1, Message::FeaturesReply(_)) {}
        if table_0_goes_on {
            let mut flow = FlowMod::new(Command::Add, 0, 0);
            flow.instructions.push(Instruction::GotoTable(TABLE));
            self.tell(3, &Message::FlowMod(flow)).await?;
        }
        self.tell(4, &Message::BarrierRequest).await?;
        self.await_barrier(4).await
    }
}

async fn send(how: &Send) -> anyhow::Result<serde_json::Value> {
    let file = std::fs::read(&how.file).with_context(|| how.file.display().to_string())?;
    let listener = TcpListener::bind(how.listen).await.with_context(|| how.listen.to_string())?;
    let came = tokio::time::timeout(WAIT, listener.accept()).await;
    let (stream, _) = came.context("no switch came")??;
    stream.set_nodelay(true)?;
    match (&how.certificate, &how.key, &how.ca) {
        (Some(certificate), Some(key), Some(ca)) => {
            let files = IdentityFiles { certificate: certificate.clone(), key: key.clone(), ca: ca.clone() };
            let tls = Identity::load(&files)?.server_config(&[Role::Gateway], &[]);
            let stream = TlsAcceptor::from(Arc::new(tls)).accept(stream).await.context("TLS")?;
            measure(stream, &file, how).await
        }
        _ => measure(stream, &file, how).await,
    }
}

async fn measure<S>(stream: S, file: &[u8], how: &Send) -> anyhow::Result<serde_json::Value>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = Connection { stream, framer: Framer::new(), errors: Vec::new() };
    connection.greet(how.table_0_goes_on).await?;
    let flows = messages(file)?;
    let probe = Probe::start(&how.probe_from, &how.probe_to)?;
    let begun = clock::monotonic();
    connection.stream.write_all(file).await?;
    let barrier = FIRST_XID + u32::try_from(flows)?;
    connection.tell(barrier, &Message::BarrierRequest).await?;
    connection.await_barrier(barrier).await?;
    let answered = begun.elapsed();
    if !connection.errors.is_empty() {
        let told: Vec<_> = connection.errors.iter().take(ERRORS_TOLD).collect();
        bail!("the switch refused {} of {flows} flow-mods: {told:?}", connection.errors.len());
    }
    let seen = tokio::task::spawn_blocking(|| probe.seen()).await??;
    let in_force =
        seen.checked_duration_since(begun).context("a frame came out before any flow was there")?;
    let seconds = answered.max(in_force).as_secs_f64();
    Ok(serde_json::json!({
        "flows": flows,
        "barrier_s": answered.as_secs_f64(),
        "in_force_s": in_force.as_secs_f64(),
        "flow_mods_per_s": flows as f64 / seconds,
    }))
}

/// How many messages the file has.
fn messages(mut file: &[u8]) -> anyhow::Result<usize> {
    let mut count = 0;
    while let Some(head) = file.first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        file = file.get(length.max(4)..).context("the file ends within a message")?;
        count += 1;
    }
    Ok(count)
}

/// Sends the frame again and again, until it comes out at the other port.
struct Probe {
    receiver: std::thread::JoinHandle<anyhow::Result<Instant>>,
    is_over: Arc<AtomicBool>,
}

impl Probe {
    fn start(from: &str, to: &str) -> anyhow::Result<Self> {
        let mut sender = PacketSocket::open(from, PROBE_EVERY).context(from.to_owned())?;
        let mut receiver = PacketSocket::open(to, PROBE_EVERY).context(to.to_owned())?;
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) && sender.send(&FRAME).is_ok() {
                std::thread::sleep(PROBE_EVERY);
            }
        });
        let receiver = std::thread::spawn(move || {
            let (begun, mut buffer) = (clock::monotonic(), [0; 2048]);
            while begun.elapsed() < WAIT {
                if receiver.next(&mut buffer)?.is_some_and(|frame| frame.get(..42) == FRAME.get(..42)) {
                    return Ok(clock::monotonic());
                }
            }
            bail!("no frame came out within {} s of the first flow-mod", WAIT.as_secs())
        });
        Ok(Self { receiver, is_over })
    }

    /// When the first came out.
    fn seen(self) -> anyhow::Result<Instant> {
        let seen = self.receiver.join().map_err(|_panic| anyhow::anyhow!("the receiver ended badly"))?;
        self.is_over.store(true, Ordering::Relaxed);
        seen
    }
}
