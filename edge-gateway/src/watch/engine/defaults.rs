//! The limits that hold until staff set others.
//!
//! Source: the defaults of a bedside monitor in wide use (Philips IntelliVue, instructions for use, "Default settings": adult, child,
//! neonate), as remembered in November 2026 and not held against the book; a site sets its own in `[watch.limits]`. Delays after the
//! clinical reference: 15 s on SpO2 took away 60 % of its alarms in one study, and 10 s is what such monitors have.
//!
//! Weight and glucose have none: consent gives them a class of their own, and an alarm is told to all who may see alarms.

use std::collections::BTreeMap;

use caregate_protocol::alarm::{Category, Limits};

/// Rows of the code table.
pub(super) const HEART_RATE: u16 = 1;
pub(super) const PULSE_RATE: u16 = 2;
pub(super) const SPO2: u16 = 3;
pub(super) const RESPIRATORY_RATE: u16 = 4;
pub(super) const SYSTOLIC: u16 = 5;
const DIASTOLIC: u16 = 6;
const MEAN_PRESSURE: u16 = 7;
pub(super) const TEMPERATURE: u16 = 8;

/// Below and above, each extreme and plain.
type Band = [Option<f64>; 4];

const fn limits([extreme_low, low, high, extreme_high]: Band, delay_s: u16, hysteresis: f64) -> Limits {
    Limits { low, high, extreme_low, extreme_high, delay_s, hysteresis }
}

/// A category's limits, by row number.
#[must_use]
pub fn limits_of(category: Category) -> BTreeMap<u16, Limits> {
    let quantities = HEART_RATE..=TEMPERATURE;
    quantities.filter_map(|quantity| Some((quantity, default_limits(category, quantity)?))).collect()
}

/// The same of one quantity: each reading asks.
pub(super) fn default_limits(category: Category, quantity: u16) -> Option<Limits> {
    let of = |adult: Band, child: Band, neonate: Band| match category {
        Category::Adult => adult,
        Category::Child => child,
        Category::Neonate => neonate,
    };
    let plain = |low: f64, high: f64| [None, Some(low), Some(high), None];
    let full = |a: f64, b: f64, c: f64, d: f64| [Some(a), Some(b), Some(c), Some(d)];
    let rate = || {
        of(full(40.0, 50.0, 120.0, 150.0), full(40.0, 75.0, 160.0, 200.0), full(50.0, 100.0, 200.0, 220.0))
    };
    let spo2 = |extreme: f64, low: f64| [Some(extreme), Some(low), None, None];
    Some(match quantity {
        HEART_RATE => limits(rate(), 5, 2.0),
        PULSE_RATE => limits(rate(), 10, 2.0),
        SPO2 => limits(of(spo2(80.0, 90.0), spo2(80.0, 90.0), spo2(80.0, 85.0)), 10, 1.0),
        RESPIRATORY_RATE => limits(of(plain(8.0, 30.0), plain(8.0, 30.0), plain(30.0, 100.0)), 10, 1.0),
        SYSTOLIC => limits(of(plain(90.0, 160.0), plain(70.0, 120.0), plain(40.0, 90.0)), 0, 2.0),
        DIASTOLIC => limits(of(plain(50.0, 90.0), plain(40.0, 70.0), plain(20.0, 60.0)), 0, 2.0),
        MEAN_PRESSURE => limits(of(plain(60.0, 110.0), plain(50.0, 90.0), plain(24.0, 70.0)), 0, 2.0),
        TEMPERATURE => limits(plain(36.0, 39.0), 0, 0.1),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use caregate_protocol::alarm::Settings;
    use caregate_protocol::code;

    use super::*;

    #[test]
    fn every_default_makes_sense_and_rows_are_what_they_are_called() {
        for category in [Category::Adult, Category::Child, Category::Neonate] {
            let settings = Settings { limits: limits_of(category), ..Settings::default() };
            assert_eq!(settings.check(), Ok(()));
            assert_eq!(settings.limits.len(), 8);
        }
        let rows = [
            (HEART_RATE, "heart-rate"),
            (PULSE_RATE, "pulse-rate"),
            (SPO2, "spo2"),
            (RESPIRATORY_RATE, "respiratory-rate"),
            (SYSTOLIC, "systolic"),
            (DIASTOLIC, "diastolic"),
            (MEAN_PRESSURE, "mean-pressure"),
            (TEMPERATURE, "temperature"),
        ];
        assert!(rows.iter().all(|(number, name)| code::by_number(*number).unwrap().name == *name));
    }
}
