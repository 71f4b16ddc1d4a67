//! What a connection has once its switch is identified: the exchange, and those who wait for its answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use caregate_host::clock;
use caregate_protocol::openflow::{Message, PortReason, port};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, info, warn};

use super::{Request, Shared};
use crate::events::Kind;
use crate::exchange::{Answer, Exchange, Happened, Token};
use crate::intent::{DatapathId, Target};
use crate::reconcile::{self, Send};
use crate::store::Desired;
use crate::switches::{Ticket, View};

/// Events that one switch may cause at once, and one more for each [`EVENT_INTERVAL`]: so that none crowds out the others'.
const EVENTS_BURST: u32 = 32;
const EVENT_INTERVAL: Duration = Duration::from_secs(2);

/// What somebody else wants of this connection.
pub(super) enum Wish {
    Desired,
    Request(Request),
}

/// Waits for the next; for ever where there is no switch yet.
pub(super) async fn next_wish(established: Option<&mut Established>) -> Wish {
    let Some(established) = established else { return std::future::pending().await };
    tokio::select! {
        changed = established.desired.changed() => match changed {
            Ok(()) => Wish::Desired,
            // The store goes with the process.
            Err(_) => std::future::pending().await,
        },
        Some(request) = established.requests.recv() => Wish::Request(request),
    }
}

pub(super) struct Established {
    shared: Shared,
    ticket: Ticket,
    target: Target,
    exchange: Exchange,
    desired: watch::Receiver<Arc<Desired>>,
    requests: mpsc::Receiver<Request>,
    /// At most as many as the exchange takes.
    waiting: HashMap<Token, oneshot::Sender<Answer>>,
    next_token: u64,
    events_left: u32,
    events_at: Duration,
}

impl Established {
    pub(super) fn new(
        shared: Shared,
        ticket: Ticket,
        (switch, table): (DatapathId, u8),
        requests: mpsc::Receiver<Request>,
        now: Duration,
        send: Send<'_>,
    ) -> Self {
        let target = Target { switch, table, lane_ports: shared.lane_ports };
        let mut desired = shared.desired.clone();
        let first = Arc::clone(&desired.borrow_and_update());
        let exchange = Exchange::start(first.version, target.compile(first.intents()), now, send);
        Self {
            shared,
            ticket,
            target,
            exchange,
            desired,
            requests,
            waiting: HashMap::new(),
            next_token: 0,
            events_left: EVENTS_BURST,
            events_at: now,
        }
    }

    pub(super) fn next_timeout(&self) -> Duration {
        self.exchange.next_timeout()
    }

    pub(super) fn handle_timeout(&mut self, now: Duration, send: Send<'_>) {
        if now >= self.exchange.next_timeout() {
            let happened = self.exchange.handle_timeout(now, send);
            self.report(happened, now);
        }
    }

    pub(super) fn handle(&mut self, xid: u32, message: Message, now: Duration, send: Send<'_>) {
        let happened = self.exchange.handle(xid, message, now, send);
        self.report(happened, now);
    }

    pub(super) fn grant(&mut self, wish: Wish, now: Duration, send: Send<'_>) {
        let happened = match wish {
            Wish::Desired => {
                let desired = Arc::clone(&self.desired.borrow_and_update());
                let rules = self.target.compile(desired.intents());
                self.exchange.set_rules(desired.version, rules, now, send)
            }
            Wish::Request(request) => {
                self.next_token += 1;
                let token = Token(self.next_token);
                match request {
                    Request::Write(flow_mod, answer) => {
                        self.waiting.insert(token, answer);
                        self.exchange.write(token, *flow_mod, now, send)
                    }
                    Request::Read(answer) => {
                        self.waiting.insert(token, answer);
                        self.exchange.read(token, now, send)
                    }
                }
            }
        };
        self.report(happened, now);
    }

