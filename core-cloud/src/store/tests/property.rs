//! Any interleaving of wraps, segments and restarts.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// One step of a property: a segment, or a wrap of a node for one of three recipients.
#[derive(Debug, Clone)]
enum Step {
    Segment(Name),
    /// Sealed anew, or one that came before `again`.
    Wrap {
        generation: u32,
        node: (u32, u8),
        to: u8,
        again: bool,
    },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let epoch = EPOCH..EPOCH + 8;
    let segment = (0_u32..2, epoch.clone(), 0_u64..24)
        .prop_map(|(generation, epoch, sequence)| Step::Segment(Name { generation, epoch, sequence }));
    let wrap =
        (0_u32..2, epoch, 0_u8..4, 0_u8..3, any::<bool>()).prop_map(|(generation, epoch, up, to, again)| {
            let first = epoch >> up << up;
            Step::Wrap { generation, node: (first, TREE_DEPTH - up), to, again }
        });
    proptest::collection::vec(prop_oneof![6 => segment, 4 => wrap, 1 => Just(Step::Restart)], 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn each_queue_is_exactly_what_its_recipient_can_open(steps in steps(), batch in 1_usize..6) {
        check(Kind::Embedded, &steps, batch)?;
    }
}

#[cfg(feature = "nats")]
proptest! {
    // A stream each, synced at each step.
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn each_queue_is_exactly_what_its_recipient_can_open_on_a_stream(steps in steps(), batch in 1_usize..6) {
        check(Kind::JetStream, &steps, batch)?;
    }
}

/// Generation, node and recipient of a wrap.
type Given = (u32, (u32, u8), u8);

/// A wrap, and what is to become of it: the first that was made, `again`, or one that is sealed anew.
fn wrap_again(sealed: &mut Vec<Vec<u8>>, (generation, node, to): Given, again: bool) -> (Vec<u8>, Outcome) {
    if let (true, Some(first)) = (again, sealed.first()) {
        return (first.clone(), Outcome::Known);
    }
    let record = wrap_of(1, DataClass::Vitals, generation, node, to);
    sealed.push(record.clone());
    (record, Outcome::Stored)
}

/// In whatever order wraps and segments come and however they are batched, each recipient's queue ends as exactly the
/// segments that it can open, each once, and none before a wrap that opens it.
fn check(kind: Kind, steps: &[Step], batch: usize) -> Result<(), TestCaseError> {
    let mut world = World::new(kind);
    let mut taken: BTreeMap<u64, Name> = BTreeMap::new();
    let mut wraps: BTreeMap<Given, Vec<Vec<u8>>> = BTreeMap::new();
    let mut records = Vec::new();
    for step in steps {
        match step {
            Step::Segment(name) => {
                let fork = taken.get(&name.sequence).is_some_and(|first| first != name);
                let known = taken.contains_key(&name.sequence);
                taken.entry(name.sequence).or_insert(*name);
                let outcome = match (known, fork) {
                    (_, true) => Outcome::Refused(Refusal::Fork),
                    (true, false) => Outcome::Known,
                    (false, false) => Outcome::Stored,
                };
                records.push((segment_of(1, DataClass::Vitals, *name, b"x"), outcome));
            }
            Step::Wrap { generation, node, to, again } => {
                let sealed = wraps.entry((*generation, *node, *to)).or_default();
                records.push(wrap_again(sealed, (*generation, *node, *to), *again));
            }
            Step::Restart => {}
        }
    }
    for (nth, part) in records.chunks(batch).enumerate() {
        let (bytes, expected): (Vec<_>, Vec<_>) = part.iter().cloned().unzip();
        prop_assert_eq!(world.store().put(&bytes).unwrap(), expected);
        if matches!(steps.get(nth), Some(Step::Restart)) {
            world = world.reopened();
        }
    }
    for to in 0..3 {
        let opens = |held: &BTreeSet<Given>, name: &Name| {
            held.iter().any(|(generation, (first, depth), holder)| {
                let node = TreeNode::new(*first, *depth, [0; 32]).unwrap();
                *holder == to
                    && *generation == name.generation
                    && (node.first()..=node.last()).contains(&name.epoch)
            })
        };
        let (mut held, mut told, mut seen) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for record in world.queue(to) {
            match Record::decode(&record).unwrap() {
                Record::Wrap(wrap) => {
                    prop_assert_eq!(wrap.recipient, recipient(to));
                    held.insert((wrap.generation, (wrap.epoch, wrap.depth), to));
                    prop_assert!(told.insert(record.clone()), "a wrap twice");
                }
                Record::Segment(segment) => {
                    let h = &segment.header;
                    let name = Name { generation: h.generation, epoch: h.epoch, sequence: h.sequence };
                    prop_assert!(opens(&held, &name), "a segment before its wrap");
                    prop_assert!(seen.insert(name), "a segment twice");
                }
                Record::Head(_) | Record::Gap(_) | Record::Tokens(_) => {
                    prop_assert!(false, "nobody made one")
                }
            }
        }
        let to_it = wraps.iter().filter(|((_, _, holder), _)| *holder == to);
        prop_assert_eq!(told, to_it.flat_map(|(_, sealed)| sealed.iter().cloned()).collect());
        let all = wraps.keys().copied().collect();
        let expected: BTreeSet<Name> = taken.values().filter(|name| opens(&all, name)).copied().collect();
        prop_assert_eq!(seen, expected);
    }
    Ok(())
}
