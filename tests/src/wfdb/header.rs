//! The header file (`.hea`): WFDB's `header(5)`, without I/O.
//!
//! ```text
//! # comment
//! NAME[/SEGMENTS] SIGNALS [HZ[/COUNTER[(BASE)]] [SAMPLES [TIME [DATE]]]]              record line
//! FILE FORMAT[xPERFRAME][:SKEW][+OFFSET] [GAIN[(BASELINE)][/UNIT] [BITS [ZERO
//!      [INITIAL [CHECKSUM [BLOCK [DESCRIPTION]]]]]]]                                  one line per signal, or
//! SEGMENT SAMPLES                                                                     one line per segment
//! ```

use std::str::FromStr;

use thiserror::Error;

use super::signal::Format;

/// Longest header text; 10,000 segment lines of 100 bytes fit.
pub const HEADER_BYTES_MAX: usize = 1 << 20;
/// Most signals in one record: twice the leads and pressures of any bedside monitor. It bounds what one frame takes.
pub const SIGNALS_MAX: usize = 64;
/// Most segments; MIMIC's longest records have some thousands.
pub const SEGMENTS_MAX: usize = 10_000;
/// Most samples of one signal in one frame; PhysioNet's records stay below 100.
pub const PER_FRAME_MAX: usize = 256;
/// Longest skew in frames; the WFDB library's own is far below.
pub const SKEW_MAX: usize = 10_000;
/// What the standard says of a signal without a gain (`header(5)`, ADC gain).
pub const GAIN_DEFAULT: f64 = 200.0;
/// What the standard says of a record without a sampling frequency.
pub const FREQUENCY_HZ_DEFAULT: f64 = 250.0;
/// Highest sampling frequency taken: ten times that of any body sensor.
pub const FREQUENCY_HZ_MAX: f64 = 100_000.0;

/// Where a header is wrong, and why.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}, {field}: {problem}")]
pub struct HeaderError {
    /// From 1.
    pub line: usize,
    /// The field's name in `header(5)`.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// The field or line is not there.
    #[error("missing")]
    Missing,
    /// Not a number of the kind that belongs here.
    #[error("'{0}' is not a number that fits here")]
    Number(String),
    /// A file or segment name with a path in it, or an empty one.
    #[error("'{0}' is not a plain name")]
    Name(String),
    /// A storage format that this reader does not have.
    #[error("format '{0}' is not one of 16, 80, 212")]
    Format(String),
    /// More than is taken.
    #[error("{found} is more than {max}")]
    TooMany {
        /// As the header has it.
        found: u64,
        /// The bound.
        max: u64,
    },
    /// There is more text than the record line promised.
    #[error("unexpected text")]
    Unexpected,
}

/// A header file, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// The record's name.
    pub name: String,
    /// How many signals.
    pub signal_count: usize,
    /// Frames per second.
    pub frequency_hz: f64,
    /// Frames in the record, where the header says.
    pub frames: Option<u64>,
    /// Its signals, or its segments.
    pub body: Body,
}

/// What follows the record line.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// A record of its own.
    Signals(Vec<SignalSpec>),
    /// A multi-segment record.
    Segments(Vec<SegmentSpec>),
}

/// One segment line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentSpec {
    /// The segment's record name; `~` is a gap.
    pub name: String,
    /// Its length; 0 is the layout of a variable-layout record.
    pub frames: u64,
    /// Line in the header, from 1.
    pub line: usize,
}

impl SegmentSpec {
    /// Whether nothing was recorded in this span.
    #[must_use]
    pub fn is_gap(&self) -> bool {
        self.name == "~"
    }
}

/// One signal line.
#[derive(Debug, Clone, PartialEq)]
pub struct SignalSpec {
    /// The file that holds it, beside the header; `~` in a layout.
    pub file: String,
    /// How samples are stored.
    pub format: Format,
    /// Samples in each frame.
    pub per_frame: usize,
    /// Frames by which the stored signal lags.
    pub skew: usize,
    /// Bytes before the first sample in the file.
    pub byte_offset: usize,
    /// Steps per physical unit.
    pub gain: f64,
    /// The step that is physical 0.
    pub baseline: i32,
    /// As the header writes it, `mV` by default.
    pub unit: String,
    /// The step in the middle of the converter's range.
    pub adc_zero: i32,
    /// The first sample, where the header has it.
    pub initial: Option<i32>,
    /// Sum of all samples modulo 2^16, where the header has it.
    pub checksum: Option<u16>,
    /// The signal's name, empty by default.
    pub description: String,
    /// Line in the header, from 1.
    pub line: usize,
}

