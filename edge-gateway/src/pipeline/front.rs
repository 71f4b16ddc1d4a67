//! What waits to be sealed, between the doors and the commit thread.
//!
//! That thread syncs the journal before wraps go up, `keys.redb` before a generation seals, and more: on a disk that stalls it stands still
//! in one of them. A [`Lookout`] then gathers in its place, and shows the watch what comes. Nothing is answered by that.

mod growth;
mod lookout;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caregate_host::clock;
use caregate_protocol::id::{Lane, PatientId};
use caregate_protocol::policy::VerifiedPolicy;
use prometheus::IntCounter;
use tokio::sync::watch;
use tokio::time::sleep_until;

use self::growth::{GROWN_WITHIN, Growth};
use crate::ingest::{ALARMS_MAX, Inbound, Intake, lane_of};
use crate::keys::erasures::Asked;
use crate::watch::Tap;

pub use lookout::Lookout;

/// PUBLISHes in one commit: at 100 commits a second this is far more than a home sends.
const BATCH_MAX: usize = 1024;
/// Payload bytes in one commit, and one payload more: what a commit holds of them in several forms is most of its memory.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// With so many there is nothing to gather for: a commit of 16 numbers fills a block of the disk, which is what a smaller one costs too.
const GATHERED_ENOUGH: usize = 16;
/// Of a sync's time, how long the next group stays open for those whom it has answered: one eighth costs who sends by the clock little, and gives
/// who sends by the window twice as much.
const HELD_SHARE: u32 = 8;
/// Syncs that are shorter are not waited for so: a timer takes a millisecond at least.
const HELD_FROM: Duration = Duration::from_millis(2);
/// And how long at most, after a disk that has stalled: what is gathered meanwhile the watch sees after that.
const HELD_MAX: Duration = Duration::from_millis(100);

/// The commit thread's end.
#[derive(Debug)]
pub struct Front(Arc<Mutex<Window>>);

#[derive(Debug)]
struct Window {
    intake: Intake,
    gathered: Gathered,
    growth: Growth,
    /// The commit thread waits for what comes, and takes it by itself.
    is_attended: bool,
    /// How often it has begun to.
    attended: u64,
}

/// What the commit thread gathered for one commit.
#[derive(Debug)]
pub struct Taken {
    /// In the order in which they came.
    pub batch: Vec<Inbound>,
    /// Whose each of the first was as a lookout showed it to the watch; none where nothing of it was shown.
    pub shown: Vec<Option<PatientId>>,
}

impl Taken {
    /// Whether the watch was shown this one (by its place) as this patient's. By the policy of now it may be another's than it was.
    #[must_use]
    pub fn is_shown(&self, at: usize, patient: PatientId) -> bool {
        self.shown.get(at) == Some(&Some(patient))
    }
}

/// What the commit thread has to wait for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Awaited {
    /// What comes next.
    pub(super) next: bool,
    /// That there is no reason to gather any longer.
    pub(super) over: bool,
}

impl Front {
    /// In front of what comes from the doors.
    #[must_use]
    pub fn new(intake: Intake) -> Self {
        let (gathered, growth) = (Gathered::default(), Growth::default());
        Self(Arc::new(Mutex::new(Window { intake, gathered, growth, is_attended: false, attended: 0 })))
    }

    /// Who looks out while the commit thread stands still. What it shows is counted in `shown`; of those who are erased it shows nothing.
    #[must_use]
    pub fn lookout(
        &self,
        tap: Tap,
        policy: watch::Receiver<Arc<VerifiedPolicy>>,
        erased: watch::Receiver<BTreeMap<PatientId, Asked>>,
        shown: IntCounter,
    ) -> Lookout {
        Lookout::new(Arc::clone(&self.0), tap, policy, erased, shown)
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        lock(&self.0)
    }

    /// The thread waits from now on: for what comes where there is room for another batch, and else for the disk.
    pub(super) fn attend(&self, room: bool) -> Awaited {
        let mut window = self.window();
        window.is_attended = room;
        window.attended += u64::from(room);
        let gathered = &window.gathered;
        Awaited { next: room && !gathered.is_enough(), over: room && gathered.is_open() }
    }

    /// It waits no more.
    pub(super) fn leave(&self) {
        self.window().is_attended = false;
    }

