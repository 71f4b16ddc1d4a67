//! What the disk itself takes, in the same run: a block written over in place, then fdatasync. Nothing that keeps a promise can be
//! faster.

use std::os::unix::fs::FileExt;
use std::time::Duration;

use caregate_host::clock;

use crate::site::target;
use crate::{Figures, quantile};

const BLOCK: usize = 4096;
/// Written over and over, as a file of the spool is written along.
const BLOCKS: u64 = 1024;

pub(crate) fn measure(span: Duration, figures: &mut Figures) -> anyhow::Result<()> {
    let file = tempfile::tempfile_in(target()?)?;
    let block = [7; BLOCK];
    for at in 0..BLOCKS {
        file.write_all_at(&block, at * BLOCK as u64)?;
    }
    file.sync_all()?;
    let (begun, mut times_ms, mut at) = (clock::monotonic(), Vec::new(), 0);
    while begun.elapsed() < span {
        file.write_all_at(&block, at % BLOCKS * BLOCK as u64)?;
        let start = clock::monotonic();
        file.sync_data()?;
        times_ms.push(start.elapsed().as_secs_f64() * 1000.0);
        at += 1;
    }
    figures.put("fdatasync_p50_ms", quantile(&mut times_ms, 1, 2).unwrap_or(0.0));
    figures.put("fdatasync_p99_ms", quantile(&mut times_ms, 99, 100).unwrap_or(0.0));
    Ok(())
}
