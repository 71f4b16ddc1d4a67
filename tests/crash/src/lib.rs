//! A disk that loses power, for tests of what claims to be durable.
//!
//! [`Disk`] is told what a program does to its files, in order. At a chosen step the power fails: [`Disk::cut`] then is one of the
//! states in which a real disk might be found. Whatever no sync had covered is dropped, torn or reordered:
//!
//! * a page (4 KiB) that was written since its last sync holds, sector by sector, any of the contents that it ever had since;
//! * a file that was lengthened or cut since has any of its lengths since;
//! * of the names that were made, moved or removed since the directory's last sync, any may have come to the disk and any not;
//! * after a sync that failed, pages count as clean although they are not (as Linux does): no later sync writes them.
//!
//! With [`Syncs::TakenOut`] every sync says that it worked and does nothing: the test of the tests.

mod disk;
mod pages;
mod random;
mod tally;

pub use disk::{Disk, Image, Syncs};
pub use random::Random;
pub use tally::{Tally, prove};

#[cfg(test)]
mod tests;
