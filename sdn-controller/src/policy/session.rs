//! One gateway's policy connection: what it watches in, bundles and revocations out, verdicts and anchors in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use caregate_host::clock;
use caregate_protocol::policy::PolicyBundle;
use caregate_protocol::policy::delivery::{Frame, FrameError, Watch, frame_length};
use ledger_client::verify::BundleRefusal;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use thiserror::Error;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Policy;
use super::gateways::{Entered, Sent};
use super::header;
use super::ledger::{Failure, LedgerFuture};
use super::schedule::{Schedule, moment};
use crate::events::Kind;

/// Time for the stream and what is watched: three round trips of the worst link.
const WATCH_TIMEOUT: Duration = Duration::from_secs(5);
/// A gateway that takes no bytes for so long is gone. A bundle of 1 MiB needs 8 s at 1 Mbit/s.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest frame of a gateway: a full watch list, three times 1,024 values of 34 bytes.
const INCOMING_BYTES_MAX: usize = 128 * 1024;
/// Bytes read from the stream at once.
const READ_BYTES: usize = 16 * 1024;
/// Anchors of one gateway at once, and one more for each [`ANCHOR_INTERVAL`]; each costs a signature's check.
const ANCHORS_BURST: u32 = 64;
const ANCHOR_INTERVAL: Duration = Duration::from_millis(250);

/// Why a connection ended.
#[derive(Debug, Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a frame that has no place here")]
    Unexpected,
    #[error("nothing is watched within {} s", WATCH_TIMEOUT.as_secs())]
    Silent,
    #[error("it takes no bytes")]
    WriteTimeout,
    #[error("as many gateways as can be are connected")]
    TooMany,
    #[error("transport: {0}")]
    Transport(String),
}

impl SessionError {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Frame(error) => error.reason(),
            Self::Unexpected => "unexpected",
            Self::Silent => "silent",
            Self::WriteTimeout => "write_timeout",
            Self::TooMany => "too_many",
            Self::Transport(_) => "transport",
        }
    }
}

fn transport(error: impl std::fmt::Display) -> SessionError {
    SessionError::Transport(error.to_string())
}

/// Frames from a gateway. Cancel-safe: what was read stays.
struct Frames {
    stream: RecvStream,
    bytes: Vec<u8>,
}

impl Frames {
    async fn next(&mut self) -> Result<Option<Frame>, SessionError> {
        loop {
            if let Some(head) = self.bytes.first_chunk() {
                let length = frame_length(*head)?;
                if length > INCOMING_BYTES_MAX {
                    return Err(FrameError::Length(length).into());
                }
                if self.bytes.len() >= 4 + length {
                    let frame = Frame::decode(&self.bytes[4..4 + length]);
                    self.bytes.drain(..4 + length);
                    return Ok(Some(frame?));
                }
            }
            match self.stream.read_chunk(READ_BYTES, true).await.map_err(transport)? {
                Some(chunk) => self.bytes.extend_from_slice(&chunk.bytes),
                None => return Ok(None),
            }
        }
    }
}

