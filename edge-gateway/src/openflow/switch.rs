//! The shell around [`Agent`]: its controller, its helper, its clock.
//!
//! One task owns the agent; another does what must be done elsewhere (disk, helper), one thing after the other. The controller's
//! socket is read only while the agent takes frames, so there is no queue of messages: a controller that asks faster than the
//! helper answers, or that doesn't read, stops itself and nothing else.

use std::collections::BTreeSet;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use caregate_host::clock;
use caregate_host::identity::Identity;
use caregate_protocol::datapath::{PACKET_OUTS_MAX, PacketOut};
use caregate_protocol::policy::Mac;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::agent::{Action, Agent, CloseReason, Settings};
use super::dial::Dialer;
use super::helper::{Helper, HelperEvent};
use super::line::{Line, Moved, Open};
use super::metrics::Metrics;
use super::quarantine::quarantined;
use super::slow::Frame;
use super::store::{FlowStore, Kept};
use super::worker::{JOBS_MAX, Numbered, Outcome, Task, Worker};

/// Beyond any timer: the agent has none.
const FAR: Duration = Duration::from_secs(3600);

/// What the switch needs.
pub struct Switch<H> {
    /// The controller's TCP address.
    pub controller: SocketAddr,
    /// The name that its certificate must carry; any name of role `controller` where none is given.
    pub controller_name: Option<String>,
    /// Datapath id, name, version.
    pub settings: Settings,
    /// Our certificate.
    pub identity: Arc<Identity>,
    /// Flows, groups and meters on disk.
    pub store: FlowStore,
    /// As the store had them.
    pub kept: Kept,
    /// Requests to the datapath helper.
    pub helper: H,
    /// What it says unasked. The first is [`HelperEvent::Up`].
    pub events: mpsc::Receiver<HelperEvent>,
    /// Counters.
    pub metrics: Metrics,
    /// Whom the controller has shut out.
    pub quarantined: watch::Sender<Arc<BTreeSet<Mac>>>,
}

impl<H: Helper> Switch<H> {
    /// Puts in force what was kept. To be done before anything else is told to the helper: whoever was shut out is so from the first
    /// frame on.
    ///
    /// # Errors
    /// Where the helper is not there, or refuses.
    pub async fn install(mut self) -> anyhow::Result<Installed<H>> {
        let opened = clock::monotonic();
        let Some(HelperEvent::Up(welcome)) = self.events.recv().await else {
            anyhow::bail!("the datapath helper is not there");
        };
        let (mut agent, actions, lost) =
            Agent::new(self.settings.clone(), &welcome, &self.kept, Duration::ZERO);
        for action in actions {
            if let Action::Install { part, changes, .. } = action {
                let installed = self.helper.change(part, changes).await;
                installed.map_err(|_refused| {
                    anyhow::anyhow!("the datapath helper does not take the kept flows")
                })?;
            }
        }
        drop(agent.handle_installed(Ok(()), Duration::ZERO));
        info!(flows = agent.tables().flows().len(), "the tables are as they were kept");
        if lost > 0 {
            warn!(lost, "flows, groups and meters mean nothing with the helper's ports, and are left out");
        }
        Ok(Installed { switch: self, agent, opened })
    }

    /// [`install`](Self::install), then [`Installed::run`].
    ///
    /// # Errors
    /// As these.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        self.install().await?.run(shutdown).await
    }
}

/// A switch whose flows are in force.
pub struct Installed<H> {
    switch: Switch<H>,
    agent: Agent,
    opened: Instant,
}

impl<H: Helper> Installed<H> {
    /// Serves the controller until `shutdown`, however often it or the helper goes and comes again.
    ///
    /// # Errors
    /// Where the helper's client ended.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let Self { switch, agent, opened } = self;
        let Switch {
            controller, controller_name, identity, store, helper, events, metrics, quarantined, ..
        } = switch;
        let (tasks, tasks_in) = mpsc::channel(JOBS_MAX);
        // Each outcome was a task, and those are bounded; so the worker never waits for whoever gives it tasks.
        let (outcomes, outcomes_in) = mpsc::unbounded_channel();
        let worker = tokio::spawn(Worker::new(helper, store, metrics.clone()).run(tasks_in, outcomes));
        // Whoever waits for the switch's end waits until nobody says this any more: not before all is on disk.
        let last = quarantined.clone();
        let mut shell = Shell {
            agent,
            opened,
            dialer: Dialer::new(controller, controller_name.as_deref(), &identity),
            line: Line::Waiting(opened),
            closing: None,
            tasks,
            absence: 0,
            told: None,
            metrics,
            quarantined,
        };
        shell.tell();
        // A thread of its own: what wakes the agent does not wait for it on the thread that they share, so that a second core decodes
        // what comes in, and tells the helper, while the tables are checked.
        let runtime = Handle::current();
        let run = move || runtime.block_on(async { shell.run(events, outcomes_in, &shutdown).await });
        let ended = tokio::task::spawn_blocking(run).await.context("the switch's agent")?;
        worker.await.context("the switch's worker")?;
        drop(last);
        ended
    }
}

