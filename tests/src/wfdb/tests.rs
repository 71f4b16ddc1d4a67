//! Records on disk: small ones built here, and the real ones where `CAREGATE_RECORDS` names their folder.

use std::fs;
use std::path::{Path, PathBuf};

use super::signal::tests::encode;
use super::signal::{Format, checksum};
use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        fs::write(self.0.path().join(name), content).unwrap();
        self
    }

    fn open(&self, name: &str) -> Result<Record, String> {
        let folder = self.0.path().to_string_lossy().into_owned();
        Record::open(&self.0.path().join(name)).map_err(|error| error.to_string().replace(&folder, "."))
    }
}

fn sum(samples: &[i16]) -> u16 {
    checksum(samples.iter().copied())
}

#[test]
fn every_format_with_missing_samples_and_checksums() {
    for (format, number) in [(Format::F16, 16), (Format::F80, 80), (Format::F212, 212)] {
        let (a, b) = ([1, format.missing(), -7], [100, 2, 3]);
        let stored: Vec<i16> = a.iter().zip(&b).flat_map(|(a, b)| [*a, *b]).collect();
        let folder = Folder::new();
        folder.write("r.dat", encode(format, &stored)).write(
            "r.hea",
            format!(
                "r 2 250 3\nr.dat {number} 200 12 0 1 {} 0 II\nr.dat {number} 2(50)/mmHg 12 0 100 {} 0 ABP\n",
                sum(&a),
                sum(&b)
            ),
        );
        let record = folder.open("r.hea").unwrap();
        assert_eq!((record.name.as_str(), record.frames, record.frequency_hz), ("r", 3, 250.0));
        assert_eq!(record.signals[0].samples, [1, MISSING, -7]);
        assert_eq!(record.signals[1].samples, b);
        assert_eq!(record.signals[1].calibration_at(0).0.physical(100), 25.0);
    }
}

#[test]
fn samples_per_frame_skew_and_offset() {
    let folder = Folder::new();
    // Frames of (fast, fast, slow), after a prolog of four bytes.
    let mut bytes = vec![9; 4];
    bytes.extend(encode(Format::F16, &[1, 2, 10, 3, 4, 20, 5, 6, 30]));
    folder.write("r.dat", bytes).write("r.hea", "r 2 100\nr.dat 16x2+4 1 12 0 0\nr.dat 16:1+4 1 12 0 0\n");
    let record = folder.open("r").unwrap();
    assert_eq!(record.frames, 3);
    assert_eq!((record.signals[0].frequency_hz, record.signals[1].frequency_hz), (200.0, 100.0));
    assert_eq!(record.signals[0].samples, [1, 2, 3, 4, 5, 6]);
    assert_eq!(record.signals[1].samples, [20, 30, MISSING]);
}

#[test]
fn variable_layout_with_a_gap_and_another_gain() {
    let folder = Folder::new();
    folder
        .write("m.hea", "m/4 2 125 7\nm_layout 0\n~ 2\nm_1 3\nm_2 2\n")
        .write("m_layout.hea", "m_layout 2 125 0\n~ 0 100/mV 8 0 0 0 0 II\n~ 0 1/mmHg 8 0 0 0 0 ABP\n")
        .write("m_1.hea", "m_1 1 125 3\nm_1.dat 80 100/mV 8 0 0 6 0 II\n")
        .write("m_1.dat", encode(Format::F80, &[1, 2, 3]))
        .write("m_2.hea", "m_2 2 125 2\nm_2.dat 80 2/mmHg 8 0 0 15 0 ABP\nm_2.dat 80 50/mV 8 0 0 9 0 II\n")
        .write("m_2.dat", encode(Format::F80, &[7, 4, 8, 5]));
    let record = folder.open("m").unwrap();
    assert_eq!(record.frames, 7);
    let [ii, abp] = &record.signals[..] else { panic!("two signals") };
    assert_eq!(ii.samples, [MISSING, MISSING, 1, 2, 3, 4, 5]);
    assert_eq!(abp.samples, [MISSING, MISSING, MISSING, MISSING, MISSING, 7, 8]);
    let gains = |signal: &Signal| signal.calibrations.iter().map(|c| (c.from, c.gain)).collect::<Vec<_>>();
    assert_eq!((gains(ii), gains(abp)), (vec![(0, 100.0), (5, 50.0)], vec![(0, 1.0), (5, 2.0)]));
    assert_eq!(ii.calibration_at(4), (ii.calibrations[0], 5));
    assert_eq!(ii.calibration_at(6), (ii.calibrations[1], 7));
}

