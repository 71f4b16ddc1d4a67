//! Which alarms there are of a quantity, and how urgent each is. Pure.

use std::time::Duration;

use caregate_protocol::alarm::{Kind, Limits, Priority};
use caregate_protocol::code;
use caregate_protocol::id::DataClass;

use super::condition::{Side, Threshold};
use super::defaults::{HEART_RATE, PULSE_RATE, RESPIRATORY_RATE, SPO2};

/// How long a heart rate of 0 lasts before it is asystole: what bedside monitors take.
const ASYSTOLE_DELAY: Duration = Duration::from_secs(4);
/// How long a respiratory rate of 0 lasts before it is apnoea. The device's own averaging comes before it.
const APNOEA_DELAY: Duration = Duration::from_secs(10);

/// Whether a quantity is one that is measured all the time.
pub(super) fn is_continuous(quantity: u16) -> bool {
    let is_wave = code::by_number(quantity).is_some_and(|row| row.kind == code::Kind::Waveform);
    is_wave || [HEART_RATE, PULSE_RATE, SPO2, RESPIRATORY_RATE].contains(&quantity)
}

pub(super) fn priority(kind: Kind) -> Priority {
    match kind {
        Kind::Asystole | Kind::Apnoea | Kind::ExtremeHigh | Kind::ExtremeLow => Priority::High,
        Kind::High | Kind::Low | Kind::Score | Kind::Fall | Kind::Button | Kind::LeadsOff | Kind::NoData => {
            Priority::Medium
        }
        Kind::Implausible => Priority::Low,
    }
}

/// What is watched of a quantity. Of one that the code table has as sensitive nothing, whatever a patient's rules say: nobody set limits for it.
pub(super) fn thresholds(quantity: u16, limits: Option<Limits>) -> Vec<(Kind, Threshold)> {
    let mut all = Vec::new();
    let zero = |delay| Threshold { side: Side::Low, limit: f64::MIN_POSITIVE, hysteresis: 0.0, delay };
    match quantity {
        HEART_RATE => all.push((Kind::Asystole, zero(ASYSTOLE_DELAY))),
        RESPIRATORY_RATE => all.push((Kind::Apnoea, zero(APNOEA_DELAY))),
        _ => {}
    }
    let Some(Limits { low, high, extreme_low, extreme_high, delay_s, hysteresis }) = limits else {
        return all;
    };
    if code::by_number(quantity).is_none_or(|row| row.class != DataClass::Vitals) {
        return all;
    }
    let delay = Duration::from_secs(delay_s.into());
    let sides = [
        (Kind::ExtremeLow, Side::Low, extreme_low),
        (Kind::ExtremeHigh, Side::High, extreme_high),
        (Kind::Low, Side::Low, low),
        (Kind::High, Side::High, high),
    ];
    all.extend(sides.into_iter().filter_map(|(kind, side, limit)| {
        Some((kind, Threshold { side, limit: limit?, hysteresis, delay }))
    }));
    all
}
