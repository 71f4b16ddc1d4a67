//! Of which class a device's readings are where the patient says another than the code table: sensitivity by context.
//!
//! Rules are part of the device's commitment, and so of the binding that the patient signs: other rules are another commitment, which
//! nobody but the patient binds ([`Classes::to_bytes`], ADR 47). Alarms are of their own class whatever a rule says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::Error as _};
use thiserror::Error;

use crate::code::{self, Quantity};
use crate::id::DataClass;

/// What stands for all of a device's quantities that no rule names.
pub const WHOLE: &str = "all";
/// Its number in the commitment, where a quantity has its row's; no row has it.
const WHOLE_NUMBER: u16 = 0;
/// Bytes of one rule in the commitment.
const RULE_BYTES: usize = 3;

/// Not a rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ClassesError {
    /// No row of the code table has this name.
    #[error("`{0}` is no quantity")]
    Quantity(String),
    /// No such class.
    #[error("`{0}` is no class: vitals, waveform, activity or sensitive")]
    Class(String),
    /// The quantity is an alarm.
    #[error("`{0}` is an alarm, and stays one: whoever may see alarms must get it")]
    Alarm(&'static str),
    /// What is to be an alarm is none.
    #[error("alarms are not made by rules: a reading is vitals, waveform, activity or sensitive")]
    IntoAlarm,
    /// Not what [`Classes::to_bytes`] writes.
    #[error("rules are {RULE_BYTES} bytes each, in rising order")]
    Bytes,
}

/// A device's rules, each quantity once: at most one for each row of the code table, and one for the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Classes {
    /// By row number. Invariants: no row is an alarm, and no class is.
    rules: BTreeMap<u16, DataClass>,
}

impl Classes {
    /// Says of which class a quantity is, or with none all that no rule names; without a class the rule goes.
    ///
    /// # Errors
    /// [`ClassesError::Alarm`] or [`ClassesError::IntoAlarm`]; nothing is changed then.
    pub fn set(
        &mut self,
        quantity: Option<&'static Quantity>,
        class: Option<DataClass>,
    ) -> Result<(), ClassesError> {
        if let Some(row) = quantity.filter(|row| row.class == DataClass::Alarm) {
            return Err(ClassesError::Alarm(row.name));
        }
        let number = quantity.map_or(WHOLE_NUMBER, |row| row.number);
        match class {
            Some(DataClass::Alarm) => return Err(ClassesError::IntoAlarm),
            Some(class) => drop(self.rules.insert(number, class)),
            None => drop(self.rules.remove(&number)),
        }
        Ok(())
    }

    /// The class of a quantity of this device, by its row number: an alarm's is alarm; else that of its rule; else that of the rule for the
    /// rest; else the table's. One that the table does not know is kept most closely.
    #[must_use]
    pub fn class_of(&self, quantity: u16) -> DataClass {
        match code::by_number(quantity).map_or(DataClass::Sensitive, |row| row.class) {
            DataClass::Alarm => DataClass::Alarm,
            class
            @ (DataClass::Vitals | DataClass::Waveform | DataClass::Activity | DataClass::Sensitive) => {
                let rule = self.rules.get(&quantity).or_else(|| self.rules.get(&WHOLE_NUMBER));
                rule.copied().unwrap_or(class)
            }
        }
    }

