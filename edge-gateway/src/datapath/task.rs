//! Keeps the connection, and remembers what the helper has to be told again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use caregate_protocol::datapath::switch::Change;
use caregate_protocol::datapath::{Event, Policy, Reason, Refused, Reply, Request, Welcome};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::connection::Connection;
use super::mirror::{self, Mirror};
use super::{Call, DatapathError, Listeners};
use crate::openflow::agent::Part;
use crate::openflow::helper::HelperEvent;

/// Between attempts: a helper that restarts is back within a few tenths of a second, and an attempt costs next to nothing.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// What the helper is told after it was away.
#[derive(Debug, Default)]
struct Told {
    /// None before the first change.
    switch: Option<Mirror>,
    policy: Option<Policy>,
}

/// A batch that has begun on this connection.
#[derive(Debug)]
struct Open {
    batch: u64,
    /// How many parts of it the helper was told.
    parts: u32,
    /// All of them.
    changes: Vec<Change>,
}

pub(super) struct Task {
    path: PathBuf,
    session: u64,
    calls: mpsc::Receiver<Call>,
    welcome: watch::Sender<Option<Welcome>>,
    listeners: Listeners,
    told: Told,
    open: Option<Open>,
    connection: Option<Connection>,
}

impl Task {
    /// Connects for the first time.
    pub(super) async fn start(
        path: &Path,
        session: u64,
        calls: mpsc::Receiver<Call>,
        listeners: Listeners,
    ) -> Result<(Self, watch::Receiver<Option<Welcome>>), DatapathError> {
        let (connection, welcome) = Connection::open(path, session).await?;
        let (welcome, watched) = watch::channel(Some(welcome));
        let task = Self {
            path: path.to_owned(),
            session,
            calls,
            welcome,
            listeners,
            told: Told::default(),
            open: None,
            connection: Some(connection),
        };
        Ok((task, watched))
    }

