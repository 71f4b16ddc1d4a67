//! Meters (OpenFlow 1.3.5 §5.7) as the controller wrote them, and whether they may be as it wants them (§7.3.4.4).

use std::collections::BTreeMap;
use std::time::Duration;

use caregate_protocol::datapath::switch::{BANDS_MAX, BandKind, MeterBand, MeterEntry};
use caregate_protocol::openflow::{
    Band, BandAction, ErrorKind, MeterCommand, MeterMod, MeterModFailed, meter,
};

/// Most that a frame's drop precedence can rise by: assured forwarding has three (RFC 2597).
const PREC_LEVEL_MAX: u8 = 3;

/// One meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meter {
    /// Its number.
    pub id: u32,
    /// [`meter::flags`]
    pub flags: u16,
    /// In their order; of the two kinds that this switch has.
    pub bands: Vec<Band>,
    /// When it was added.
    pub added: Duration,
}

/// By number.
pub type Meters = BTreeMap<u32, Meter>;

impl Meter {
    /// What the helper is told.
    #[must_use]
    pub fn entry(&self) -> MeterEntry {
        let has_burst = self.flags & meter::flags::BURST != 0;
        let band = |of: &Band| MeterBand {
            kind: match of.action {
                BandAction::DscpRemark { prec_level } => BandKind::DscpRemark(prec_level),
                BandAction::Drop | BandAction::Experimenter { .. } | BandAction::Other { .. } => {
                    BandKind::Drop
                }
            },
            rate: of.rate,
            burst: if has_burst { of.burst_size } else { 0 },
        };
        MeterEntry {
            id: self.id,
            counts_packets: self.flags & meter::flags::PKTPS != 0,
            bands: self.bands.iter().map(band).collect(),
        }
    }

    /// Whether it writes to frames, and doesn't only drop some.
    #[must_use]
    pub fn remarks(&self) -> bool {
        self.bands.iter().any(|band| matches!(band.action, BandAction::DscpRemark { .. }))
    }

    /// The meter-mod that would add it again.
    #[must_use]
    pub fn stored(&self) -> MeterMod {
        MeterMod {
            command: MeterCommand::Add,
            flags: self.flags,
            meter_id: self.id,
            bands: self.bands.clone(),
        }
    }
}

/// The meter that a meter-mod, of an add or a modify, wants.
///
/// # Errors
/// `OFPMMFC_INVALID_METER` for a number that no flow can name, `BAD_FLAGS`, `OUT_OF_BANDS`, `BAD_BAND`, `BAD_BAND_VALUE`.
pub(super) fn meter(wanted: &MeterMod, now: Duration) -> Result<Meter, ErrorKind> {
    let refuse = |code| Err(ErrorKind::MeterModFailed(code));
    if wanted.meter_id == 0 || wanted.meter_id > meter::MAX {
        return refuse(MeterModFailed::InvalidMeter);
    }
    let both = meter::flags::KBPS | meter::flags::PKTPS;
    if wanted.flags & !meter::flags::ALL != 0 || wanted.flags & both == both {
        return refuse(MeterModFailed::BadFlags);
    }
    if wanted.bands.len() > BANDS_MAX {
        return refuse(MeterModFailed::OutOfBands);
    }
    for band in &wanted.bands {
        match band.action {
            BandAction::Drop => {}
            BandAction::DscpRemark { prec_level } if prec_level <= PREC_LEVEL_MAX => {}
            BandAction::DscpRemark { .. } => return refuse(MeterModFailed::BadBandValue),
            BandAction::Experimenter { .. } | BandAction::Other { .. } => {
                return refuse(MeterModFailed::BadBand);
            }
        }
    }
    Ok(Meter { id: wanted.meter_id, flags: wanted.flags, bands: wanted.bands.clone(), added: now })
}