    /// Whether the table alone counts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// How many rules there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Each rule by its quantity's name, or [`WHOLE`].
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, DataClass)> + '_ {
        self.rules.iter().filter_map(|(number, class)| {
            let name = if *number == WHOLE_NUMBER { WHOLE } else { code::by_number(*number)?.name };
            Some((name, *class))
        })
    }

    /// As in the commitment: row number (2 bytes, big-endian; 0 for the rest) and class (1 byte) of each rule, by rising number. Nothing where
    /// there is no rule.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.rules
            .iter()
            .flat_map(|(number, class)| {
                let [high, low] = number.to_be_bytes();
                [high, low, *class as u8]
            })
            .collect()
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`ClassesError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ClassesError> {
        let mut classes = Self::default();
        let mut before = None;
        let (rules, rest) = bytes.as_chunks::<RULE_BYTES>();
        if !rest.is_empty() {
            return Err(ClassesError::Bytes);
        }
        for [high, low, class] in rules {
            let number = u16::from_be_bytes([*high, *low]);
            if before.is_some_and(|before| number <= before) {
                return Err(ClassesError::Bytes);
            }
            before = Some(number);
            let row = (number != WHOLE_NUMBER)
                .then(|| code::by_number(number).ok_or_else(|| ClassesError::Quantity(number.to_string())))
                .transpose()?;
            let class = DataClass::from_u8(*class).ok_or_else(|| ClassesError::Class(class.to_string()))?;
            classes.set(row, Some(class))?;
        }
        Ok(classes)
    }
}

impl Serialize for Classes {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(self.iter().map(|(name, class)| (name, class.as_str())))
    }
}

impl<'de> Deserialize<'de> for Classes {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let mut classes = Self::default();
        for (name, class) in BTreeMap::<String, String>::deserialize(d)? {
            let row = quantity(&name).map_err(D::Error::custom)?;
            let class =
                DataClass::from_name(&class).ok_or_else(|| D::Error::custom(ClassesError::Class(class)))?;
            classes.set(row, Some(class)).map_err(D::Error::custom)?;
        }
        Ok(classes)
    }
}

/// The quantity of a rule by its name; none for [`WHOLE`].
///
/// # Errors
/// [`ClassesError::Quantity`].
pub fn quantity(name: &str) -> Result<Option<&'static Quantity>, ClassesError> {
    if name == WHOLE {
        return Ok(None);
    }
    code::by_name(name).map(Some).ok_or_else(|| ClassesError::Quantity(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::code::QUANTITIES;

    fn row(name: &str) -> Option<&'static Quantity> {
        Some(code::by_name(name).unwrap())
    }

    fn class_of(classes: &Classes, name: &str) -> DataClass {
        classes.class_of(code::by_name(name).unwrap().number)
    }

    #[test]
    fn a_rule_goes_before_the_rest_and_the_rest_before_the_table() {
        let mut classes = Classes::default();
        assert_eq!(class_of(&classes, "heart-rate"), DataClass::Vitals);
        assert_eq!(class_of(&classes, "glucose"), DataClass::Sensitive);
        classes.set(None, Some(DataClass::Sensitive)).unwrap();
        classes.set(row("spo2"), Some(DataClass::Vitals)).unwrap();
        for (name, class) in [
            ("heart-rate", DataClass::Sensitive),
            ("ecg-ii", DataClass::Sensitive),
            ("walk", DataClass::Sensitive),
            ("spo2", DataClass::Vitals),
        ] {
            assert_eq!(class_of(&classes, name), class, "{name}");
        }
        assert_eq!(classes.class_of(9999), DataClass::Sensitive, "nobody knows what it is");
        classes.set(None, None).unwrap();
        assert_eq!(class_of(&classes, "heart-rate"), DataClass::Vitals);
        assert_eq!(classes.iter().collect::<Vec<_>>(), [("spo2", DataClass::Vitals)]);
    }

    #[test]
    fn alarms_are_neither_moved_nor_made() {
        let mut classes = Classes::default();
        classes.set(None, Some(DataClass::Sensitive)).unwrap();
        for alarm in QUANTITIES.iter().filter(|row| row.class == DataClass::Alarm) {
            let refused = classes.set(Some(alarm), Some(DataClass::Sensitive));
            assert_eq!(refused, Err(ClassesError::Alarm(alarm.name)));
            assert_eq!(classes.class_of(alarm.number), DataClass::Alarm);
        }
        let refused = classes.set(row("heart-rate"), Some(DataClass::Alarm));
        assert_eq!(refused, Err(ClassesError::IntoAlarm));
        assert_eq!(classes.len(), 1);
    }

    #[test]
    fn a_file_names_what_it_does_not_know() {
        let read = |text: &str| serde_json::from_str::<Classes>(text).map_err(|error| error.to_string());
        let classes = read(r#"{"all":"sensitive","heart-rate":"vitals"}"#).unwrap();
        assert_eq!(serde_json::to_string(&classes).unwrap(), r#"{"all":"sensitive","heart-rate":"vitals"}"#);
        for (text, said) in [
            (r#"{"heart":"vitals"}"#, "`heart` is no quantity"),
            (r#"{"spo2":"secret"}"#, "`secret` is no class"),
            (r#"{"fall":"sensitive"}"#, "`fall` is an alarm"),
            (r#"{"spo2":"alarm"}"#, "alarms are not made by rules"),
        ] {
            assert!(read(text).unwrap_err().contains(said), "{text}");
        }
    }

    #[test]
    fn bytes_are_what_the_commitment_has_and_nothing_else_is_read() {
        let mut classes = Classes::default();
        classes.set(row("heart-rate"), Some(DataClass::Sensitive)).unwrap();
        classes.set(row("ecg-ii"), Some(DataClass::Vitals)).unwrap();
        classes.set(None, Some(DataClass::Activity)).unwrap();
        let bytes = [0, 0, 3, 0, 1, 4, 1, 2, 1];
        assert_eq!(classes.to_bytes(), bytes);
        assert_eq!(Classes::from_bytes(&bytes), Ok(classes));
        for wrong in [
            &[0, 1][..],
            &[0, 1, 4, 0, 1, 3],
            &[0, 1, 4, 0, 0, 3],
            &[0, 1, 0],
            &[0, 1, 9],
            &[2, 1, 4],
            &[0, 99, 4],
        ] {
            assert!(Classes::from_bytes(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(Classes::from_bytes(&[]), Ok(Classes::default()));
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(classes) = Classes::from_bytes(&bytes) {
                prop_assert_eq!(classes.to_bytes(), bytes);
            }
        }
    }
}
