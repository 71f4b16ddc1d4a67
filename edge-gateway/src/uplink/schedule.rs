//! What goes up next, and on which connection. Pure: positions in, positions out.
//!
//! Live first: a record spooled while its lane's connection is up goes on its lane's live queue; what was there before, and
//! what could not be sent within [`LIVE_AGE_MAX`], is backlog. So after an outage the present is never behind the past.
//!
//! While a lane's way is congested its live records wait for each other ([`window`]), and go together.
//!
//! Of the backlog goes what the present leaves ([`Pace`]).
//!
//! A position is in one place at a time: in its lane's live queue, in its lane's backlog, or sent on one connection.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use caregate_protocol::id::Lane;

use super::congestion::window;
use super::pace::Pace;

/// How long a live record may wait for its turn before it becomes backlog: the sweep on a clinician's page spans some
/// seconds, and what is older is no longer the present.
pub const LIVE_AGE_MAX: Duration = Duration::from_secs(2);
/// How long what is less urgent waits for a live record whose sender has not taken it: far longer than a sender that can
/// send needs, and short enough that a lane whose peer does not read holds up no other.
pub const YIELD_MAX: Duration = Duration::from_millis(100);

/// What one connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The present of one lane.
    Live(Lane),
    /// The rest, of all lanes.
    Backlog,
}

impl Part {
    /// All, the most urgent first; the number of each is its place in this order.
    pub const ALL: [Self; 5] = [
        Self::Live(Lane::Alarm),
        Self::Live(Lane::Vitals),
        Self::Live(Lane::Waveform),
        Self::Live(Lane::Activity),
        Self::Backlog,
    ];

    /// Its place in [`Self::ALL`].
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Live(lane) => lane as u8,
            Self::Backlog => 4,
        }
    }

    /// The lanes of which it sends records.
    #[must_use]
    pub fn lanes(self) -> Vec<Lane> {
        match self {
            Self::Live(lane) => vec![lane],
            Self::Backlog => Lane::ALL.to_vec(),
        }
    }

    /// What its streams carry, as a label for counters.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Live(_) => "live",
            Self::Backlog => "backlog",
        }
    }

    /// A label for counters and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live(lane) => lane.as_str(),
            Self::Backlog => "backlog",
        }
    }
}

/// What a sender is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Send this position; it counts as sent.
    Send(u64),
    /// A record waits for a more urgent sender, or one that will be ours: ask again when something has changed, at the latest
    /// at this time.
    Yield(Instant),
    /// Nothing to send.
    Idle,
}

/// A record on its way.
#[derive(Debug, Clone, Copy)]
struct Sent {
    lane: Lane,
    at: Instant,
}

/// Positions waiting to be sent, and positions sent but not acknowledged.
#[derive(Debug, Default)]
pub struct Schedule {
    live: [VecDeque<(u64, Instant)>; 4],
    backlog: [VecDeque<u64>; 4],
    /// By connection.
    sent: [BTreeMap<u64, Sent>; 5],
    pace: Pace,
    next: u64,
    connected: [bool; 5],
    /// By lane: its live connection's way.
    congested: [bool; 4],
    /// By lane: live records below this position have waited for each other.
    released: [u64; 4],
    /// Lanes of which something became backlog that what is live now may need.
    behind: BTreeSet<Lane>,
}

impl Schedule {
    /// A schedule for what the spool held at start.
    pub fn new(unacked: impl IntoIterator<Item = (u64, Lane)>) -> Self {
        let mut schedule = Self::default();
        for (position, lane) in unacked {
            schedule.backlog[lane as usize].push_back(position);
            schedule.next = schedule.next.max(position + 1);
        }
        schedule
    }

    /// A connection is up: where it is a lane's, the lane's records count as live from now on.
    pub fn connected(&mut self, part: Part) {
        self.connected[usize::from(part.number())] = true;
        if let Part::Live(lane) = part {
            // Its way may be another than the last one was.
            self.pace.begin();
            if !self.backlog[lane as usize].is_empty() {
                self.behind.insert(lane);
            }
        }
    }

    /// The lanes whose backlog may hold the wraps of the present epoch, since this was asked last: what is live can't be opened before
    /// they come, unless they are given again.
    pub fn take_behind(&mut self) -> BTreeSet<Lane> {
        std::mem::take(&mut self.behind)
    }