struct Shell {
    agent: Agent,
    /// When the agent's clock began.
    opened: Instant,
    dialer: Dialer,
    line: Line,
    /// The agent has ended the connection.
    closing: Option<CloseReason>,
    tasks: mpsc::Sender<Numbered<Task>>,
    /// How often the helper has gone. What comes of earlier tasks has been given up.
    absence: u64,
    /// The revision of the tables that was told last.
    told: Option<u64>,
    metrics: Metrics,
    quarantined: watch::Sender<Arc<BTreeSet<Mac>>>,
}

impl Shell {
    async fn run(
        &mut self,
        mut events: mpsc::Receiver<HelperEvent>,
        mut outcomes: mpsc::UnboundedReceiver<Numbered<Outcome>>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<()> {
        loop {
            let due = self.opened + self.agent.next_timeout().unwrap_or_else(|| self.now() + FAR);
            let may_read = !self.agent.is_waiting();
            tokio::select! {
                () = shutdown.cancelled() => {
                    let actions = self.agent.handle_shutdown();
                    self.perform(actions).await;
                    self.hang_up("shutdown").await;
                    return Ok(());
                }
                outcome = outcomes.recv() => {
                    let outcome = outcome.context("the switch's worker ended")?;
                    self.finished(outcome).await;
                }
                event = events.recv() => {
                    let event = event.context("the datapath helper's client ended")?;
                    self.helper_said(event).await;
                }
                () = sleep_until(due.into()) => {
                    // What came meanwhile belongs to what was gathered, which would else be installed without it.
                    let come = tokio::select! {
                        biased;
                        moved = self.line.next(may_read) => Some(moved),
                        () = ready(()) => None,
                    };
                    if let Some(moved) = come {
                        self.moved(moved).await;
                        self.take_frames().await;
                    }
                    let actions = self.agent.handle_timeout(self.now());
                    self.perform(actions).await;
                }
                moved = self.line.next(may_read) => self.moved(moved).await,
            }
            self.take_frames().await;
            if let Some(reason) = self.closing.take() {
                warn!(reason = reason.as_str(), "the connection to the controller is closed: {reason}");
                self.hang_up(reason.as_str()).await;
            }
            self.tell();
        }
    }

    /// Says what the tables are now, once that is in force.
    fn tell(&mut self) {
        let tables = self.agent.tables();
        if tables.is_changed() {
            return;
        }
        if self.told.replace(tables.revision()) == Some(tables.revision()) {
            return;
        }
        self.metrics.flows.set(i64::try_from(tables.flows().len()).unwrap_or(i64::MAX));
        let shut_out = quarantined(tables);
        self.quarantined.send_if_modified(|known| {
            let changed = **known != shut_out;
            if changed {
                *known = Arc::new(shut_out);
            }
            changed
        });
    }

    fn now(&self) -> Duration {
        self.opened.elapsed()
    }

    async fn finished(&mut self, outcome: Numbered<Outcome>) {
        if outcome.absence != self.absence {
            return;
        }
        let now = self.now();
        let actions = match outcome.what {
            Outcome::Installed(result) => self.agent.handle_installed(result, now),
            Outcome::PacketOuts(results) => {
                let done = results.into_iter();
                done.flat_map(|(ticket, result)| self.agent.handle_packet_out(ticket, result, now)).collect()
            }
            Outcome::Counters(result) => self.agent.handle_counters(result, now),
        };
        self.perform(actions).await;
    }

    async fn helper_said(&mut self, event: HelperEvent) {
        let now = self.now();
        let actions = match event {
            HelperEvent::Up(welcome) => {
                // Whatever waits for an answer waits for that of an earlier connection.
                self.absence += 1;
                let actions = self.agent.handle_helper_lost(now);
                self.perform(actions).await;
                self.agent.handle_helper(&welcome, now)
            }
            HelperEvent::Down => {
                self.absence += 1;
                self.agent.handle_helper_lost(now)
            }
            HelperEvent::Punt(punt) => self.agent.handle_punt(Frame::from(&punt), now),
            HelperEvent::Port(port) => self.agent.handle_port(&port, now),
            HelperEvent::PacketIn { rule, total_len, frame } => {
                if matches!(&self.line, Line::Open(open) if !open.has_room()) {
                    return self.count_refused("packet-in-unread");
                }
                self.agent.handle_packet_in(rule, total_len, frame, now)
            }
        };
        self.perform(actions).await;
    }

    async fn moved(&mut self, moved: Moved) {
        match moved {
            Moved::Due => self.line = Line::Dialing(self.dialer.dial()),
            Moved::Dialed(Ok(stream)) => {
                self.metrics.connects.with_label_values(&["connected"]).inc();
                self.line = Line::Open(Open::new(*stream));
                let actions = self.agent.handle_connected(self.now());
                self.perform(actions).await;
            }
            Moved::Dialed(Err(error)) => {
                self.metrics.connects.with_label_values(&[error.reason()]).inc();
                info!(%error, "no connection to the controller");
                self.wait();
            }
            Moved::Read(count) => self.metrics.messages.inc_by(count as u64),
            Moved::Written => {}
            Moved::Unframed(error) => {
                let actions = self.agent.handle_framing_error(&error);
                self.perform(actions).await;
            }
            Moved::Lost => self.hang_up("peer").await,
            Moved::Stalled => self.hang_up("write-timeout").await,
        }
    }

    fn wait(&mut self) {
        self.line = Line::Waiting(clock::monotonic() + self.dialer.pause());
    }

    /// Ends a connection, if there is one. The flows stay.
    async fn hang_up(&mut self, reason: &'static str) {
        self.agent.handle_disconnected();
        self.metrics.connected.set(0);
        let waiting = Line::Waiting(clock::monotonic() + self.dialer.pause());
        if let Line::Open(open) = std::mem::replace(&mut self.line, waiting) {
            self.metrics.closed.with_label_values(&[reason]).inc();
            info!(reason, "the connection to the controller has ended");
            open.close().await;
        }
    }

    /// Gives the agent frames while it takes them.
    async fn take_frames(&mut self) {
        // What was read together came at one time.
        let now = self.now();
        while self.closing.is_none() && !self.agent.is_waiting() {
            let Line::Open(open) = &mut self.line else { break };
            if !open.has_room() {
                return;
            }
            let Some(message) = open.next_message() else { break };
            let actions = self.agent.handle_incoming(message, now);
            self.perform(actions).await;
        }
    }

    /// Does what the agent says, in its order.
    async fn perform(&mut self, actions: Vec<Action>) {
        // All copies of a frame are one task.
        let mut packets = Vec::new();
        for action in actions {
            if let Action::PacketOut { ticket, packet } = action {
                packets.push((ticket, packet));
                continue;
            }
            self.give_packets(&mut packets).await;
            match action {
                Action::Send(bytes) => {
                    if let Line::Open(open) = &mut self.line {
                        open.send(&bytes);
                    }
                }
                Action::Prepare { part, changes } => {
                    self.give(Task::Prepare { part, changes }).await;
                }
                Action::Install { kept, part, changes } => {
                    self.give(Task::Install { kept, part, changes }).await;
                }
                Action::Keep(kept) => self.give(Task::Keep(kept)).await,
                // Gathered.
                Action::PacketOut { .. } => {}
                Action::ReadCounters => self.give(Task::ReadCounters).await,
                Action::Established => {
                    info!("the controller is there");
                    self.dialer.succeeded();
                    self.metrics.connected.set(1);
                }
                Action::Refused(reason) => self.count_refused(reason),
                Action::Close(reason) => self.closing = Some(reason),
            }
        }
        self.give_packets(&mut packets).await;
    }

    async fn give_packets(&mut self, packets: &mut Vec<(u64, PacketOut)>) {
        while !packets.is_empty() {
            let rest = packets.split_off(packets.len().min(PACKET_OUTS_MAX));
            self.give(Task::PacketOuts(std::mem::replace(packets, rest))).await;
        }
    }

    /// Waits only where a helper that has gone left tasks to be given up; the agent has fewer than [`JOBS_MAX`] open.
    async fn give(&mut self, what: Task) {
        if self.tasks.send(Numbered { absence: self.absence, what }).await.is_err() {
            debug!("the switch's worker has ended");
        }
    }

    fn count_refused(&self, reason: &'static str) {
        self.metrics.refused.with_label_values(&[reason]).inc();
        debug!(reason, "refused");
    }
}