#[test]
fn fixed_layout() {
    let folder = Folder::new();
    folder
        .write("f.hea", "f/2 1 125 4\nf1 2\nf2 2\n")
        .write("f1.hea", "f1 1 125 2\nf1.dat 16 100 12 0 0 3 0 II\n")
        .write("f1.dat", encode(Format::F16, &[1, 2]))
        .write("f2.hea", "f2 1 125 2\nf2.dat 16 100 12 0 0 7 0 II\n")
        .write("f2.dat", encode(Format::F16, &[3, 4]));
    let record = folder.open("f").unwrap();
    assert_eq!(record.signals[0].samples, [1, 2, 3, 4]);
    assert_eq!(record.signals[0].calibrations.len(), 1);
}

#[test]
fn what_is_wrong_is_named_with_its_file() {
    let folder = Folder::new();
    let error = folder.open("none").unwrap_err();
    assert!(error.starts_with("./none.hea: "), "{error}");
    folder.write("r.dat", encode(Format::F16, &[1, 2]));
    let refuse = |header: &str| {
        folder.write("r.hea", header);
        folder.open("r").unwrap_err()
    };
    assert_eq!(refuse("r 1 250 3\nr.dat 16\n"), "./r.dat: 3 samples need 6 bytes, there are 4");
    assert_eq!(
        refuse("r 1 250 2\nr.dat 16 200 12 0 1 4 0 II\n"),
        "./r.hea line 2, checksum: header has 4, the samples give 3"
    );
    assert_eq!(
        refuse("r 1 250 2\nr.dat 310\n"),
        "./r.hea line 2, format: format '310' is not one of 16, 80, 212"
    );
    assert_eq!(
        refuse("r 2 250 1\nr.dat 16\nr.dat 80\n"),
        "./r.hea line 3, format: differs from that of line 2, which shares the file"
    );
    assert!(refuse("r 1 250 999999999999\nr.dat 16\n").contains("number of samples: 999999999999 samples"));
    folder.write("r.hea", "r 1 250 2\nr.dat 16\n").write("m.hea", "m/1 1 250 3\nr 3\n");
    assert_eq!(folder.open("m").unwrap_err(), "./m.hea line 2, number of samples: r has 2");
    folder.write("m.hea", "m/1 1 250 9\nr 3\n");
    assert_eq!(
        folder.open("m").unwrap_err(),
        "./m.hea line 1, number of samples: the segments have 3 in all"
    );
    folder.write("m.hea", "m/2 1 250 2\nr 2\nm 0\n");
    assert!(folder.open("m").unwrap_err().contains("m is itself made of segments"));
}

/// The folder of the real records. In CI they must be there; elsewhere the test says what it left out.
pub(crate) fn records(left_out: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("CAREGATE_RECORDS").map(PathBuf::from);
    assert!(
        folder.is_some() || std::env::var_os("CI").is_none(),
        "CAREGATE_RECORDS must name the folder of the recordings when CI is set"
    );
    if folder.is_none() {
        eprintln!("CAREGATE_RECORDS is not set: only synthetic records were read, left out: {left_out}");
    }
    folder
}

fn valid(signal: &Signal) -> usize {
    signal.samples.iter().filter(|sample| **sample != MISSING).count()
}

