//! A record on disk: header and signal files of one folder.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::annotation::{Annotation, AnnotationError, parse_annotations};
use super::header::{Body, HEADER_BYTES_MAX, Header, HeaderError, SignalSpec, parse_header};
use super::segments;
use super::signal::{Format, SignalError, checksum, decode_signal};

/// The sample that stands for "not recorded", whatever the file's own mark is.
pub const MISSING: i16 = i16::MIN;
/// Longest signal or annotation file: a day of 12 leads at 100 Hz; it bounds the memory that a record takes.
pub(super) const FILE_BYTES_MAX: u64 = 256 << 20;
/// Most samples over all signals of a record: what [`FILE_BYTES_MAX`] holds at one byte each.
pub(super) const SAMPLES_TOTAL_MAX: u64 = 256 << 20;

/// Why a record can't be read.
#[derive(Debug, Error)]
pub enum WfdbError {
    /// The file can't be read.
    #[error("{file}: {source}")]
    Io {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is longer than is taken.
    #[error("{file}: {bytes} bytes are more than {max}")]
    TooLong {
        /// Which.
        file: PathBuf,
        /// Its length.
        bytes: u64,
        /// The bound.
        max: u64,
    },
    /// The header is wrong.
    #[error("{file} {source}")]
    Header {
        /// Which.
        file: PathBuf,
        /// Where and why.
        source: HeaderError,
    },
    /// The samples can't be had.
    #[error("{file}: {source}")]
    Signal {
        /// Which.
        file: PathBuf,
        /// Why.
        source: SignalError,
    },
    /// The samples are not those that the header was written for.
    #[error("{file} line {line}, checksum: header has {expected}, the samples give {found}")]
    Checksum {
        /// The header.
        file: PathBuf,
        /// Its line.
        line: usize,
        /// As the header has it.
        expected: u16,
        /// Over the samples.
        found: u16,
    },
    /// The annotations are wrong.
    #[error("{file}: {source}")]
    Annotation {
        /// Which.
        file: PathBuf,
        /// Where and why.
        source: AnnotationError,
    },
    /// The parts of a record don't agree.
    #[error("{file} line {line}, {field}: {problem}")]
    Layout {
        /// The header.
        file: PathBuf,
        /// Its line.
        line: usize,
        /// The field.
        field: &'static str,
        /// What does not agree.
        problem: String,
    },
}

/// A recording in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// Frames per second.
    pub frequency_hz: f64,
    /// Its length in frames.
    pub frames: u64,
    /// In the header's order.
    pub signals: Vec<Signal>,
}

/// One signal over the whole record.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    /// The header's description: `MLII`, `ABP`, `HR`.
    pub name: String,
    /// As the header writes it.
    pub unit: String,
    /// Samples per second.
    pub frequency_hz: f64,
    /// Steps of the converter, [`MISSING`] where there is none.
    pub samples: Vec<i16>,
    /// In order; the first is from sample 0. Segments may have been recorded with other gains.
    pub calibrations: Vec<Calibration>,
}

/// What a step is worth from some sample on: physical = (step − baseline) / gain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    /// The first sample that it holds for.
    pub from: usize,
    /// Steps per unit.
    pub gain: f64,
    /// The step that is 0.
    pub baseline: i32,
}

impl Calibration {
    /// Whether steps are worth the same.
    pub(super) fn same_scale(&self, other: &Self) -> bool {
        self.gain == other.gain && self.baseline == other.baseline
    }

    /// The physical value of a step, in the signal's unit.
    #[must_use]
    pub fn physical(&self, step: i16) -> f64 {
        (f64::from(step) - f64::from(self.baseline)) / self.gain
    }
}

impl Signal {
    /// The calibration at a sample, and where the next begins.
    #[must_use]
    pub fn calibration_at(&self, sample: usize) -> (Calibration, usize) {
        let next = self.calibrations.partition_point(|c| c.from <= sample);
        let end = self.calibrations.get(next).map_or(self.samples.len(), |c| c.from);
        let default = Calibration { from: 0, gain: super::header::GAIN_DEFAULT, baseline: 0 };
        (next.checked_sub(1).and_then(|at| self.calibrations.get(at)).copied().unwrap_or(default), end)
    }
}

impl Record {
    /// Reads a record by the path of its header, with or without `.hea`, and checks every checksum that it has.
    pub fn open(path: &Path) -> Result<Self, WfdbError> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let name = name.strip_suffix(".hea").unwrap_or(&name).to_owned();
        let folder = Folder { path: path.parent().unwrap_or_else(|| Path::new("")).to_owned() };
        let header = folder.header(&name)?;
        match &header.body {
            Body::Signals(specs) => folder.signals(&name, &header, specs),
            Body::Segments(specs) => segments::join(&folder, &name, &header, specs),
        }
    }

    /// Reads the record's annotations, `NAME.EXTENSION`.
    pub fn annotations(path: &Path, extension: &str) -> Result<Vec<Annotation>, WfdbError> {
        let file = with_extension(path, extension);
        let bytes = read(&file, FILE_BYTES_MAX)?;
        parse_annotations(&bytes).map_err(|source| WfdbError::Annotation { file, source })
    }
}