/// Serves a connection until it ends; `name` is that of its certificate.
pub(super) async fn run(
    policy: &Policy,
    name: &str,
    connection: &Connection,
    shutdown: &CancellationToken,
) -> Result<(), SessionError> {
    let hello = async {
        let (out, stream) = connection.accept_bi().await.map_err(transport)?;
        let mut frames = Frames { stream, bytes: Vec::new() };
        match frames.next().await? {
            Some(Frame::Watch(watch)) => Ok((out, frames, watch)),
            Some(_) | None => Err(SessionError::Unexpected),
        }
    };
    let (out, frames, watch) =
        timeout(WATCH_TIMEOUT, hello).await.map_err(|_elapsed| SessionError::Silent)??;
    let entered = policy.gateways.enter(name, &watch, clock::now_ms()).ok_or(SessionError::TooMany)?;
    let number = entered.number;
    policy.metrics.gateways.inc();
    info!(
        gateway = name,
        relationships = watch.relationships.len(),
        bindings = watch.bindings.len(),
        "policy connection"
    );
    policy.events.push(Kind::GatewayConnected, name, "policy connection");
    let opened = clock::monotonic();
    let session = Session {
        policy,
        name,
        watch: Arc::new(watch),
        out,
        opened,
        schedule: Schedule::new(Duration::ZERO, moment(name)),
        anchors_left: ANCHORS_BURST,
        anchors_at: Duration::ZERO,
        is_missing: false,
    };
    let ended = session.serve(frames, entered, shutdown).await;
    policy.gateways.leave(name, number, clock::now_ms());
    policy.metrics.gateways.dec();
    policy.events.push(Kind::GatewayGone, name, "policy connection");
    connection.close(VarInt::from_u32(u32::from(ended.is_err())), b"");
    ended
}

struct Session<'a> {
    policy: &'a Policy,
    name: &'a str,
    watch: Arc<Watch>,
    out: SendStream,
    opened: Instant,
    schedule: Schedule,
    anchors_left: u32,
    anchors_at: Duration,
    /// The last bundle could not be made; said once.
    is_missing: bool,
}