/// Facts of MIT-BIH record 100: length, first samples, beats by type, and the mean heart rate of 75.5.
fn check_mitdb_100(folder: &Path) {
    let path = folder.join("mitdb-100/100");
    let record = Record::open(&path).unwrap();
    assert_eq!((record.frames, record.frequency_hz), (650_000, 360.0));
    let [mlii, v5] = &record.signals[..] else { panic!("two signals") };
    assert_eq!((mlii.name.as_str(), v5.name.as_str()), ("MLII", "V5"));
    assert_eq!((mlii.samples[0], v5.samples[0], mlii.samples.len()), (995, 1011, 650_000));
    assert_eq!(mlii.calibration_at(0).0.physical(1224), 1.0);
    let annotations = Record::annotations(&path, "atr").unwrap();
    let beats: Vec<_> = annotations.iter().filter(|annotation| annotation.is_beat()).collect();
    let of = |code: u8| beats.iter().filter(|beat| beat.code == code).count();
    assert_eq!((beats.len(), of(1), of(8), of(5)), (2273, 2239, 33, 1));
    let span_s = (beats[2272].frame - beats[0].frame) as f64 / 360.0;
    let rate = 2272.0 * 60.0 / span_s;
    assert!((rate - 75.5).abs() < 0.1, "{rate}");
}

/// 20 segments of format 80, a gap of 25740 samples first, ABP only in the last two.
fn check_mimic(folder: &Path) {
    let record = Record::open(&folder.join("mimic2-s25047/s25047-2704-05-04-10-44.hea")).unwrap();
    assert_eq!((record.frames, record.frequency_hz), (543_240, 125.0));
    let names: Vec<_> = record.signals.iter().map(|signal| signal.name.as_str()).collect();
    assert_eq!(names, ["II", "V", "ABP"]);
    let ii = &record.signals[0];
    assert!(ii.samples[..25_740].iter().all(|sample| *sample == MISSING));
    assert_eq!(ii.samples[25_740], -24);
    let abp = &record.signals[2];
    assert!(valid(abp) > 0 && valid(abp) <= 3525 + 93_975);
    let last = abp.calibration_at(543_239).0;
    assert_eq!((last.gain, last.baseline), (1.25, -100));
    let numerics = Record::open(&folder.join("mimic2-s25047/s25047-2704-05-04-10-44n")).unwrap();
    assert_eq!((numerics.frames, numerics.signals.len()), (72, 7));
    assert!((numerics.frequency_hz * 60.0 - 1.0).abs() < 1e-9);
    let series = |name: &str| {
        let signal = numerics.signals.iter().find(|signal| signal.name == name).unwrap();
        let values = signal.samples.iter().enumerate().filter(|(_, step)| **step != MISSING);
        values.map(|(at, step)| (at, signal.calibration_at(at).0.physical(*step))).collect::<Vec<_>>()
    };
    assert_eq!(series("HR")[0], (0, 101.3));
    // A deteriorating patient: no heart rate from minute 45, SpO2 from 100 down to 36 %.
    assert!(series("HR").iter().filter(|(_, value)| *value > 0.0).all(|(minute, _)| *minute <= 45));
    let spo2: Vec<f64> = series("SpO2").into_iter().map(|(_, value)| value).filter(|v| *v > 0.0).collect();
    let (low, high) =
        (spo2.iter().copied().fold(f64::MAX, f64::min), spo2.iter().copied().fold(0.0, f64::max));
    assert_eq!((low.round(), high), (36.0, 100.0));
}

#[test]
fn real_records() {
    let Some(folder) = records("mitdb-100, mimic2-s25047, cinc2015-v102s") else { return };
    check_mitdb_100(&folder);
    check_mimic(&folder);
    let record = Record::open(&folder.join("cinc2015-v102s/v102s")).unwrap();
    assert_eq!((record.frames, record.frequency_hz), (75_000, 250.0));
    let first: Vec<_> =
        record.signals.iter().map(|signal| (signal.name.as_str(), signal.samples[0])).collect();
    assert_eq!(first, [("II", -26), ("V", 340), ("PLETH", -46), ("RESP", 339)]);
}
