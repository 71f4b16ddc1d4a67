//! Meters: what a controller makes of them (§7.3.4.4), and what a switch reports (§7.3.5.12 to §7.3.5.14).

use super::error::{BadRequest, ErrorKind, MeterModFailed};
use super::flow::Lasted;
use super::group::entry;
use super::message::Fault;
use super::wire::{pad, put_u16, put_u32, put_u64, with_length};
use crate::wire::{Reader, WireError};

/// `OFPM_MAX`: meters are numbered from 1 to here.
pub const MAX: u32 = 0xffff_0000;
/// `OFPM_SLOWPATH`: of the slow path.
pub const SLOWPATH: u32 = 0xffff_fffd;
/// `OFPM_CONTROLLER`: of the way to the controller.
pub const CONTROLLER: u32 = 0xffff_fffe;
/// `OFPM_ALL`: all meters, for deletes and statistics.
pub const ALL: u32 = 0xffff_ffff;

/// Bytes of a band of the two types that have a length of their own.
const BAND_BYTES: u16 = 16;
/// Bytes of a band's type, length, rate and burst.
const BAND_HEADER_BYTES: u16 = 12;

/// Bits of a meter's `flags`, `enum ofp_meter_flags`.
pub mod flags {
    /// `OFPMF_KBPS`: rates are kbit/s.
    pub const KBPS: u16 = 1;
    /// `OFPMF_PKTPS`: rates are frames per second.
    pub const PKTPS: u16 = 1 << 1;
    /// `OFPMF_BURST`: bursts are given.
    pub const BURST: u16 = 1 << 2;
    /// `OFPMF_STATS`: to be counted.
    pub const STATS: u16 = 1 << 3;
    /// All that 1.3.5 has.
    pub const ALL: u16 = 0x0f;
}

/// `enum ofp_meter_mod_command`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum MeterCommand {
    /// `OFPMC_ADD`
    Add = 0,
    /// `OFPMC_MODIFY`
    Modify = 1,
    /// `OFPMC_DELETE`
    Delete = 2,
}

/// What a band does with frames above its rate: `enum ofp_meter_band_type`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BandAction {
    /// `OFPMBT_DROP`
    Drop,
    /// `OFPMBT_DSCP_REMARK`
    DscpRemark {
        /// By so much the drop precedence of the DSCP rises.
        prec_level: u8,
    },
    /// `OFPMBT_EXPERIMENTER`
    Experimenter {
        /// Who defined it.
        experimenter: u32,
        /// What follows.
        data: Vec<u8>,
    },
    /// One that 1.3.5 doesn't have; a switch answers `OFPMMFC_BAD_BAND`.
    Other {
        /// Its number.
        band_type: u16,
        /// What follows rate and burst.
        body: Vec<u8>,
    },
}

impl BandAction {
    const DROP: u16 = 1;
    const DSCP_REMARK: u16 = 2;
    const EXPERIMENTER: u16 = 0xffff;

    /// Its number, by which [`MeterFeatures::band_types`] has a bit.
    #[must_use]
    pub fn number(&self) -> u16 {
        match self {
            Self::Drop => Self::DROP,
            Self::DscpRemark { .. } => Self::DSCP_REMARK,
            Self::Experimenter { .. } => Self::EXPERIMENTER,
            Self::Other { band_type, .. } => *band_type,
        }
    }
}

/// One band: `struct ofp_meter_band_header` and what follows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Band {
    /// kbit/s or frames per second, as the meter's [`flags`] say.
    pub rate: u32,
    /// kbit or frames.
    pub burst_size: u32,
    /// What happens above the rate.
    pub action: BandAction,
}

impl Band {
    fn encode(&self, out: &mut Vec<u8>) {
        with_length(out, 2, |out| {
            put_u16(out, self.action.number());
            put_u16(out, 0);
            put_u32(out, self.rate);
            put_u32(out, self.burst_size);
            match &self.action {
                BandAction::Drop => pad(out, 4),
                BandAction::DscpRemark { prec_level } => out.extend([*prec_level, 0, 0, 0]),
                BandAction::Experimenter { experimenter, data } => {
                    put_u32(out, *experimenter);
                    out.extend(data);
                }
                BandAction::Other { body, .. } => out.extend(body),
            }
        });
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let (band_type, length) = (reader.u16("band type")?, reader.u16("band length")?);
        let (rate, burst_size) = (reader.u32("rate")?, reader.u32("burst_size")?);
        let bad_length = Fault::Standard(ErrorKind::BadRequest(BadRequest::BadLen));
        let bytes = length.checked_sub(BAND_HEADER_BYTES).ok_or(bad_length)?;
        let mut body = Reader::new(reader.take("band", bytes.into())?);
        let action = match band_type {
            BandAction::DROP => {
                body.take("pad", (BAND_BYTES - BAND_HEADER_BYTES).into())?;
                BandAction::Drop
            }
            BandAction::DSCP_REMARK => {
                let prec_level = body.u8("prec_level")?;
                body.take("pad", 3)?;
                BandAction::DscpRemark { prec_level }
            }
            BandAction::EXPERIMENTER => {
                let experimenter = body.u32("experimenter")?;
                BandAction::Experimenter { experimenter, data: body.rest().to_vec() }
            }
            band_type => BandAction::Other { band_type, body: body.rest().to_vec() },
        };
        body.finish()?;
        Ok(Self { rate, burst_size, action })
    }