impl Session<'_> {
    fn now(&self) -> Duration {
        clock::monotonic().saturating_duration_since(self.opened)
    }

    async fn serve(
        mut self,
        mut frames: Frames,
        mut entered: Entered,
        shutdown: &CancellationToken,
    ) -> Result<(), SessionError> {
        let mut heads = self.policy.ledger.heads();
        let (policy, watch) = (self.policy, Arc::clone(&self.watch));
        self.look_at(&mut heads);
        for revocation in policy.waiting_for(&watch) {
            self.write(&Frame::Revocation(revocation)).await?;
        }
        let mut making: Option<LedgerFuture<'_, PolicyBundle>> = None;
        loop {
            if making.is_none() && self.schedule.begin(self.now()) {
                making = Some(Box::pin(policy.bundle(&watch, self.schedule.is_changed())));
            }
            let due = self.opened + self.schedule.due().unwrap_or(super::BUNDLE_INTERVAL);
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = entered.replaced.cancelled() => return Ok(()),
                frame = frames.next() => match frame? {
                    Some(frame) => self.take(frame).await?,
                    None => return Ok(()),
                },
                Some(revocation) = entered.pushes.recv() => {
                    self.write(&Frame::Revocation(revocation)).await?;
                }
                changed = heads.changed() => if changed.is_ok() {
                    self.look_at(&mut heads);
                } else {
                    // The ledger goes with the process.
                    return Ok(());
                },
                made = async { making.as_mut().expect("there is one").await }, if making.is_some() => {
                    making = None;
                    self.deliver(made).await?;
                }
                () = sleep_until(due.into()), if making.is_none() => {}
            }
        }
    }

    fn look_at(&mut self, heads: &mut tokio::sync::watch::Receiver<Option<super::Head>>) {
        let head = *heads.borrow_and_update();
        if let Some(head) = head {
            let changed = self.policy.ledger.last_change(&self.watch);
            let now = self.now();
            self.schedule.head(head.number, changed, now);
        }
    }

    async fn deliver(&mut self, made: Result<PolicyBundle, Failure>) -> Result<(), SessionError> {
        let counted = |outcome: &str| self.policy.metrics.bundles.with_label_values(&[outcome]).inc();
        let bundle = match made {
            Ok(bundle) => bundle,
            Err(failure) => {
                counted(failure.reason);
                if !std::mem::replace(&mut self.is_missing, true) {
                    warn!(gateway = self.name, error = failure.text, "no bundle could be made");
                }
                self.schedule.failed(self.now());
                return Ok(());
            }
        };
        // A header that can't be read is for the gateway to refuse.
        let (number, time_s) = header::number_and_time(&bundle.header).unwrap_or_default();
        let epoch = bundle.claims.epoch;
        let bytes = bundle.encode();
        self.write(&Frame::Bundle(bytes.clone())).await?;
        counted("sent");
        self.is_missing = false;
        self.schedule.sent(number, self.now());
        debug!(gateway = self.name, number, epoch, bytes = bytes.len(), "bundle sent");
        let sent = Sent { bytes: bytes.into(), number, time_s, epoch, at_ms: clock::now_ms() };
        self.policy.gateways.sent(self.name, sent);
        Ok(())
    }

    async fn take(&mut self, frame: Frame) -> Result<(), SessionError> {
        match frame {
            Frame::Verdict(verdict) => {
                let reason = verdict.refused.clone();
                let word = known_reason(reason.as_deref());
                self.policy.metrics.verdicts.with_label_values(&[word]).inc();
                let epoch = verdict.epoch;
                if self.policy.gateways.verdict(self.name, verdict, clock::now_ms()) {
                    let detail = match &reason {
                        None => format!("epoch {epoch} is in force"),
                        Some(reason) => format!("refuses: {}", printable(reason)),
                    };
                    info!(gateway = self.name, epoch, refused = reason.as_deref().map(printable), "verdict");
                    self.policy.events.push(Kind::Verdict, self.name, detail);
                }
                Ok(())
            }
            Frame::Anchor(anchor) => {
                if self.may_anchor() {
                    // It repeats what is not taken.
                    if let Err(error) = self.policy.take(anchor, Some(self.name)).await {
                        debug!(gateway = self.name, %error, "anchor not taken");
                    }
                } else {
                    self.policy.metrics.policy_refused.with_label_values(&["anchor_rate"]).inc();
                }
                Ok(())
            }
            Frame::Emergency(signed) => {
                if self.may_anchor() {
                    self.policy.take_emergency(signed);
                } else {
                    self.policy.metrics.policy_refused.with_label_values(&["anchor_rate"]).inc();
                }
                Ok(())
            }
            Frame::Watch(_) | Frame::Bundle(_) | Frame::Revocation(_) => Err(SessionError::Unexpected),
        }
    }

    fn may_anchor(&mut self) -> bool {
        let now = self.now();
        let earned = now.saturating_sub(self.anchors_at).as_millis() / ANCHOR_INTERVAL.as_millis();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.anchors_left = self.anchors_left.saturating_add(earned).min(ANCHORS_BURST);
            self.anchors_at = now;
        }
        let may = self.anchors_left > 0;
        self.anchors_left = self.anchors_left.saturating_sub(1);
        may
    }

    async fn write(&mut self, frame: &Frame) -> Result<(), SessionError> {
        let bytes = frame.encode();
        match timeout(WRITE_TIMEOUT, self.out.write_all(&bytes)).await {
            Ok(written) => written.map_err(transport),
            Err(_elapsed) => Err(SessionError::WriteTimeout),
        }
    }
}

/// A label must not be what a gateway likes.
fn known_reason(refused: Option<&str>) -> &'static str {
    match refused {
        None => "accepted",
        Some(reason) => BundleRefusal::REASONS.into_iter().find(|known| *known == reason).unwrap_or("other"),
    }
}

/// What a gateway says, for logs and pages: its words are bounded by the frame, and must be of the usual alphabet.
fn printable(reason: &str) -> &str {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if reason.bytes().all(usual) { reason } else { "something unprintable" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_texts_are_not_what_a_gateway_likes() {
        assert_eq!(known_reason(None), "accepted");
        assert_eq!(known_reason(Some("quorum")), "quorum");
        assert_eq!(known_reason(Some("other_chain")), "other_chain");
        assert_eq!(known_reason(Some("x\ny")), "other");
        assert_eq!((printable("quorum"), printable("x\ny")), ("quorum", "something unprintable"));
    }
}
