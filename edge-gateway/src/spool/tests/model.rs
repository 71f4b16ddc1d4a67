//! The log beside a model of it, through any sequence of calls.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use caregate_protocol::id::Lane;
use proptest::prelude::*;

use super::{directory, open, read, unacked};
use crate::spool::{Log, Recovery};

#[derive(Debug, Clone)]
enum Op {
    Append(Lane, Vec<u8>),
    Sync,
    Rotate,
    Ack(RangeInclusive<u64>),
    /// Drop and open again: as after a kill, what was appended and not synced is gone.
    Reopen,
    /// The next sync fails once.
    Fail,
}

fn op() -> impl Strategy<Value = Op> {
    let lane = prop::sample::select(Lane::ALL.to_vec());
    prop_oneof![
        8 => (lane, prop::collection::vec(any::<u8>(), 0..600)).prop_map(|(lane, bytes)| Op::Append(lane, bytes)),
        4 => Just(Op::Sync),
        1 => Just(Op::Rotate),
        3 => (0..150_u64, 0..40_u64).prop_map(|(from, n)| Op::Ack(from..=from + n)),
        1 => Just(Op::Reopen),
        1 => Just(Op::Fail),
    ]
}

#[derive(Default)]
struct Model {
    records: BTreeMap<u64, (Lane, Vec<u8>, bool)>,
    pending: Vec<(Lane, Vec<u8>)>,
    checkpoint: Option<Vec<u8>>,
    checkpoint_at: u64,
}

impl Model {
    fn next(&self) -> u64 {
        self.records.len() as u64 + 1
    }

    fn sync(&mut self) {
        for (lane, payload) in std::mem::take(&mut self.pending) {
            let position = self.next();
            self.records.insert(position, (lane, payload, false));
        }
    }

    fn unacked(&self) -> Vec<u64> {
        self.records.iter().filter(|(_, (_, _, acked))| !acked).map(|(p, _)| *p).collect()
    }

    fn check(&mut self, log: &Log) {
        assert_eq!(unacked(log), self.unacked());
        for position in self.unacked() {
            let (lane, payload, _) = &self.records[&position];
            assert_eq!(read(log, position), Some((*lane, payload.clone())));
        }
        assert_eq!(read(log, self.next()), None);
    }

    /// Acks that no sync has covered may be forgotten by a kill; nothing else may.
    fn reopened(&mut self, log: &Log, recovery: &Recovery) {
        assert!(recovery.torn.is_none() && recovery.damaged.is_empty(), "{recovery:?}");
        assert_eq!(recovery.checkpoint, self.checkpoint);
        let since: Vec<_> = self.records.range(self.checkpoint_at..).collect();
        assert_eq!(recovery.records.len(), since.len());
        for (found, (position, (lane, payload, _))) in recovery.records.iter().zip(since) {
            assert_eq!((found.position.0, found.lane, &found.payload), (*position, *lane, payload));
        }
        let back = unacked(log);
        assert!(self.unacked().iter().all(|p| back.contains(p)));
        for position in back {
            self.records.get_mut(&position).expect("a record that was synced").2 = false;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn the_log_does_what_the_model_does(ops in prop::collection::vec(op(), 1..120)) {
        let dir = directory();
        let (mut log, _) = open(dir.path());
        let mut model = Model::default();
        for op in ops {
            match op {
                Op::Append(lane, payload) => {
                    if log.rotation_due() {
                        model.rotate(&mut log);
                    }
                    let position = log.append(lane, &payload).unwrap().0;
                    prop_assert_eq!(position, model.next() + model.pending.len() as u64);
                    model.pending.push((lane, payload));
                }
                Op::Sync => {
                    log.sync().unwrap();
                    model.sync();
                }
                Op::Rotate => model.rotate(&mut log),
                Op::Ack(positions) => {
                    log.ack(positions.clone()).unwrap();
                    model.records.range_mut(positions).for_each(|(_, record)| record.2 = true);
                    // Whole files that go take a sync, and with it what is appended.
                    if log.stats().next.0 == model.next() + model.pending.len() as u64 && read(&log, model.next()).is_some() {
                        model.sync();
                    }
                }
                Op::Reopen => {
                    let failing = log.disk.faults.syncs.load(std::sync::atomic::Ordering::SeqCst);
                    drop(log);
                    model.pending.clear();
                    let (again, recovery) = open(dir.path());
                    log = again;
                    log.disk.faults.syncs.store(failing, std::sync::atomic::Ordering::SeqCst);
                    model.reopened(&log, &recovery);
                }
                Op::Fail if model.pending.is_empty() => {
                    log.append(Lane::Vitals, b"on a failing disk").unwrap();
                    model.pending.push((Lane::Vitals, b"on a failing disk".to_vec()));
                    log.disk.faults.syncs.store(1, std::sync::atomic::Ordering::SeqCst);
                    log.sync().unwrap();
                    model.sync();
                }
                Op::Fail => {}
            }
            model.check(&log);
        }
    }
}

impl Model {
    fn rotate(&mut self, log: &mut Log) {
        self.sync();
        let state = self.next().to_le_bytes().to_vec();
        log.rotate(&state).unwrap();
        (self.checkpoint, self.checkpoint_at) = (Some(state), self.next());
    }
}
