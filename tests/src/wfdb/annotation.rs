//! Annotations in the MIT format (WFDB `annot(5)`): 16-bit words, code in the upper 6 bits, time since the last
//! annotation in the lower 10.

use thiserror::Error;

/// One annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Annotation {
    /// Frame from the record's start.
    pub frame: u64,
    /// As in `ecgcodes.h`.
    pub code: u8,
}

/// WFDB's `isqrs`: the codes that mark a beat.
const BEAT_CODES: [u8; 19] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 25, 30, 34, 35, 38, 41];
/// Four bytes of time follow.
const SKIP: u16 = 59;
/// The annotator's number, subtype and channel: they say nothing of time.
const MODIFIERS: std::ops::RangeInclusive<u16> = 60..=62;
/// Text follows, its length in the lower bits.
const AUX: u16 = 63;

impl Annotation {
    /// Whether it marks a heart beat.
    #[must_use]
    pub fn is_beat(&self) -> bool {
        BEAT_CODES.contains(&self.code)
    }
}

/// Why an annotation file was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AnnotationError {
    /// It ends inside an annotation, or without the end mark.
    #[error("ends early at byte {0}")]
    Truncated(usize),
    /// A jump to before the start of the record.
    #[error("time goes below 0 at byte {0}")]
    Time(usize),
}

/// All annotations up to the end mark. Never panics.
pub fn parse_annotations(bytes: &[u8]) -> Result<Vec<Annotation>, AnnotationError> {
    let word = |at: usize| match bytes.get(at..at.saturating_add(2)) {
        Some(&[low, high]) => Ok(u16::from_le_bytes([low, high])),
        _ => Err(AnnotationError::Truncated(at)),
    };
    let (mut at, mut frame, mut annotations) = (0, 0_i64, Vec::new());
    loop {
        let (code, low) = (word(at)? >> 10, word(at)? & 0x3ff);
        let begin = at;
        at += 2;
        match code {
            0 if low == 0 => return Ok(annotations),
            SKIP => {
                // PDP-11 order: the high word comes first.
                let jump = u32::from(word(at)?) << 16 | u32::from(word(at + 2)?);
                frame = frame.saturating_add(i64::from(jump.cast_signed()));
                at += 4;
            }
            AUX => at += usize::from(low).next_multiple_of(2),
            code if MODIFIERS.contains(&code) => {}
            code => {
                frame = frame.saturating_add(i64::from(low));
                let frame = u64::try_from(frame).map_err(|_source| AnnotationError::Time(begin))?;
                let code = u8::try_from(code).map_err(|_source| AnnotationError::Time(begin))?;
                annotations.push(Annotation { frame, code });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn word(code: u16, low: u16) -> [u8; 2] {
        (code << 10 | low).to_le_bytes()
    }

    #[test]
    fn reads_beats_skips_and_text() {
        let bytes = [
            &word(28, 18)[..],
            &word(AUX, 3),
            b"(N\0\0",
            &word(1, 59),
            &word(SKIP, 0),
            &[1, 0, 0, 0],
            &word(5, 7),
            &word(60, 1),
            &word(0, 0),
        ]
        .concat();
        let annotations = parse_annotations(&bytes).unwrap();
        assert_eq!(annotations.iter().map(|a| a.frame).collect::<Vec<_>>(), [18, 77, 65_620]);
        assert_eq!(annotations.iter().filter(|a| a.is_beat()).count(), 2);
    }

    #[test]
    fn refuses_a_torn_file_and_negative_time() {
        assert_eq!(parse_annotations(&word(1, 5)), Err(AnnotationError::Truncated(2)));
        let bytes = [&word(SKIP, 0)[..], &[0xff; 4], &word(1, 0), &word(0, 0)].concat();
        assert_eq!(parse_annotations(&bytes), Err(AnnotationError::Time(6)));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _parsed = parse_annotations(&bytes);
        }
    }
}
