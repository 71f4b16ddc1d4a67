//! What can be measured: one table of quantities with their codes, units and plausible ranges.
//!
//! A quantity's row number goes into sealed segments, so a number, once given, keeps its meaning for ever; new rows
//! take new numbers. Names are those of the MQTT topics. Units are UCUM. A device may send another unit where a
//! conversion is listed; what it sends without one is in the row's own unit.
//!
//! Sources: LOINC, MDC (IEEE 11073-10101) and UCUM after this project's clinical reference, November 2026. A code marked
//! † is not confirmed against the standard's own text. The ranges are wider than physiology: they keep out what no
//! sensor on a person can mean, they are no alarm limits. Conversions: NIST SP 811 (2008) appendix B; glucose by its
//! molar mass, 180.156 g/mol (PubChem CID 5793).

use crate::id::DataClass;

/// What kind of reading carries a quantity, and so under which part of the topic tree it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One number: `num/{name}`.
    Numeric,
    /// Evenly spaced samples: `wave/{name}`.
    Waveform,
    /// Something that happened: `event/{name}`.
    Event,
}

impl Kind {
    /// What its names are called in messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Numeric => "metric",
            Self::Waveform => "channel",
            Self::Event => "event type",
        }
    }
}

/// A unit that a device may send: `value in the row's unit = factor * sent + offset`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Accepted {
    /// UCUM, SenML (RFC 8428 §12.1, RFC 8798) or a spelling that devices use.
    pub unit: &'static str,
    /// Units of the row per unit sent.
    pub factor: f64,
    /// In units of the row.
    pub offset: f64,
}

/// One row of the table.
#[derive(Debug, PartialEq)]
pub struct Quantity {
    /// The row's number in `reading::Value`, stable for ever.
    pub number: u16,
    /// The metric, channel or event type as in topics.
    pub name: &'static str,
    /// What carries it.
    pub kind: Kind,
    /// What consent calls it.
    pub class: DataClass,
    /// For people, in English.
    pub display: &'static str,
    /// LOINC codes, the preferred one first; empty where the quantity is coded by MDC alone.
    pub loinc: &'static [&'static str],
    /// MDC code (IEEE 11073-10101, partition << 16 | term).
    pub mdc: Option<u32>,
    /// UCUM unit; none for events.
    pub unit: Option<&'static str>,
    /// Least and greatest plausible value in that unit, for numerics.
    pub range: Option<(f64, f64)>,
    /// Other units that are converted, and other spellings of the same one.
    pub accepted: &'static [Accepted],
}

impl Quantity {
    /// How to convert from this unit, if it is known for the quantity. Linear, as the fields of [`Accepted`] say.
    #[must_use]
    pub fn accepts(&self, unit: &str) -> Option<Accepted> {
        match self.unit {
            Some(own) if own == unit => Some(Accepted { unit: own, factor: 1.0, offset: 0.0 }),
            Some(_) | None => self.accepted.iter().copied().find(|a| a.unit == unit),
        }
    }

    /// The value in the row's own unit, if `unit` is known for the quantity.
    #[must_use]
    pub fn convert(&self, value: f64, unit: &str) -> Option<f64> {
        self.accepts(unit).map(|a| a.factor * value + a.offset)
    }

    /// Whether a value in the row's own unit is finite and, for numerics, within the plausible range.
    #[must_use]
    pub fn is_plausible(&self, value: f64) -> bool {
        value.is_finite() && self.range.is_none_or(|(min, max)| (min..=max).contains(&value))
    }
}

/// The row with this topic name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Quantity> {
    QUANTITIES.iter().find(|q| q.name == name)
}

/// The row with this number.
#[must_use]
pub fn by_number(number: u16) -> Option<&'static Quantity> {
    QUANTITIES.iter().find(|q| q.number == number)
}

const fn same(unit: &'static str) -> Accepted {
    Accepted { unit, factor: 1.0, offset: 0.0 }
}

const fn times(unit: &'static str, factor: f64) -> Accepted {
    Accepted { unit, factor, offset: 0.0 }
}

