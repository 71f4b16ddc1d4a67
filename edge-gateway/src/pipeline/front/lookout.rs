//! Who looks out while the commit thread stands still, and shows the watch what comes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caregate_protocol::id::PatientId;
use caregate_protocol::policy::VerifiedPolicy;
use prometheus::IntCounter;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Window, lock};
use crate::ingest::Inbound;
use crate::keys::erasures::Asked;
use crate::pipeline::admit::{Admission, IMPLAUSIBLE, admit};
use crate::watch::Tap;

/// How often it is looked whether the commit thread stands still, which it does when two looks in a row have found it so: an alarm is half a
/// second late at most, as where it waits for being kept (`watch/thread.rs`).
const LOOK_EVERY: Duration = Duration::from_millis(250);

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
    pub(super) fn new(
        window: Arc<Mutex<Window>>,
        tap: Tap,
        policy: watch::Receiver<Arc<VerifiedPolicy>>,
        erased: watch::Receiver<BTreeMap<PatientId, Asked>>,
        shown: IntCounter,
    ) -> Self {
        Self { window, tap, policy, erased, shown, unattended: None, stands: false }
    }

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
        let stood = std::mem::replace(&mut self.stands, stands);
        if !stands {
            return;
        }
        if !stood {
            warn!("the disk is slow; the watch is shown what waits for it");
        }
        // What the thread showed before it came to stand.
        self.tap.offer();
        let Window { gathered, intake, .. } = window;
        gathered.take(intake, Duration::ZERO);
        gathered.take_alarms(intake);
        let shown = gathered.batch.iter().skip(gathered.shown.len());
        let shown: Vec<_> = shown.map(|publish| self.show(publish, &policy)).collect();
        gathered.shown.extend(shown);
        self.tap.offer();
    }

    /// As whose it was shown, if it was.
    fn show(&self, publish: &Inbound, policy: &VerifiedPolicy) -> Option<PatientId> {
        let patient = match admit(publish, policy) {
            Admission::Readings(patient, readings) if !self.erased.borrow().contains_key(&patient) => {
                readings.iter().for_each(|(class, reading)| self.tap.reading(patient, *class, reading));
                patient
            }
            Admission::Quarantine(_, IMPLAUSIBLE, _) => {
                let patient = policy.patient_of(&publish.device)?;
                self.tap.implausible(patient, &publish.device);
                patient
            }
            Admission::Readings(..) | Admission::About(_) | Admission::Quarantine(..) => return None,
        };
        self.shown.inc();
        Some(patient)
    }
}

#[cfg(test)]
mod tests {
    use caregate_protocol::id::{DeviceId, Lane};
    use caregate_protocol::policy::{Authentic, BoundDevice, Classes, Freshness};

    use super::*;
    use crate::pipeline::front::BATCH_MAX;
    use crate::pipeline::front::tests::{front, publish};

    const PATIENT: PatientId = PatientId([1; 16]);

    /// A policy by which the device is this patient's.
    fn worn_by(patient: PatientId) -> VerifiedPolicy {
        let device = DeviceId::new("monitor-1").unwrap();
        VerifiedPolicy::new(Authentic {
            epoch: 1,
            freshness: Freshness::Unproven,
            recipients: Vec::new(),
            devices: vec![BoundDevice { device, patient, classes: Classes::default(), station: None }],
            grants: Vec::new(),
            revocations: Vec::new(),
            emergencies: Vec::new(),
        })
    }

    #[tokio::test]
    async fn who_comes_back_between_two_looks_is_left_alone_and_who_stands_still_is_not() {
        let (inlet, front) = front();
        let (dropped, shown) =
            (IntCounter::new("dropped", "dropped").unwrap(), IntCounter::new("shown", "shown").unwrap());
        let (policies, policy) = watch::channel(Arc::new(worn_by(PATIENT)));
        let erased = watch::channel(BTreeMap::new()).1;
        let mut lookout = front.lookout(Tap::new(dropped).0, policy, erased, shown.clone());
        let beat = || Inbound { payload: "{\"v\":72}".into(), ..publish("num/heart-rate") };
        let send = async || inlet.of(Lane::Vitals).send(beat()).await.unwrap();
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
        let taken = front.gathered();
        assert_eq!((taken.batch.len(), taken.shown.len()), (2, 2));
        assert!((0..2).all(|at| taken.is_shown(at, PATIENT)));
        assert!(!taken.is_shown(1, PatientId([2; 16])) && !taken.is_shown(2, PATIENT));
        // Also one that waits for the disk, with no room for more.
        front.attend(false);
        send().await;
        assert_eq!(look(2), 3);
        assert!(front.attend(true).over, "what was gathered for it is not forgotten");
        // Under a policy that does not know the device nothing is shown, and the commit is not told otherwise.
        front.leave();
        policies.send_replace(Arc::new(VerifiedPolicy::none()));
        send().await;
        assert_eq!(look(2), 3);
        let taken = front.gathered();
        assert_eq!(taken.shown, [Some(PATIENT), None]);
        // An alarm is taken and shown though there is no room for more of anything else.
        policies.send_replace(Arc::new(worn_by(PATIENT)));
        for _ in 0..BATCH_MAX + 9 {
            send().await;
        }
        assert_eq!(look(1), 3 + u64::try_from(BATCH_MAX).unwrap());
        let fall = Inbound { payload: "{\"seq\":4}".into(), ..publish("event/fall") };
        inlet.of(Lane::Alarm).send(fall).await.unwrap();
        assert_eq!(look(1), 4 + u64::try_from(BATCH_MAX).unwrap());
    }
}