    /// A connection is gone: whatever was sent on it and not acknowledged is backlog, in the order of positions, and so is
    /// what waited for it.
    pub fn disconnected(&mut self, part: Part) {
        let number = usize::from(part.number());
        self.connected[number] = false;
        self.congested(part, false);
        for (position, sent) in std::mem::take(&mut self.sent[number]) {
            self.backlog[sent.lane as usize].push_back(position);
        }
        if part == Part::Backlog {
            self.pace.begin();
        }
        for lane in part.lanes() {
            let backlog = &mut self.backlog[lane as usize];
            if let Part::Live(_) = part {
                let live = std::mem::take(&mut self.live[lane as usize]);
                backlog.extend(live.into_iter().map(|(position, _)| position));
            }
            backlog.make_contiguous().sort_unstable();
        }
    }

    /// Whether a connection's way is congested. The backlog's records go together anyway: there is always a next one.
    pub fn congested(&mut self, part: Part, congested: bool) {
        if let Part::Live(lane) = part {
            self.congested[lane as usize] = congested;
        }
    }

    /// Whether the present has its way: every lane's connection is up.
    #[must_use]
    pub fn live_connected(&self) -> bool {
        Lane::ALL.into_iter().all(|lane| self.connected[lane as usize])
    }

    /// A record is in the spool. Returns whether it is live.
    pub fn spooled(&mut self, position: u64, lane: Lane, now: Instant) -> bool {
        self.next = self.next.max(position + 1);
        let is_live = self.connected[lane as usize];
        if is_live {
            self.live[lane as usize].push_back((position, now));
        } else {
            self.backlog[lane as usize].push_back(position);
        }
        is_live
    }

    /// The turn of one lane's sender on one connection.
    pub fn turn(&mut self, part: Part, lane: Lane, now: Instant) -> Turn {
        self.age(lane, now);
        let live = self.live[lane as usize].front().map(|(_, spooled)| *spooled);
        match part {
            Part::Live(_) if live.is_none() => return Turn::Idle,
            Part::Backlog if self.backlog[lane as usize].is_empty() => {
                return live.map_or(Turn::Idle, |spooled| Turn::Yield(spooled + LIVE_AGE_MAX));
            }
            Part::Live(_) => {
                if let Some(until) = self.held(lane, now) {
                    return Turn::Yield(until);
                }
                let newest = self.live[lane as usize].back().map_or(0, |(position, _)| position + 1);
                self.released[lane as usize] = self.released[lane as usize].max(newest);
            }
            Part::Backlog => {}
        }
        if let Some(until) = self.more_urgent(part, now) {
            return Turn::Yield(until);
        }
        if let Some(until) = self.paced(part, lane, now) {
            return Turn::Yield(until);
        }
        let position = match part {
            Part::Live(_) => self.live[lane as usize].pop_front().map(|(position, _)| position),
            Part::Backlog => self.backlog[lane as usize].pop_front(),
        };
        position.map_or(Turn::Idle, |position| {
            self.sent[usize::from(part.number())].insert(position, Sent { lane, at: now });
            Turn::Send(position)
        })
    }

    /// Until when a lane's backlog waits for what is live. Alarms are few, and wait for nobody: not even those that are late. Of the others the
    /// more urgent goes first, since at a rate no stream has two to choose from.
    fn paced(&self, part: Part, lane: Lane, now: Instant) -> Option<Instant> {
        if part != Part::Backlog || lane == Lane::Alarm {
            return None;
        }
        self.pace.rate(now)?;
        let mut above = Lane::ALL.into_iter().take(lane as usize);
        let is_second = above.any(|above| !self.backlog[above as usize].is_empty());
        self.pace.waits(now).or_else(|| is_second.then_some(now + YIELD_MAX))
    }

    /// The record that was to be sent has so many bytes.
    pub fn measured(&mut self, part: Part, lane: Lane, bytes: usize, now: Instant) {
        match part {
            Part::Live(_) => self.pace.live_sent(bytes, now),
            Part::Backlog if lane == Lane::Alarm => {}
            Part::Backlog => self.pace.sent(bytes, now),
        }
    }

