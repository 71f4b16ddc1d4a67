//! The epoch keys in use. A leaf is 33 derivations below its patient's root and holds for a minute, while segments come many times
//! a second.

use std::collections::HashMap;

use caregate_protocol::id::{DataClass, PatientId};
use caregate_protocol::key::{PatientRoot, TREE_DEPTH, TreeNode};

use super::chains::CHAINS_MAX;

/// Of each chain, the leaf that was asked for last. A patient's root must stay the same for as long as this lives.
#[derive(Default)]
pub struct Leaves(HashMap<(PatientId, DataClass), (u32, TreeNode)>);

impl Leaves {
    /// The leaf of `epoch`; `None` where there is none.
    pub fn leaf(
        &mut self,
        root: &PatientRoot,
        (patient, class): (PatientId, DataClass),
        generation: u32,
        epoch: u32,
    ) -> Option<&TreeNode> {
        let chain = (patient, class);
        let is_held = |(of, leaf): &(u32, TreeNode)| *of == generation && leaf.first() == epoch;
        if !self.0.get(&chain).is_some_and(is_held) {
            let leaf = root.class_key(class, generation).descend(epoch, TREE_DEPTH)?;
            // As many as there are chains; those of patients that are gone make room all at once.
            if self.0.len() >= CHAINS_MAX {
                self.0.clear();
            }
            self.0.insert(chain, (generation, leaf));
        }
        self.0.get(&chain).map(|(_, leaf)| leaf)
    }
}

impl Leaves {
    /// Drops a patient's.
    pub fn forget(&mut self, patient: PatientId) {
        self.0.retain(|(of, _), _| *of != patient);
    }
}

impl std::fmt::Debug for Leaves {
    /// Without the keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Leaves").field(&self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_would_be_derived() {
        let root = PatientRoot::from_bytes([7; 32]);
        let mut leaves = Leaves::default();
        let asked = [
            (DataClass::Vitals, 0, 5),
            (DataClass::Vitals, 0, 5),
            (DataClass::Alarm, 0, 5),
            (DataClass::Vitals, 1, 5),
            (DataClass::Vitals, 1, 6),
            (DataClass::Vitals, 0, 5),
        ];
        for (class, generation, epoch) in asked {
            let derived = root.class_key(class, generation).descend(epoch, TREE_DEPTH).unwrap();
            let leaf = leaves.leaf(&root, (PatientId([1; 16]), class), generation, epoch).unwrap();
            assert_eq!((leaf.key(), leaf.first(), leaf.depth()), (derived.key(), epoch, TREE_DEPTH));
        }
        assert_eq!(leaves.0.len(), 2);
    }

    #[test]
    fn patients_who_are_gone_make_room() {
        let root = PatientRoot::from_bytes([7; 32]);
        let mut leaves = Leaves::default();
        for nth in 0..=u16::try_from(CHAINS_MAX).unwrap() {
            let mut patient = [0; 16];
            patient[..2].copy_from_slice(&nth.to_be_bytes());
            leaves.leaf(&root, (PatientId(patient), DataClass::Vitals), 0, 1).unwrap();
        }
        assert_eq!(leaves.0.len(), 1);
    }
}
