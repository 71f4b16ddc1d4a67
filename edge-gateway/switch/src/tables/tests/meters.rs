//! Meter-mods.

use caregate_protocol::datapath::switch::{BandKind, MeterBand, MeterEntry};
use caregate_protocol::openflow::{Band, BandAction, MeterCommand, MeterMod, meter};

use super::*;

fn band(rate: u32, action: BandAction) -> Band {
    Band { rate, burst_size: 0, action }
}

fn adding(meter_id: u32, flags: u16, bands: Vec<Band>) -> MeterMod {
    MeterMod { command: MeterCommand::Add, flags, meter_id, bands }
}

/// Meter 1 drops, meter 2 remarks.
pub(super) fn add_all(tables: &mut Tables) {
    let drops = adding(1, meter::flags::KBPS, vec![band(1000, BandAction::Drop)]);
    tables.meter_mod(&drops, NOW).unwrap();
    let remark = Band { burst_size: 5, ..band(100, BandAction::DscpRemark { prec_level: 1 }) };
    let flags = meter::flags::PKTPS | meter::flags::BURST | meter::flags::STATS;
    tables.meter_mod(&adding(2, flags, vec![remark]), NOW).unwrap();
}

fn told(tables: &mut Tables, wanted: &MeterMod) -> &'static str {
    let before = tables.changes();
    match tables.meter_mod(wanted, NOW) {
        Ok(_) => "",
        Err(kind) => {
            assert_eq!(tables.changes(), before, "a refused meter-mod changes nothing");
            kind.as_str()
        }
    }
}

#[test]
fn meters_are_added_modified_and_deleted_with_the_flows_that_use_them() {
    let mut tables = guarded();
    add_all(&mut tables);
    let entry = |id, counts_packets, kind, rate, burst| {
        Change::PutMeter(MeterEntry { id, counts_packets, bands: vec![MeterBand { kind, rate, burst }] })
    };
    let wanted = [entry(1, false, BandKind::Drop, 1000, 0), entry(2, true, BandKind::DscpRemark(1), 100, 5)];
    assert_eq!(tables.changes(), wanted);
    let metered = FlowMod { instructions: vec![Instruction::Meter(1)], ..add(1, Match::any()) };
    apply(&mut tables, &metered);
    tables.commit();
    assert_eq!((tables.metered(1), tables.metered(2)), (1, 0));

    let mut modify =
        adding(1, meter::flags::KBPS, vec![Band { burst_size: 9, ..band(2000, BandAction::Drop) }]);
    modify.command = MeterCommand::Modify;
    assert_eq!(told(&mut tables, &modify), "");
    assert_eq!(
        tables.changes(),
        [entry(1, false, BandKind::Drop, 2000, 0)],
        "without OFPMF_BURST there is none"
    );
    assert_eq!(tables.meters()[&1].bands[0].burst_size, 9, "and it is shown as it was written");
    modify.bands.push(band(1, BandAction::DscpRemark { prec_level: 1 }));
    assert_eq!(told(&mut tables, &modify), "OFPMMFC_BAD_BAND", "a sensor's frames are not written to");
    tables.commit();

    let delete = |meter_id| MeterMod { command: MeterCommand::Delete, ..adding(meter_id, 0, vec![]) };
    assert_eq!(told(&mut tables, &delete(7)), "", "nothing to delete is no error");
    let outcome = tables.meter_mod(&delete(meter::ALL), NOW).unwrap();
    assert_eq!((outcome.removed[0].reason, tables.meters().len()), (RemovedReason::Delete, 0));
    let changes = tables.changes();
    assert!(matches!(changes[..], [Change::RemoveFlow(_), Change::RemoveMeter(1), Change::RemoveMeter(2)]));
}

#[test]
fn meters_that_cant_be_have_the_standards_own_error() {
    let mut tables = guarded();
    add_all(&mut tables);
    let mut told = |wanted| told(&mut tables, &wanted);
    let drops = || vec![band(1, BandAction::Drop)];
    assert_eq!(told(adding(1, 1, drops())), "OFPMMFC_METER_EXISTS");
    let modify = MeterMod { command: MeterCommand::Modify, ..adding(3, 1, drops()) };
    assert_eq!(told(modify), "OFPMMFC_UNKNOWN_METER");
    for id in [0, meter::MAX + 1, meter::CONTROLLER, meter::SLOWPATH, meter::ALL] {
        assert_eq!(told(adding(id, 1, drops())), "OFPMMFC_INVALID_METER", "{id:#x}");
    }
    assert_eq!(told(adding(3, 3, drops())), "OFPMMFC_BAD_FLAGS");
    assert_eq!(told(adding(3, 0x10, drops())), "OFPMMFC_BAD_FLAGS");
    assert_eq!(told(adding(3, 1, vec![band(1, BandAction::Drop); BANDS_MAX + 1])), "OFPMMFC_OUT_OF_BANDS");
    let remark = |prec_level| vec![band(1, BandAction::DscpRemark { prec_level })];
    assert_eq!(told(adding(3, 1, remark(4))), "OFPMMFC_BAD_BAND_VALUE");
    let other = vec![band(1, BandAction::Other { band_type: 9, body: vec![0; 4] })];
    assert_eq!(told(adding(3, 1, other)), "OFPMMFC_BAD_BAND");
    for id in 3..=256 {
        assert_eq!(told(adding(id, 1, drops())), "");
    }
    assert_eq!(told(adding(300, 1, drops())), "OFPMMFC_OUT_OF_METERS");
}