    /// The gateway stops: nothing live will come any more, and what is left goes as it can.
    pub fn end(&mut self) {
        self.pace.end();
    }

    /// A position that was to be sent is not there any more.
    pub fn gone(&mut self, position: u64) {
        for sent in &mut self.sent {
            sent.remove(&position);
        }
    }

    /// Bytes a second that the backlog may have; none where it may have all there is.
    #[must_use]
    pub fn backlog_rate(&self, now: Instant) -> Option<u64> {
        self.pace.rate(now)
    }

    /// Until when a lane's live records wait for more to go with them, if they do.
    fn held(&self, lane: Lane, now: Instant) -> Option<Instant> {
        let (oldest, spooled) = self.live[lane as usize].front()?;
        let waits = self.congested[lane as usize] && *oldest >= self.released[lane as usize];
        Some(*spooled + window(lane)).filter(|until| waits && *until > now)
    }

    /// Until when a part waits for live records that are more urgent, if there are any.
    fn more_urgent(&self, part: Part, now: Instant) -> Option<Instant> {
        let above = Lane::ALL.into_iter().take(usize::from(part.number()));
        above
            // Those that wait for each other wait for no sender.
            .filter(|lane| self.held(*lane, now).is_none())
            .filter_map(|lane| self.live[lane as usize].front().map(|(_, spooled)| *spooled + YIELD_MAX))
            .filter(|at| *at > now)
            .max()
    }

    /// Live records that waited for too long become backlog.
    fn age(&mut self, lane: Lane, now: Instant) {
        let live = &mut self.live[lane as usize];
        while let Some((position, _)) =
            live.pop_front_if(|(_, spooled)| now.saturating_duration_since(*spooled) >= LIVE_AGE_MAX)
        {
            self.backlog[lane as usize].push_back(position);
            self.behind.insert(lane);
        }
    }

    /// The core has these positions, whichever connection said so: what is durable there is, and need not be sent again.
    pub fn acked(&mut self, first: u64, last: u64, now: Instant) {
        for (part, sent) in Part::ALL.into_iter().zip(&mut self.sent) {
            // Split instead of walking the range: a peer may acknowledge 0..=u64::MAX.
            let mut acked = sent.split_off(&first);
            if let Some(after) = last.checked_add(1) {
                sent.append(&mut acked.split_off(&after));
            }
            if part != Part::Backlog {
                acked
                    .values()
                    .for_each(|sent| self.pace.live_acked(now.saturating_duration_since(sent.at), now));
            }
        }
    }

    /// These positions need not be sent any more, wherever they are.
    pub fn expired(&mut self, gone: &BTreeSet<u64>) {
        for lane in &mut self.live {
            lane.retain(|(position, _)| !gone.contains(position));
        }
        for lane in &mut self.backlog {
            lane.retain(|position| !gone.contains(position));
        }
        for sent in &mut self.sent {
            sent.retain(|position, _| !gone.contains(position));
        }
    }

    /// Positions not acknowledged yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let live: usize = self.live.iter().map(VecDeque::len).sum();
        let sent: usize = self.sent.iter().map(BTreeMap::len).sum();
        live + self.backlog() + sent
    }

    /// Positions that one connection has to see acknowledged.
    #[must_use]
    pub fn waiting_on(&self, part: Part) -> usize {
        let queued = match part {
            Part::Live(lane) => self.live[lane as usize].len(),
            Part::Backlog => self.backlog(),
        };
        queued + self.sent[usize::from(part.number())].len()
    }

    /// One past the newest position.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The oldest position that is not acknowledged; [`Self::next`] where all are.
    #[must_use]
    pub fn oldest_waiting(&self) -> u64 {
        let live = self.live.iter().filter_map(|queue| queue.front().map(|(position, _)| *position));
        let backlog = self.backlog.iter().filter_map(|queue| queue.front().copied());
        let sent = self.sent.iter().filter_map(|sent| sent.keys().next().copied());
        live.chain(backlog).chain(sent).min().unwrap_or(self.next)
    }

    /// Positions in the backlog that have not been sent since they came there.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.backlog.iter().map(VecDeque::len).sum()
    }
}

#[cfg(test)]
mod tests;
