//! The readers of WFDB recordings in `caregate-tests`. Included by `tests/tests/fuzz_regressions.rs` as well.

use caregate_tests::wfdb::signal::Format;
use caregate_tests::wfdb::{decode_signal, parse_annotations, parse_header};

use super::Target;

/// Each target by its name.
pub const TARGETS: &[Target] =
    &[("wfdb_header", wfdb_header), ("wfdb_signal", wfdb_signal), ("wfdb_annotations", wfdb_annotations)];

/// `.hea` files.
pub fn wfdb_header(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = parse_header(text) {
        assert!(!error.to_string().is_empty());
    }
}

/// `.dat` files; the first two bytes say how many samples to read.
pub fn wfdb_signal(data: &[u8]) {
    let Some((count, data)) = data.split_first_chunk::<2>() else { return };
    let count = usize::from(u16::from_le_bytes(*count));
    for format in [Format::F16, Format::F80, Format::F212, Format::Null] {
        match decode_signal(format, data, count) {
            Ok(samples) => assert_eq!(samples.len(), count),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// `.atr` files.
pub fn wfdb_annotations(data: &[u8]) {
    if let Err(error) = parse_annotations(data) {
        assert!(!error.to_string().is_empty());
    }
}