    /// All that is left in `reader`.
    fn decode_all(reader: &mut Reader<'_>) -> Result<Vec<Self>, Fault> {
        let mut bands = Vec::new();
        while reader.finish().is_err() {
            bands.push(Self::decode(reader)?);
        }
        Ok(bands)
    }
}

/// `struct ofp_meter_mod` (§7.3.4.4).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MeterMod {
    /// What to do.
    pub command: MeterCommand,
    /// [`flags`]
    pub flags: u16,
    /// Which meter; for a delete also [`ALL`].
    pub meter_id: u32,
    /// Of a frame's rate the highest band below it is used.
    pub bands: Vec<Band>,
}

impl MeterMod {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_u16(out, self.command as u16);
        put_u16(out, self.flags);
        put_u32(out, self.meter_id);
        for band in &self.bands {
            band.encode(out);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let command = match reader.u16("meter command")? {
            0 => MeterCommand::Add,
            1 => MeterCommand::Modify,
            2 => MeterCommand::Delete,
            _ => return Err(Fault::Standard(ErrorKind::MeterModFailed(MeterModFailed::BadCommand))),
        };
        let flags = reader.u16("meter flags")?;
        let meter_id = reader.u32("meter_id")?;
        Ok(Self { command, flags, meter_id, bands: Band::decode_all(reader)? })
    }
}

/// What a band counted: `struct ofp_meter_band_stats`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BandStats {
    /// Frames.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// `struct ofp_meter_stats` (§7.3.5.12).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeterStats {
    /// Which meter.
    pub meter_id: u32,
    /// Flows that lead to it.
    pub flow_count: u32,
    /// Frames that came to it.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// How long it has been there.
    pub lasted: Lasted,
    /// By band, in their order.
    pub bands: Vec<BandStats>,
}

impl MeterStats {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        with_length(out, 4, |out| {
            put_u32(out, self.meter_id);
            put_u16(out, 0);
            pad(out, 6);
            put_u32(out, self.flow_count);
            put_u64(out, self.packets_in);
            put_u64(out, self.bytes_in);
            self.lasted.encode(out);
            for band in &self.bands {
                put_u64(out, band.packets);
                put_u64(out, band.bytes);
            }
        });
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let bad_length = Fault::Standard(ErrorKind::BadRequest(BadRequest::BadLen));
        let meter_id = reader.u32("meter_id")?;
        let length = reader.u16("meter statistics length")?.checked_sub(6).ok_or(bad_length)?;
        let mut reader = Reader::new(reader.take("meter statistics", length.into())?);
        reader.take("pad", 6)?;
        let flow_count = reader.u32("flow_count")?;
        let (packets_in, bytes_in) = (reader.u64("packet_in_count")?, reader.u64("byte_in_count")?);
        let lasted = Lasted::decode(&mut reader)?;
        let mut bands = Vec::new();
        while reader.finish().is_err() {
            let (packets, bytes) = (reader.u64("packet_band_count")?, reader.u64("byte_band_count")?);
            bands.push(BandStats { packets, bytes });
        }
        Ok(Self { meter_id, flow_count, packets_in, bytes_in, lasted, bands })
    }
}

/// `struct ofp_meter_config` (§7.3.5.13).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MeterConfig {
    /// [`flags`]
    pub flags: u16,
    /// Which meter.
    pub meter_id: u32,
    /// As they were configured.
    pub bands: Vec<Band>,
}

impl MeterConfig {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        with_length(out, 0, |out| {
            put_u16(out, 0);
            put_u16(out, self.flags);
            put_u32(out, self.meter_id);
            for band in &self.bands {
                band.encode(out);
            }
        });
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let mut reader = entry(reader, "meter configuration")?;
        let (flags, meter_id) = (reader.u16("flags")?, reader.u32("meter_id")?);
        Ok(Self { flags, meter_id, bands: Band::decode_all(&mut reader)? })
    }
}

/// `struct ofp_meter_features` (§7.3.5.14).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MeterFeatures {
    /// Most meters.
    pub meters_max: u32,
    /// Bit by [`BandAction::number`].
    pub band_types: u32,
    /// [`flags`]
    pub capabilities: u32,
    /// Most bands of a meter.
    pub bands_max: u8,
    /// Most values of a colour.
    pub colors_max: u8,
}

impl MeterFeatures {
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        put_u32(out, self.meters_max);
        put_u32(out, self.band_types);
        put_u32(out, self.capabilities);
        out.extend([self.bands_max, self.colors_max, 0, 0]);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let features = Self {
            meters_max: reader.u32("max_meter")?,
            band_types: reader.u32("band_types")?,
            capabilities: reader.u32("capabilities")?,
            bands_max: reader.u8("max_bands")?,
            colors_max: reader.u8("max_color")?,
        };
        reader.take("pad", 2)?;
        Ok(features)
    }
}