/// Parses a header file. Never panics; the error names line and field.
pub fn parse_header(text: &str) -> Result<Header, HeaderError> {
    if text.len() > HEADER_BYTES_MAX {
        let problem = Problem::TooMany { found: text.len() as u64, max: HEADER_BYTES_MAX as u64 };
        return Err(HeaderError { line: 1, field: "bytes", problem });
    }
    let mut lines = text
        .lines()
        .enumerate()
        .map(|(at, line)| Line { number: at + 1, rest: line.trim() })
        .filter(|line| !line.rest.is_empty() && !line.rest.starts_with('#'));
    let record =
        lines.next().ok_or(HeaderError { line: 1, field: "record line", problem: Problem::Missing })?;
    let last = record.number;
    let RecordLine { name, segments, signal_count, frequency_hz, frames } = record_line(record)?;
    let missing = |field| HeaderError { line: last, field, problem: Problem::Missing };
    let body = if let Some(count) = segments {
        let specs = (0..count).map(|_| segment_line(lines.next().ok_or_else(|| missing("segment line"))?));
        Body::Segments(specs.collect::<Result<_, _>>()?)
    } else {
        let specs =
            (0..signal_count).map(|_| signal_line(lines.next().ok_or_else(|| missing("signal line"))?));
        Body::Signals(specs.collect::<Result<_, _>>()?)
    };
    match lines.next() {
        Some(line) => Err(line.error("line", Problem::Unexpected)),
        None => Ok(Header { name, signal_count, frequency_hz, frames, body }),
    }
}

/// A line and what of it is still to be read.
#[derive(Clone, Copy)]
struct Line<'a> {
    number: usize,
    rest: &'a str,
}

impl<'a> Line<'a> {
    fn error(&self, field: &'static str, problem: Problem) -> HeaderError {
        HeaderError { line: self.number, field, problem }
    }

    fn next_word(&mut self) -> Option<&'a str> {
        let rest = self.rest.trim_start();
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.rest = rest;
        (!word.is_empty()).then_some(word)
    }

    fn word(&mut self, field: &'static str) -> Result<&'a str, HeaderError> {
        self.next_word().ok_or_else(|| self.error(field, Problem::Missing))
    }

    fn number<T: FromStr>(&self, field: &'static str, word: &str) -> Result<T, HeaderError> {
        word.parse().map_err(|_source| self.error(field, Problem::Number(excerpt(word))))
    }

    fn next_number<T: FromStr>(&mut self, field: &'static str) -> Result<Option<T>, HeaderError> {
        self.next_word().map(|word| self.number(field, word)).transpose()
    }

    fn count(&self, field: &'static str, word: &str, max: usize) -> Result<usize, HeaderError> {
        let found: u64 = self.number(field, word)?;
        match usize::try_from(found) {
            Ok(count) if count <= max => Ok(count),
            _ => Err(self.error(field, Problem::TooMany { found, max: max as u64 })),
        }
    }

    /// A name that stays in the header's own folder.
    fn plain_name(&self, field: &'static str, word: &str) -> Result<String, HeaderError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.~".contains(c);
        if word.chars().all(plain) && !word.starts_with('.') && word != "-" && !word.is_empty() {
            Ok(word.to_owned())
        } else {
            Err(self.error(field, Problem::Name(excerpt(word))))
        }
    }
}

/// At most 40 characters of what was found, for a message.
fn excerpt(word: &str) -> String {
    word.chars().take(40).collect()
}

struct RecordLine {
    name: String,
    segments: Option<usize>,
    signal_count: usize,
    frequency_hz: f64,
    frames: Option<u64>,
}

fn record_line(mut line: Line<'_>) -> Result<RecordLine, HeaderError> {
    let word = line.word("record name")?;
    let (name, segments) = match word.split_once('/') {
        Some((name, count)) => (name, Some(line.count("number of segments", count, SEGMENTS_MAX)?)),
        None => (word, None),
    };
    let name = line.plain_name("record name", name)?;
    let word = line.word("number of signals")?;
    let signal_count = line.count("number of signals", word, SIGNALS_MAX)?;
    let frequency_hz = match line.next_word() {
        // The counter frequency after the slash only labels positions; this reader needs none.
        Some(word) => line.number("sampling frequency", word.split('/').next().unwrap_or(word))?,
        None => FREQUENCY_HZ_DEFAULT,
    };
    if !(frequency_hz > 0.0 && frequency_hz <= FREQUENCY_HZ_MAX) {
        return Err(line.error("sampling frequency", Problem::Number(frequency_hz.to_string())));
    }
    let frames = line.next_number("number of samples")?.filter(|&frames: &u64| frames > 0);
    Ok(RecordLine { name, segments, signal_count, frequency_hz, frames })
}