    /// Tells who wants to know, the view first: who is answered looks at it.
    fn report(&mut self, happened: Vec<Happened>, now: Duration) {
        self.publish();
        for happened in happened {
            match happened {
                Happened::Reconcile(happened) => self.report_reconcile(happened, now),
                Happened::Answered(token, answer) => {
                    // Who has gone away meanwhile needs no answer.
                    let gone = self.waiting.remove(&token).map(|waiting| waiting.send(answer));
                    debug!(switch = %self.target.switch, ?answer, gone = matches!(gone, Some(Err(_))), "answered");
                }
                Happened::Port(reason, changed) => {
                    let what = match reason {
                        PortReason::Add => "is new",
                        PortReason::Delete => "is gone",
                        PortReason::Modify if changed.state & port::state::LINK_DOWN != 0 => "is down",
                        PortReason::Modify => "is up",
                    };
                    let detail = format!("port {} {what}", changed.number);
                    self.event(Kind::Port, detail, now);
                }
                Happened::Unexpected(reason) => {
                    self.shared.metrics.messages_refused.with_label_values(&[reason]).inc();
                    debug!(switch = %self.target.switch, reason, "message left alone");
                }
            }
        }
    }

    fn report_reconcile(&mut self, happened: reconcile::Happened, now: Duration) {
        use reconcile::Happened as H;
        let switch = self.target.switch;
        let word = match &happened {
            H::Confirmed(_) => "confirmed",
            H::Drifted(_) => "drift",
            H::Refused(..) => "refused",
            H::Diverged(_) => "diverged",
            H::TimedOut => "timeout",
            H::Unreadable(_) => "unreadable",
        };
        self.shared.metrics.reconciles.with_label_values(&[word]).inc();
        match happened {
            H::Confirmed(version) => {
                info!(%switch, version, "the switch follows the intents");
                self.event(Kind::Confirmed, format!("version {version} is in force"), now);
            }
            H::Drifted(flows) => {
                warn!(%switch, flows, "own flows were gone or changed");
                self.event(Kind::Drift, format!("{flows} flows were gone or changed and come back"), now);
            }
            H::Refused(intent, kind) => {
                warn!(%switch, intent, error = kind.as_str(), "the switch refuses an intent's rule");
                self.event(Kind::RuleRefused, format!("intent {intent}: {}", kind.as_str()), now);
            }
            H::Diverged(flows) => {
                warn!(%switch, flows, "the switch does not come to what the intents ask for");
                self.event(Kind::Diverged, format!("{flows} flows differ still"), now);
            }
            H::TimedOut => warn!(%switch, "the switch does not answer in time"),
            H::Unreadable(kind) => {
                warn!(%switch, error = kind.as_str(), "the switch does not say what it holds");
                self.event(Kind::Diverged, format!("flows can't be read: {}", kind.as_str()), now);
            }
        }
    }

    fn event(&mut self, kind: Kind, detail: String, now: Duration) {
        let earned = now.saturating_sub(self.events_at).as_secs() / EVENT_INTERVAL.as_secs();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.events_left = self.events_left.saturating_add(earned).min(EVENTS_BURST);
            self.events_at = now;
        }
        match self.events_left.checked_sub(1) {
            Some(left) => {
                self.events_left = left;
                self.shared.events.push(kind, self.target.switch, detail);
            }
            None => self.shared.metrics.events_left_out.inc(),
        }
    }

    fn publish(&self) {
        let reconciler = self.exchange.reconciler();
        let view = View {
            version: reconciler.version(),
            confirmed: reconciler.confirmed(),
            phase: reconciler.phase(),
            wanted: reconciler.wanted(),
            differing: reconciler.differing(),
            refused: reconciler.refused().clone(),
            flows: Arc::clone(reconciler.flows()),
            census: Arc::clone(self.exchange.census()),
            at_ms: clock::now_ms(),
        };
        self.shared.lock().found(self.ticket, Arc::new(view));
        self.shared.found.send_modify(|count| *count = count.wrapping_add(1));
    }
}
