//! What waits to be sealed, between the doors and the commit thread.
//!
//! That thread syncs the journal before wraps go up, `keys.redb` before a generation seals, and more: on a disk that stalls it stands still
//! in one of them. A [`Lookout`] then gathers in its place, and shows the watch what comes. Nothing is answered by that.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caregate_host::clock;
use caregate_protocol::id::{Lane, PatientId};
use caregate_protocol::policy::VerifiedPolicy;
use prometheus::IntCounter;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::admit::{Admission, IMPLAUSIBLE, admit};
use crate::ingest::{Inbound, Intake, lane_of};
use crate::keys::erasures::Asked;
use crate::watch::Tap;

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
/// How often it is looked whether the commit thread stands still, which it does when two looks in a row have found it so: an alarm is half a
/// second late at most, as where it waits for being kept (`watch/thread.rs`).
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The commit thread's end.
#[derive(Debug)]
pub struct Front(Arc<Mutex<Window>>);

#[derive(Debug)]
struct Window {
    intake: Intake,
    gathered: Gathered,
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
    /// So many of them, the first, were shown to the watch.
    pub shown: usize,
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
        let gathered = Gathered::default();
        Self(Arc::new(Mutex::new(Window { intake, gathered, is_attended: false, attended: 0 })))
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
        Lookout { window: Arc::clone(&self.0), tap, policy, erased, shown, unattended: None, stands: false }
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
        let Gathered { batch, shown, .. } = std::mem::take(&mut self.window().gathered);
        Taken { batch, shown }
    }

    /// So many were answered by a sync that took so long: they are expected back.
    pub(super) fn hold(&self, answered: usize, sync: Duration, now: Instant) {
        self.window().gathered.hold(answered, sync, now);
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
    /// So many of them, the first, were shown to the watch by a lookout.
    shown: usize,
    /// With so many there is nothing more to wait for.
    wanted: usize,
    /// Kept open for those who were just answered: a client whose window was full sends again at once, and what comes just after a sync
    /// has begun waits for two.
    held: bool,
    bytes: usize,
    /// There is an alarm among them.
    urgent: bool,
    /// When the linger is over; with none of it at once, for a timer takes a millisecond at least.
    until: Option<Instant>,
}

impl Default for Gathered {
    fn default() -> Self {
        let (batch, shown, bytes, wanted, held) = (Vec::new(), 0, 0, GATHERED_ENOUGH, false);
        Self { batch, shown, bytes, wanted, held, urgent: false, until: None }
    }
}

impl Gathered {
    /// So many were answered by a sync that took so long: they are expected back.
    fn hold(&mut self, answered: usize, sync: Duration, now: Instant) {
        if sync >= HELD_FROM {
            self.held = true;
            self.wanted = answered.min(BATCH_MAX);
            self.until = Some(now + sync / HELD_SHARE);
        }
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

    fn is_enough(&self) -> bool {
        self.urgent || self.batch.len() >= self.wanted || self.bytes >= BATCH_BYTES_MAX
    }
}

/// Looks out while the commit thread stands still.
#[derive(Debug)]
pub struct Lookout {
    window: Arc<Mutex<Window>>,
    tap: Tap,
    policy: watch::Receiver<Arc<VerifiedPolicy>>,
    erased: watch::Receiver<BTreeMap<PatientId, Asked>>,
    shown: IntCounter,
    /// The commit thread was found not to wait after it had begun to so often.
    unattended: Option<u64>,
    /// It stands still.
    stands: bool,
}

impl Lookout {
    /// Runs until `stop`. Not on the commit thread's runtime.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(looks.tick()).await.is_some() {
            self.look();
        }
    }

    /// Shows what waits, where the commit thread has not come back since the last look.
    fn look(&mut self) {
        let policy = Arc::clone(&self.policy.borrow());
        let window = Arc::clone(&self.window);
        let window = &mut *lock(&window);
        let unattended = (!window.is_attended).then_some(window.attended);
        let stands = unattended.is_some() && self.unattended == unattended;
        self.unattended = unattended;
        let is_news = stands && !std::mem::replace(&mut self.stands, stands);
        if !stands {
            return;
        }
        if is_news {
            warn!("the disk is slow; the watch is shown what waits for it");
        }
        // What the thread showed before it came to stand.
        self.tap.offer();
        window.gathered.take(&mut window.intake, Duration::ZERO);
        for publish in window.gathered.batch.iter().skip(window.gathered.shown) {
            self.show(publish, &policy);
        }
        window.gathered.shown = window.gathered.batch.len();
        self.tap.offer();
    }

    fn show(&self, publish: &Inbound, policy: &VerifiedPolicy) {
        self.shown.inc();
        match admit(publish, policy) {
            Admission::Readings(patient, readings) if !self.erased.borrow().contains_key(&patient) => {
                readings.iter().for_each(|(class, reading)| self.tap.reading(patient, *class, reading));
            }
            Admission::Quarantine(_, IMPLAUSIBLE, _) => {
                let patient = policy.patient_of(&publish.device);
                patient.into_iter().for_each(|patient| self.tap.implausible(patient, &publish.device));
            }
            Admission::Readings(..) | Admission::About(_) | Admission::Quarantine(..) => {}
        }
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
    const LONG: Duration = Duration::from_secs(3600);

    fn publish(leaf: &str) -> Inbound {
        Inbound {
            device: DeviceId::new("monitor-1").unwrap(),
            topic: format!("vitals/v1/monitor-1/{leaf}"),
            payload: Bytes::new(),
            received_us: 0,
            verdict: oneshot::channel().0,
        }
    }

    fn front() -> (Inlet, Front) {
        let (inlet, intake) = ingest::queue();
        (inlet, Front::new(intake))
    }

    async fn is_over(front: &Front) -> bool {
        tokio::time::timeout(Duration::from_millis(1), front.over()).await.is_ok()
    }

    fn push(front: &Front, leaf: &str, linger: Duration) {
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

    #[tokio::test]
    async fn who_comes_back_between_two_looks_is_left_alone_and_who_stands_still_is_not() {
        let (inlet, front) = front();
        let (dropped, shown) =
            (IntCounter::new("dropped", "dropped").unwrap(), IntCounter::new("shown", "shown").unwrap());
        let policy = watch::channel(Arc::new(VerifiedPolicy::none())).1;
        let erased = watch::channel(BTreeMap::new()).1;
        let mut lookout = front.lookout(Tap::new(dropped).0, policy, erased, shown.clone());
        let send = async || inlet.of(Lane::Vitals).send(publish("num/heart-rate")).await.unwrap();
        let mut look = |times: usize| {
            (0..times).for_each(|_| lookout.look());
            shown.get()
        };
        front.attend(true);
        send().await;
        assert_eq!(look(3), 0, "it waits, and takes what comes");
        front.leave();
        assert_eq!(look(1), 0);
        front.attend(true);
        front.leave();
        assert_eq!(look(1), 0, "it was back meanwhile");
        assert_eq!(look(1), 1);
        send().await;
        assert_eq!(look(2), 2, "each once");
        let Taken { batch, shown } = front.gathered();
        assert_eq!((batch.len(), shown), (2, 2));
        // Also one that waits for the disk, with no room for more.
        front.attend(false);
        send().await;
        assert_eq!(look(2), 3);
        assert!(front.attend(true).over, "what was gathered for it is not forgotten");
    }
}
