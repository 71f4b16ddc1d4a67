//! The decoders of `core-cloud`. Included by `tests/tests/fuzz_regressions.rs` as well.

use core_cloud::store::rows::{ErasedRow, Place};

use super::Target;

/// Each target by its name.
pub const TARGETS: &[Target] = &[("core_rows", core_rows)];

/// Rows of the store's tables: what is read is written and read the same.
pub fn core_rows(data: &[u8]) {
    // Short ones are of a build before; what they lack is nothing.
    let row = ErasedRow::decode(data);
    assert_eq!(ErasedRow::decode(&row.encode()), row);
    if let Some(place) = Place::decode(data) {
        assert_eq!(place.encode(), data);
        assert!(place.cut(data).is_none_or(|record| record.len() == place.length as usize));
    }
}