    /// Gathers the next PUBLISH and what is there beside; false when all doors are closed and the last was taken. May be dropped and called
    /// again.
    pub(super) async fn gather(&self, linger: Duration) -> bool {
        let next = poll_fn(|context| {
            let mut window = self.window();
            let next = window.intake.poll_recv(context);
            next.map(|next| next.map(|first| window.gathered.push(first, linger)))
        });
        let is_open = next.await.is_some();
        self.take(linger);
        is_open
    }

    /// Gathers what is there already.
    pub(super) fn take(&self, linger: Duration) {
        let window = &mut *self.window();
        window.gathered.take(&mut window.intake, linger);
    }

    /// Waits until there is no reason to gather any longer.
    pub(super) async fn over(&self) {
        let until = {
            let window = self.window();
            window.gathered.until.filter(|_| !window.gathered.is_enough())
        };
        if let Some(until) = until {
            sleep_until(until.into()).await;
        }
    }

    /// What was gathered; the next is begun.
    pub(super) fn gathered(&self) -> Taken {
        let mut window = self.window();
        let Gathered { batch, shown, wanted, grows, .. } = std::mem::take(&mut window.gathered);
        if grows {
            window.growth.ended(batch.len() >= wanted);
        }
        Taken { batch, shown }
    }

    /// So many were answered by a sync that took so long: they are expected back.
    pub(super) fn hold(&self, answered: usize, sync: Duration, now: Instant) {
        let window = &mut *self.window();
        if sync >= HELD_FROM {
            window.gathered.hold(answered, sync, now);
        } else if let Some(wanted) = window.growth.wanted(answered) {
            window.gathered.grow(wanted, now);
        }
    }

    /// Whether it is kept open for those.
    pub(super) fn is_held(&self) -> bool {
        self.window().gathered.held
    }
}

fn lock(window: &Mutex<Window>) -> MutexGuard<'_, Window> {
    window.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the next commit will be made of.
#[derive(Debug)]
struct Gathered {
    batch: Vec<Inbound>,
    /// Whose each of the first was as a lookout showed it to the watch.
    shown: Vec<Option<PatientId>>,
    /// With so many there is nothing more to wait for.
    wanted: usize,
    /// Kept open for those who were just answered: a client whose window was full sends again at once, and what comes just after a sync
    /// has begun waits for two.
    held: bool,
    /// It is open for longer than it would be, to become a larger one.
    grows: bool,
    bytes: usize,
    /// There is an alarm among them.
    urgent: bool,
    /// When the linger is over; with none of it at once, for a timer takes a millisecond at least.
    until: Option<Instant>,
}

impl Default for Gathered {
    fn default() -> Self {
        let (batch, shown, wanted) = (Vec::new(), Vec::new(), GATHERED_ENOUGH);
        Self { batch, shown, wanted, held: false, grows: false, bytes: 0, urgent: false, until: None }
    }
}

impl Gathered {
    /// So many were answered by a sync that took so long: they are expected back.
    fn hold(&mut self, answered: usize, sync: Duration, now: Instant) {
        self.held = true;
        self.wanted = answered.min(BATCH_MAX);
        self.until = Some(now + (sync / HELD_SHARE).min(HELD_MAX));
    }

    /// It ends when so many have come, or soon.
    fn grow(&mut self, wanted: usize, now: Instant) {
        self.grows = true;
        self.wanted = wanted;
        self.until = Some(now + GROWN_WITHIN);
    }

    /// Whether it comes to an end by itself.
    fn is_open(&self) -> bool {
        self.held || !self.batch.is_empty()
    }

    fn push(&mut self, publish: Inbound, linger: Duration) {
        if !linger.is_zero() {
            self.until.get_or_insert_with(|| clock::monotonic() + linger);
        }
        self.bytes += publish.payload.len();
        self.urgent |= lane_of(&publish.topic, publish.payload.len()) == Lane::Alarm;
        self.batch.push(publish);
    }

    /// Takes what is there, as far as it fits.
    fn take(&mut self, intake: &mut Intake, linger: Duration) {
        while self.batch.len() < BATCH_MAX && self.bytes < BATCH_BYTES_MAX {
            let Ok(next) = intake.try_recv() else { break };
            self.push(next, linger);
        }
    }