/// `beat/min` and `Hz` are SenML's, `beats/min` is Open mHealth's.
const BEATS: &[Accepted] = &[
    same("beat/min"),
    same("beats/min"),
    same("{beats}/min"),
    same("{beat}/min"),
    same("bpm"),
    same("1/min"),
    times("Hz", 60.0),
];
const BREATHS: &[Accepted] = &[
    same("breaths/min"),
    same("{breaths}/min"),
    same("{breath}/min"),
    same("1/min"),
    same("bpm"),
    times("Hz", 60.0),
];
/// A ratio is `1` in UCUM and `/` in SenML.
const RATIO: &[Accepted] = &[times("1", 100.0), times("/", 100.0)];
/// 1 `mm[Hg]` is 133.322 387 415 Pa.
const PRESSURE: &[Accepted] =
    &[same("mmHg"), times("kPa", 1000.0 / 133.322_387_415), times("Pa", 1.0 / 133.322_387_415)];
/// t/°C = (t/°F − 32) × 5/9.
const FAHRENHEIT: Accepted = Accepted { unit: "[degF]", factor: 5.0 / 9.0, offset: -160.0 / 9.0 };
const TEMPERATURE: &[Accepted] = &[
    same("°C"),
    same("degC"),
    same("C"),
    FAHRENHEIT,
    Accepted { unit: "degF", ..FAHRENHEIT },
    Accepted { unit: "F", ..FAHRENHEIT },
    Accepted { unit: "°F", ..FAHRENHEIT },
    Accepted { unit: "K", factor: 1.0, offset: -273.15 },
];
/// The avoirdupois pound is exactly 0.453 592 37 kg.
const MASS: &[Accepted] = &[times("g", 0.001), times("[lb_av]", 0.453_592_37), times("lb", 0.453_592_37)];
/// 1 mmol of glucose is 180.156 mg.
const GLUCOSE: &[Accepted] = &[times("mmol/L", 18.0156)];
/// `count` is SenML's.
const STEPS: &[Accepted] = &[same("1"), same("count"), same("steps")];
/// The micro sign (U+00B5) besides UCUM's `u`.
const POTENTIAL: &[Accepted] = &[times("uV", 0.001), times("µV", 0.001), times("V", 1000.0)];
/// Plethysmograms have no physical unit; monitors write NU.
const UNITLESS: &[Accepted] = &[same("/"), same("NU"), times("%", 0.01)];
const IMPEDANCE: &[Accepted] = &[times("mOhm", 0.001)];

const fn numeric(
    number: u16,
    name: &'static str,
    display: &'static str,
    (loinc, mdc): (&'static [&'static str], Option<u32>),
    (unit, accepted): (&'static str, &'static [Accepted]),
    range: (f64, f64),
) -> Quantity {
    Quantity {
        number,
        name,
        kind: Kind::Numeric,
        class: DataClass::Vitals,
        display,
        loinc,
        mdc,
        unit: Some(unit),
        range: Some(range),
        accepted,
    }
}

const fn wave(
    number: u16,
    name: &'static str,
    display: &'static str,
    mdc: Option<u32>,
    (unit, accepted): (&'static str, &'static [Accepted]),
) -> Quantity {
    Quantity {
        number,
        name,
        kind: Kind::Waveform,
        class: DataClass::Waveform,
        display,
        loinc: &[],
        mdc,
        unit: Some(unit),
        range: None,
        accepted,
    }
}

const fn event(number: u16, name: &'static str, display: &'static str, mdc: Option<u32>) -> Quantity {
    Quantity {
        number,
        name,
        kind: Kind::Event,
        class: DataClass::Alarm,
        display,
        loinc: &[],
        mdc,
        unit: None,
        range: None,
        accepted: &[],
    }
}