fn segment_line(mut line: Line<'_>) -> Result<SegmentSpec, HeaderError> {
    let word = line.word("segment name")?;
    let name = line.plain_name("segment name", word)?;
    let word = line.word("number of samples")?;
    let frames = line.number("number of samples", word)?;
    Ok(SegmentSpec { name, frames, line: line.number })
}

fn signal_line(mut line: Line<'_>) -> Result<SignalSpec, HeaderError> {
    let word = line.word("file name")?;
    let file = line.plain_name("file name", word)?;
    let word = line.word("format")?;
    let Storage { format, per_frame, skew, byte_offset } = storage(&line, word)?;
    let (gain, baseline, unit) = match line.next_word() {
        Some(word) => gain(&line, word)?,
        None => (GAIN_DEFAULT, None, "mV".to_owned()),
    };
    let _bits: Option<u8> = line.next_number("ADC resolution")?;
    let adc_zero = line.next_number("ADC zero")?.unwrap_or(0);
    let initial = line.next_number("initial value")?;
    let checksum = line.next_number::<i64>("checksum")?.map(low_16_bits);
    let _block: Option<u64> = line.next_number("block size")?;
    Ok(SignalSpec {
        file,
        format,
        per_frame,
        skew,
        byte_offset,
        gain,
        baseline: baseline.unwrap_or(adc_zero),
        unit,
        adc_zero,
        initial,
        checksum,
        description: line.rest.trim().to_owned(),
        line: line.number,
    })
}

/// The checksum is 16 bits, written with or without sign.
fn low_16_bits(number: i64) -> u16 {
    let [low, high, ..] = number.to_le_bytes();
    u16::from_le_bytes([low, high])
}

struct Storage {
    format: Format,
    per_frame: usize,
    skew: usize,
    byte_offset: usize,
}

/// `FORMAT[xPERFRAME][:SKEW][+OFFSET]`.
fn storage(line: &Line<'_>, word: &str) -> Result<Storage, HeaderError> {
    let (word, offset) = split_suffix(word, '+');
    let (word, skew) = split_suffix(word, ':');
    let (format, per_frame) = split_suffix(word, 'x');
    let format =
        Format::from_number(format).ok_or_else(|| line.error("format", Problem::Format(excerpt(format))))?;
    let per_frame = per_frame.map_or(Ok(1), |word| line.count("samples per frame", word, PER_FRAME_MAX))?;
    if per_frame == 0 {
        return Err(line.error("samples per frame", Problem::Number("0".to_owned())));
    }
    let skew = skew.map_or(Ok(0), |word| line.count("skew", word, SKEW_MAX))?;
    let byte_offset = offset.map_or(Ok(0), |word| line.count("byte offset", word, HEADER_BYTES_MAX))?;
    Ok(Storage { format, per_frame, skew, byte_offset })
}

fn split_suffix(word: &str, mark: char) -> (&str, Option<&str>) {
    word.split_once(mark).map_or((word, None), |(before, after)| (before, Some(after)))
}

/// `GAIN[(BASELINE)][/UNIT]`; gain 0 means that none was measured.
fn gain(line: &Line<'_>, word: &str) -> Result<(f64, Option<i32>, String), HeaderError> {
    let (number, unit) = split_suffix(word, '/');
    let (number, baseline) = match number.split_once('(') {
        Some((number, rest)) => {
            let baseline = rest.strip_suffix(')').unwrap_or(rest);
            (number, Some(line.number("baseline", baseline)?))
        }
        None => (number, None),
    };
    let gain: f64 = line.number("ADC gain", number)?;
    if !gain.is_finite() {
        return Err(line.error("ADC gain", Problem::Number(excerpt(number))));
    }
    let gain = if gain == 0.0 { GAIN_DEFAULT } else { gain };
    Ok((gain, baseline, unit.unwrap_or("mV").to_owned()))
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;