    /// Until `stop`, or until nobody can ask any more.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            let ended = match self.connection.take() {
                Some(connection) => tokio::select! {
                    () = stop.cancelled() => return,
                    ended = self.serve(connection) => ended,
                },
                None => tokio::select! {
                    () = stop.cancelled() => return,
                    ended = self.reconnect() => ended,
                },
            };
            if ended.is_none() {
                return;
            }
        }
    }

    /// Serves calls until the connection is lost; none when nobody can ask any more.
    async fn serve(&mut self, mut connection: Connection) -> Option<()> {
        let lost = loop {
            tokio::select! {
                call = self.calls.recv() => {
                    if let Err(lost) = self.ask(&mut connection, call?).await {
                        break lost;
                    }
                }
                event = connection.event() => match event {
                    Ok(event) => tell(&self.welcome, &self.listeners, event),
                    Err(lost) => break lost,
                },
            }
        };
        warn!(reason = %lost, "the datapath helper is away; what is in force stays in force");
        self.open = None;
        self.welcome.send_replace(None);
        self.listeners.tell(&HelperEvent::Down);
        Some(())
    }

    /// An error is one of the connection.
    async fn ask(&mut self, connection: &mut Connection, call: Call) -> Result<(), DatapathError> {
        let Call { request, part, answer: to } = call;
        let mut changed = None;
        let answer = if let Request::Change { changes, more } = request {
            let done = self.change(connection, part, changes, more).await;
            done.map(|in_force| {
                changed = in_force;
                (Reply::Done, None)
            })
        } else {
            if let Request::SetPolicy(policy) = &request {
                self.told.policy = Some(policy.clone());
            }
            let said = &mut |event| tell(&self.welcome, &self.listeners, event);
            connection.call(request, said).await
        };
        let (answer, lost) = match answer {
            Err(lost) if !matches!(lost, DatapathError::Refused(_)) => (Err(DatapathError::Away), Some(lost)),
            answer => (answer, None),
        };
        // Whoever asked may have gone.
        drop(to.send(answer));
        if let Some(changes) = changed {
            // Whoever waits goes first: this takes as long as the change itself.
            tokio::task::yield_now().await;
            self.told.switch.get_or_insert_default().take(changes);
        }
        lost.map_or(Ok(()), Err)
    }

    /// Tells a part of a batch, as the series of requests that it is; where it is the last, returns the batch. Where the helper refuses a
    /// part it refuses the end as well, and all is as if it had not been asked.
    async fn change(
        &mut self,
        connection: &mut Connection,
        part: Part,
        changes: Vec<Change>,
        more: bool,
    ) -> Result<Option<Vec<Change>>, DatapathError> {
        let begun = match &self.open {
            Some(open) if part.before == 0 || open.batch != part.batch => {
                // It lacks its end, and the helper would take this for that.
                return Err(DatapathError::Unexpected);
            }
            open => open.as_ref().map_or(0, |open| open.parts),
        };
        if begun != part.before {
            // An earlier connection had the rest.
            return Err(Refused { reason: Reason::Order, detail: "the batch began elsewhere".into() }.into());
        }
        if !more {
            let said = &mut |event| tell(&self.welcome, &self.listeners, event);
            let done = connection.change(mirror::series(&changes, false), said).await;
            let mut all = self.open.take().map(|open| open.changes).unwrap_or_default();
            all.extend(changes);
            return done.map(|()| Some(all));
        }
        let done = connection.tell_changes(mirror::series(&changes, true)).await;
        let new = || Open { batch: part.batch, parts: 0, changes: Vec::new() };
        let open = self.open.get_or_insert_with(new);
        open.parts += 1;
        open.changes.extend(changes);
        done.map(|()| None)
    }

    /// Until there is a connection that knows all that it has to; none when nobody can ask any more.
    async fn reconnect(&mut self) -> Option<()> {
        loop {
            let pause = sleep(RETRY_INTERVAL);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    call = self.calls.recv() => self.answer_away(call?),
                }
            }
            match self.attempt().await {
                Ok((connection, welcome)) => {
                    info!(ports = welcome.ports.len(), "the datapath helper is back");
                    self.connection = Some(connection);
                    self.welcome.send_replace(Some(welcome.clone()));
                    self.listeners.tell(&HelperEvent::Up(welcome));
                    return Some(());
                }
                Err(DatapathError::Connect { .. }) => {}
                Err(reason) => warn!(%reason, "the datapath helper can't be used"),
            }
        }
    }

    /// Nobody need wait for a helper that is away.
    fn answer_away(&mut self, call: Call) {
        if let Request::SetPolicy(policy) = call.request {
            self.told.policy = Some(policy);
        }
        drop(call.answer.send(Err(DatapathError::Away)));
    }

    async fn attempt(&self) -> Result<(Connection, Welcome), DatapathError> {
        let (mut connection, mut welcome) = Connection::open(&self.path, self.session).await?;
        let said = &mut |event| note(&mut welcome, &event);
        // Whoever is shut out is so before policy admits anybody.
        if let Some(switch) = &self.told.switch {
            connection.change(mirror::series(&switch.everything(), false), said).await?;
        }
        if let Some(policy) = self.told.policy.clone() {
            let (Reply::Done, None) = connection.call(Request::SetPolicy(policy), said).await? else {
                return Err(DatapathError::Unexpected);
            };
        }
        Ok((connection, welcome))
    }
}

/// Keeps the list of ports true.
fn note(welcome: &mut Welcome, event: &Event) {
    if let Event::PortStatus(port) = event
        && let Some(known) = welcome.ports.iter_mut().find(|known| known.number == port.number)
    {
        known.clone_from(port);
    }
}

fn tell(welcome: &watch::Sender<Option<Welcome>>, listeners: &Listeners, event: Event) {
    welcome.send_if_modified(|welcome| {
        let is_port = matches!(event, Event::PortStatus(_));
        if let Some(welcome) = welcome {
            note(welcome, &event);
        }
        is_port
    });
    listeners.tell(&match event {
        Event::PacketIn { uplink: _, rule, total_len, frame } => {
            HelperEvent::PacketIn { rule, total_len, frame }
        }
        Event::PortStatus(port) => HelperEvent::Port(port),
        Event::Punt(punt) => HelperEvent::Punt(punt),
    });
}