/// All quantities: numerics from 1, waveforms from 257, events from 513.
pub static QUANTITIES: [Quantity; 26] = [
    // 0 is a heart rate that means something: asystole.
    numeric(1, "heart-rate", "Heart rate", (&["8867-4"], Some(147_842)), ("/min", BEATS), (0.0, 350.0)),
    // By SpO2; by cuff it would be MDC 149546.
    numeric(2, "pulse-rate", "Pulse rate", (&["8867-4"], Some(149_530)), ("/min", BEATS), (0.0, 350.0)),
    numeric(3, "spo2", "SpO2", (&["2708-6", "59408-5"], Some(150_456)), ("%", RATIO), (1.0, 100.0)),
    // By impedance; 0 is apnoea.
    numeric(
        4,
        "respiratory-rate",
        "Respiratory rate",
        (&["9279-1"], Some(151_562)),
        ("/min", BREATHS),
        (0.0, 150.0),
    ),
    numeric(
        5,
        "systolic",
        "Systolic blood pressure",
        (&["8480-6"], Some(150_021)),
        ("mm[Hg]", PRESSURE),
        (20.0, 350.0),
    ),
    numeric(
        6,
        "diastolic",
        "Diastolic blood pressure",
        (&["8462-4"], Some(150_022)),
        ("mm[Hg]", PRESSURE),
        (5.0, 250.0),
    ),
    numeric(
        7,
        "mean-pressure",
        "Mean blood pressure",
        (&["8478-0"], Some(150_023)),
        ("mm[Hg]", PRESSURE),
        (10.0, 300.0),
    ),
    // The lowest survived core temperature was below 14 °C.
    numeric(
        8,
        "temperature",
        "Body temperature",
        (&["8310-5"], Some(150_364)),
        ("Cel", TEMPERATURE),
        (10.0, 46.0),
    ),
    Quantity {
        class: DataClass::Sensitive,
        ..numeric(9, "weight", "Body weight", (&["29463-7"], Some(188_736)), ("kg", MASS), (0.2, 650.0))
    },
    // Capillary; a continuous monitor's would be MDC 160212, LOINC in mmol/L 14743-9†.
    Quantity {
        class: DataClass::Sensitive,
        ..numeric(10, "glucose", "Glucose", (&["41653-7"], Some(160_184)), ("mg/dL", GLUCOSE), (5.0, 2000.0))
    },
    numeric(11, "perfusion-index", "Perfusion index", (&[], Some(150_448)), ("%", RATIO), (0.0, 100.0)),
    // A running counter.
    Quantity {
        class: DataClass::Activity,
        ..numeric(12, "steps", "Steps", (&["55423-8"], None), ("{steps}", STEPS), (0.0, 10_000_000.0))
    },
    wave(257, "ecg-i", "ECG lead I", Some(131_329), ("mV", POTENTIAL)),
    wave(258, "ecg-ii", "ECG lead II", Some(131_330), ("mV", POTENTIAL)),
    wave(259, "ecg-iii", "ECG lead III", Some(131_389), ("mV", POTENTIAL)),
    wave(260, "ecg-v1", "ECG lead V1", Some(131_331), ("mV", POTENTIAL)),
    // †
    wave(261, "ecg-v5", "ECG lead V5", Some(131_335), ("mV", POTENTIAL)),
    // † A chest lead whose place the recording does not say.
    wave(262, "ecg-v", "ECG lead V", Some(131_415), ("mV", POTENTIAL)),
    // † Modified limb lead, about lead II.
    wave(263, "ecg-mlii", "ECG lead MLII", Some(131_454), ("mV", POTENTIAL)),
    wave(264, "pleth", "Plethysmogram", Some(150_452), ("1", UNITLESS)),
    // †
    wave(265, "abp", "Arterial blood pressure", Some(150_036), ("mm[Hg]", PRESSURE)),
    // † Thoracic impedance.
    wave(266, "resp", "Respiration", Some(151_780), ("Ohm", IMPEDANCE)),
    event(513, "fall", "Fall", Some(8_519_681)),
    event(514, "button", "Call button", None),
    event(515, "leads-off", "Leads off", None),
    Quantity { class: DataClass::Activity, ..event(516, "walk", "Walking", Some(8_455_161)) },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::id::StreamName;

    #[test]
    fn names_and_numbers_are_unique_and_found() {
        let names: BTreeSet<_> = QUANTITIES.iter().map(|q| q.name).collect();
        let numbers: BTreeSet<_> = QUANTITIES.iter().map(|q| q.number).collect();
        assert_eq!((names.len(), numbers.len()), (QUANTITIES.len(), QUANTITIES.len()));
        for q in &QUANTITIES {
            assert_eq!(by_name(q.name), Some(q));
            assert_eq!(by_number(q.number), Some(q));
            assert_eq!(StreamName::new(q.name).unwrap().as_str(), q.name);
            assert_eq!(q.kind == Kind::Numeric, q.range.is_some(), "{}", q.name);
            assert_eq!(q.kind == Kind::Event, q.unit.is_none(), "{}", q.name);
        }
        assert_eq!((by_name("heart"), by_number(0)), (None, None));
    }

    /// The numbers are in segments that were sealed long ago.
    #[test]
    fn numbers_never_change() {
        let pinned = [
            (1, "heart-rate"),
            (2, "pulse-rate"),
            (3, "spo2"),
            (4, "respiratory-rate"),
            (5, "systolic"),
            (6, "diastolic"),
            (7, "mean-pressure"),
            (8, "temperature"),
            (9, "weight"),
            (10, "glucose"),
            (11, "perfusion-index"),
            (12, "steps"),
            (257, "ecg-i"),
            (258, "ecg-ii"),
            (259, "ecg-iii"),
            (260, "ecg-v1"),
            (261, "ecg-v5"),
            (262, "ecg-v"),
            (263, "ecg-mlii"),
            (264, "pleth"),
            (265, "abp"),
            (266, "resp"),
            (513, "fall"),
            (514, "button"),
            (515, "leads-off"),
            (516, "walk"),
        ];
        assert_eq!(QUANTITIES.each_ref().map(|q| (q.number, q.name)), pinned);
    }

    #[test]
    fn classes_follow_consent() {
        let class = |name| by_name(name).unwrap().class;
        assert_eq!(class("glucose"), DataClass::Sensitive);
        assert_eq!(class("weight"), DataClass::Sensitive);
        assert_eq!(class("steps"), DataClass::Activity);
        assert_eq!(class("walk"), DataClass::Activity);
        assert_eq!(class("fall"), DataClass::Alarm);
        assert_eq!(class("ecg-ii"), DataClass::Waveform);
        assert_eq!(class("spo2"), DataClass::Vitals);
    }

    #[test]
    fn conversions_meet_known_points() {
        let cases = [
            ("temperature", 98.6, "[degF]", 37.0),
            ("temperature", 310.15, "K", 37.0),
            ("glucose", 5.5, "mmol/L", 99.0858),
            ("systolic", 16.0, "kPa", 120.009_852_1),
            ("weight", 150.0, "lb", 68.038_855_5),
            ("weight", 3400.0, "g", 3.4),
            ("spo2", 0.97, "1", 97.0),
            ("heart-rate", 1.2, "Hz", 72.0),
            ("ecg-ii", 1500.0, "uV", 1.5),
            ("heart-rate", 72.0, "/min", 72.0),
        ];
        for (name, sent, unit, expected) in cases {
            let got = by_name(name).unwrap().convert(sent, unit).unwrap();
            assert!((got - expected).abs() < 1e-6, "{name}: {sent} {unit} gave {got}");
        }
        assert_eq!(by_name("heart-rate").unwrap().convert(72.0, "%"), None);
        assert_eq!(by_name("fall").unwrap().convert(1.0, "1"), None);
    }

    #[test]
    fn plausibility_has_closed_ends_and_refuses_what_is_no_number() {
        let spo2 = by_name("spo2").unwrap();
        assert!(spo2.is_plausible(1.0) && spo2.is_plausible(100.0));
        assert!(!spo2.is_plausible(100.1) && !spo2.is_plausible(0.0));
        assert!(!spo2.is_plausible(f64::NAN) && !by_name("pleth").unwrap().is_plausible(f64::INFINITY));
    }
}
