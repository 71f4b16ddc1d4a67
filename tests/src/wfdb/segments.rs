//! Joins the segments of a record into one timeline.
//!
//! In a fixed layout every segment has the same signals; in a variable one the first line names a layout (length 0) with
//! all signals, each segment has some of them, known by their names, and the rest is missing there.

use super::header::{Body, Header, SegmentSpec, SignalSpec};
use super::record::{Calibration, Folder, MISSING, Record, SAMPLES_TOTAL_MAX, Signal, WfdbError};

pub(super) fn join(
    folder: &Folder,
    name: &str,
    header: &Header,
    specs: &[SegmentSpec],
) -> Result<Record, WfdbError> {
    let total: u64 = specs.iter().fold(0, |sum: u64, spec| sum.saturating_add(spec.frames));
    if header.frames.is_some_and(|frames| frames != total) {
        let problem = format!("the segments have {total} in all");
        return Err(folder.layout(name, 1, "number of samples", problem));
    }
    let (layout, variable, specs) = layout(folder, name, specs)?;
    if layout.len() != header.signal_count {
        let problem = format!("the layout has {}", layout.len());
        return Err(folder.layout(name, 1, "number of signals", problem));
    }
    let per_frame: u64 = layout.iter().map(|spec| spec.per_frame as u64).sum();
    if total.saturating_mul(per_frame) > SAMPLES_TOTAL_MAX {
        let problem = format!("{total} frames of {per_frame} are more than {SAMPLES_TOTAL_MAX} samples");
        return Err(folder.layout(name, 1, "number of samples", problem));
    }
    let mut signals: Vec<Signal> = layout.iter().map(|spec| empty(header, spec)).collect();
    let mut frames = 0;
    for segment in specs {
        frames += segment.frames;
        if !segment.is_gap() {
            append(folder, name, segment, variable, &layout, &mut signals)?;
        }
        for (signal, spec) in signals.iter_mut().zip(&layout) {
            let len = usize::try_from(frames).unwrap_or(usize::MAX).saturating_mul(spec.per_frame);
            signal.samples.resize(len, MISSING);
        }
    }
    Ok(Record { name: name.to_owned(), frequency_hz: header.frequency_hz, frames: total, signals })
}

fn empty(header: &Header, spec: &SignalSpec) -> Signal {
    Signal {
        name: spec.description.clone(),
        unit: spec.unit.clone(),
        frequency_hz: header.frequency_hz * spec.per_frame as f64,
        samples: Vec::new(),
        calibrations: vec![Calibration { from: 0, gain: spec.gain, baseline: spec.baseline }],
    }
}

/// The signals of the whole record, whether the layout is variable, and the segments that hold samples or gaps.
fn layout<'a>(
    folder: &Folder,
    name: &str,
    specs: &'a [SegmentSpec],
) -> Result<(Vec<SignalSpec>, bool, &'a [SegmentSpec]), WfdbError> {
    let Some(first) = specs.iter().find(|spec| !spec.is_gap()) else {
        return Err(folder.layout(name, 1, "number of segments", "no segment holds samples".to_owned()));
    };
    let Body::Signals(signals) = folder.header(&first.name)?.body else {
        let problem = format!("{} is itself made of segments", first.name);
        return Err(folder.layout(name, first.line, "segment name", problem));
    };
    match specs.split_first() {
        Some((head, rest)) if head.frames == 0 && !head.is_gap() => Ok((signals, true, rest)),
        _ => Ok((signals, false, specs)),
    }
}

fn append(
    folder: &Folder,
    name: &str,
    segment: &SegmentSpec,
    variable: bool,
    layout: &[SignalSpec],
    signals: &mut [Signal],
) -> Result<(), WfdbError> {
    let refuse = |field, problem| Err(folder.layout(name, segment.line, field, problem));
    let header = folder.header(&segment.name)?;
    let Body::Signals(specs) = &header.body else {
        return refuse("segment name", format!("{} is itself made of segments", segment.name));
    };
    let part = folder.signals(&segment.name, &header, specs)?;
    if part.frames != segment.frames {
        return refuse("number of samples", format!("{} has {}", segment.name, part.frames));
    }
    if !variable && specs.len() != layout.len() {
        return refuse("segment name", format!("{} has {} signals", segment.name, specs.len()));
    }
    for (at, (own, spec)) in part.signals.into_iter().zip(specs).enumerate() {
        let place = if variable { layout.iter().position(|l| l.description == own.name) } else { Some(at) };
        let Some((signal, place)) = place.and_then(|at| Some((signals.get_mut(at)?, layout.get(at)?))) else {
            return refuse(
                "segment name",
                format!("{}'s signal {} is not in the layout", segment.name, own.name),
            );
        };
        if spec.per_frame != place.per_frame
            || header.frequency_hz * spec.per_frame as f64 != signal.frequency_hz
        {
            return refuse("segment name", format!("{}'s {} has another frequency", segment.name, own.name));
        }
        if own.unit != signal.unit {
            return refuse("segment name", format!("{}'s {} is in {}", segment.name, own.name, own.unit));
        }
        let calibration =
            Calibration { from: signal.samples.len(), gain: spec.gain, baseline: spec.baseline };
        match signal.calibrations.last_mut() {
            Some(last) if last.same_scale(&calibration) => {}
            Some(last) if last.from == calibration.from => *last = calibration,
            _ => signal.calibrations.push(calibration),
        }
        signal.samples.extend_from_slice(&own.samples);
    }
    Ok(())
}