    /// Takes alarms beyond that too, as many as have places of their own: what is full of the rest hides none.
    fn take_alarms(&mut self, intake: &mut Intake) {
        while self.batch.len() < BATCH_MAX + ALARMS_MAX {
            let Some(alarm) = intake.try_alarm() else { break };
            self.push(alarm, Duration::ZERO);
        }
    }

    fn is_enough(&self) -> bool {
        self.urgent || self.batch.len() >= self.wanted || self.bytes >= BATCH_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use caregate_protocol::id::DeviceId;
    use tokio::sync::oneshot;

    use super::*;
    use crate::ingest::{self, Inlet};

    /// A linger that nobody waits out.
    pub(super) const LONG: Duration = Duration::from_secs(3600);

    pub(super) fn publish(leaf: &str) -> Inbound {
        Inbound {
            device: DeviceId::new("monitor-1").unwrap(),
            topic: format!("vitals/v1/monitor-1/{leaf}"),
            payload: Bytes::new(),
            received_us: 0,
            verdict: oneshot::channel().0,
        }
    }

    pub(super) fn front() -> (Inlet, Front) {
        let (inlet, intake) = ingest::queue();
        (inlet, Front::new(intake))
    }

    pub(super) async fn is_over(front: &Front) -> bool {
        tokio::time::timeout(Duration::from_millis(1), front.over()).await.is_ok()
    }

    pub(super) fn push(front: &Front, leaf: &str, linger: Duration) {
        front.window().gathered.push(publish(leaf), linger);
    }

    /// What is gathered of these, or `None` where it is not enough.
    async fn gathered(leaves: &[&str]) -> Option<usize> {
        let (inlet, front) = front();
        for leaf in leaves {
            inlet.of(Lane::Vitals).send(publish(leaf)).await.unwrap();
            assert!(front.attend(true).next);
            assert!(front.gather(LONG).await);
        }
        assert!(front.attend(true).over);
        is_over(&front).await.then(|| front.gathered().batch.len())
    }

    #[tokio::test]
    async fn a_commit_waits_no_longer_than_there_is_reason_to() {
        assert_eq!(gathered(&["num/heart-rate"; GATHERED_ENOUGH]).await, Some(GATHERED_ENOUGH));
        assert_eq!(gathered(&["num/heart-rate"; GATHERED_ENOUGH - 1]).await, None);
        assert_eq!(gathered(&["event/fall"]).await, Some(1));
        let rest = ["num/heart-rate", "num/heart-rate", "event/fall"];
        assert_eq!(gathered(&rest).await, Some(3));
    }

    #[tokio::test]
    async fn a_slow_sync_is_followed_by_a_group_of_all_that_it_answered() {
        let now = clock::monotonic();
        let (_inlet, front) = front();
        front.hold(2, HELD_FROM, now);
        assert!(front.is_held() && front.attend(true).over);
        front.gathered();
        front.hold(2, LONG, now);
        for is_whole in [false, true] {
            push(&front, "num/heart-rate", Duration::ZERO);
            assert_eq!(is_over(&front).await, is_whole);
        }
        // An alarm waits for nobody, nor does anybody after a sync that was quick.
        front.gathered();
        front.hold(2, LONG, now);
        push(&front, "event/fall", Duration::ZERO);
        assert!(is_over(&front).await);
        front.gathered();
        front.hold(2, HELD_FROM / 2, now);
        assert!(!front.is_held() && !front.attend(true).over);
    }

    #[tokio::test]
    async fn a_linger_ends() {
        let (_inlet, front) = front();
        push(&front, "num/heart-rate", Duration::from_millis(1));
        front.over().await;
        assert!(front.attend(true).next, "it is not enough");
    }

    #[tokio::test]
    async fn a_commit_takes_no_more_than_its_bytes() {
        let (inlet, front) = front();
        let large = || Inbound { payload: vec![0; BATCH_BYTES_MAX / 4].into(), ..publish("wave/ecg-ii") };
        for _ in 0..7 {
            inlet.of(Lane::Waveform).send(large()).await.unwrap();
        }
        for (taken, is_enough) in [(4, true), (3, false)] {
            front.take(Duration::ZERO);
            assert_eq!(front.attend(true).next, !is_enough);
            assert_eq!(front.gathered().batch.len(), taken);
        }
    }
}
