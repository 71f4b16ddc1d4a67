//! What is tried on the disk.

use caregate_guest::power::Report;

/// Says in the log of writes that the promise of this number holds from here on. Numbers count from 0.
pub(crate) type Mark<'a> = dyn Fn(usize) -> anyhow::Result<()> + Sync + 'a;

/// A run that has ended, with all that it was promised.
pub(crate) trait Work: Send {
    /// How much was promised at its end.
    fn promised(&self) -> u64;

    /// Holds what lies on the mounted disk against the promises of a mark. `resumes`: also starts what works there, and has it go on.
    ///
    /// # Errors
    /// What does not open, or does not go on.
    fn check(&self, mark: usize, resumes: bool) -> anyhow::Result<Report>;

    /// As much as was promised at a mark, where nothing opens.
    fn due(&self, mark: usize) -> u64;
}
