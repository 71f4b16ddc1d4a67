//! What became of every reading: joins what the sensors journalled with what the core, the feed and the browser saw, and
//! compares every sample with the record or generator that it came from.

mod check;
mod lines;
mod samples;

pub use check::{Exclusion, ExclusionError, Inputs, Report, Withheld, check};
pub use lines::{
    Arrival, FeedReading, Journalled, LinesError, Readings, Wave, read_arrivals, read_feed, read_journal,
};
pub use samples::{Comparison, compare};