fn with_extension(path: &Path, extension: &str) -> PathBuf {
    let text = path.as_os_str().to_string_lossy();
    PathBuf::from(format!("{}.{extension}", text.strip_suffix(".hea").unwrap_or(&text)))
}

fn read(file: &Path, max: u64) -> Result<Vec<u8>, WfdbError> {
    let io = |source| WfdbError::Io { file: file.to_owned(), source };
    let open = File::open(file).map_err(io)?;
    let bytes = open.metadata().map_err(io)?.len();
    if bytes > max {
        return Err(WfdbError::TooLong { file: file.to_owned(), bytes, max });
    }
    let mut content = Vec::new();
    open.take(max).read_to_end(&mut content).map_err(io)?;
    Ok(content)
}

/// The folder that a record's files lie in.
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn header_path(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.hea"))
    }

    pub(super) fn header(&self, name: &str) -> Result<Header, WfdbError> {
        let file = self.header_path(name);
        let bytes = read(&file, HEADER_BYTES_MAX as u64)?;
        parse_header(&String::from_utf8_lossy(&bytes)).map_err(|source| WfdbError::Header { file, source })
    }

    /// A single-segment record.
    pub(super) fn signals(
        &self,
        name: &str,
        header: &Header,
        specs: &[SignalSpec],
    ) -> Result<Record, WfdbError> {
        let mut signals = Vec::with_capacity(specs.len());
        let mut frames = header.frames;
        let mut rest = specs;
        while let Some(first) = rest.first() {
            let group_len = rest.iter().take_while(|spec| spec.file == first.file).count();
            let (group, after) = rest.split_at(group_len);
            let found = self.group(name, header, frames, group, &mut signals)?;
            frames = Some(frames.unwrap_or(found));
            rest = after;
        }
        Ok(Record {
            name: name.to_owned(),
            frequency_hz: header.frequency_hz,
            frames: frames.unwrap_or(0),
            signals,
        })
    }

    /// The signals that share a file; answers with the frames read.
    fn group(
        &self,
        name: &str,
        header: &Header,
        frames: Option<u64>,
        group: &[SignalSpec],
        signals: &mut Vec<Signal>,
    ) -> Result<u64, WfdbError> {
        let Some(first) = group.first() else { return Ok(0) };
        for spec in group {
            if spec.format != first.format || spec.byte_offset != first.byte_offset {
                let problem = format!("differs from that of line {}, which shares the file", first.line);
                return Err(self.layout(name, spec.line, "format", problem));
            }
        }
        let file = self.path.join(&first.file);
        let bytes = if first.format == Format::Null { Vec::new() } else { read(&file, FILE_BYTES_MAX)? };
        let bytes = bytes.get(first.byte_offset..).unwrap_or_default();
        let frame_len: usize = group.iter().map(|spec| spec.per_frame).sum();
        let frames = frames.unwrap_or_else(|| (first.format.samples(bytes.len()) / frame_len) as u64);
        let total = frames.saturating_mul(frame_len as u64);
        if total > SAMPLES_TOTAL_MAX {
            let problem = format!("{total} samples are more than {SAMPLES_TOTAL_MAX}");
            return Err(self.layout(name, first.line, "number of samples", problem));
        }
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        let stored = decode_signal(first.format, bytes, total)
            .map_err(|source| WfdbError::Signal { file: file.clone(), source })?;
        let mut at = 0;
        for spec in group {
            let own = stored
                .chunks_exact(frame_len)
                .flat_map(|frame| frame.get(at..at + spec.per_frame).unwrap_or_default());
            signals.push(self.signal(name, header, spec, own.copied())?);
            at += spec.per_frame;
        }
        Ok(frames)
    }

    fn signal(
        &self,
        name: &str,
        header: &Header,
        spec: &SignalSpec,
        stored: impl Iterator<Item = i16>,
    ) -> Result<Signal, WfdbError> {
        let mut samples: Vec<i16> = stored.collect();
        let found = checksum(samples.iter().copied());
        if let Some(expected) = spec.checksum.filter(|expected| *expected != found) {
            return Err(WfdbError::Checksum {
                file: self.header_path(name),
                line: spec.line,
                expected,
                found,
            });
        }
        let missing = spec.format.missing();
        for sample in samples.iter_mut().filter(|sample| **sample == missing) {
            *sample = MISSING;
        }
        let lag = (spec.skew * spec.per_frame).min(samples.len());
        samples.rotate_left(lag);
        let tail = samples.len() - lag;
        samples.iter_mut().skip(tail).for_each(|sample| *sample = MISSING);
        Ok(Signal {
            name: spec.description.clone(),
            unit: spec.unit.clone(),
            frequency_hz: header.frequency_hz * per_frame_f64(spec),
            samples,
            calibrations: vec![Calibration { from: 0, gain: spec.gain, baseline: spec.baseline }],
        })
    }

    pub(super) fn layout(&self, name: &str, line: usize, field: &'static str, problem: String) -> WfdbError {
        WfdbError::Layout { file: self.header_path(name), line, field, problem }
    }
}

/// At most [`super::header::PER_FRAME_MAX`], so exact.
fn per_frame_f64(spec: &SignalSpec) -> f64 {
    spec.per_frame as f64
}
