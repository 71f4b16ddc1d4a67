//! Memory that is reserved is there: the kernel need not find it when it is wanted. Without the harness, which has threads before there is
//! one heap.

use std::error::Error;

use caregate_host::memory;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Pages that the kernel has found for this process so far: the tenth field of `proc_pid_stat(5)`, after a name in parentheses.
fn faults() -> Result<usize> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no name")?;
    Ok(fields.split_whitespace().nth(7).ok_or("no faults")?.parse()?)
}

/// Takes and writes so many blocks of a kilobyte, and says how many pages the kernel had to find for them.
fn take(blocks: usize) -> Result<(Vec<Vec<u8>>, usize)> {
    let mut taken = Vec::with_capacity(blocks);
    let before = faults()?;
    for _ in 0..blocks {
        taken.push(vec![1; 1024]);
    }
    Ok((taken, faults()? - before))
}

fn main() -> Result<()> {
    memory::one_heap();
    // A page holds less than four of them.
    let (first, found) = take(1024)?;
    assert!(found > 200, "{found}: this counts the pages");
    memory::reserve(4 * 1024 * 1024);
    let (second, found) = take(2048)?;
    assert!(found < 50, "{found} of 512 pages were not there");
    // Nor are they given back: what tables leave free is for the next ones.
    drop((first, second));
    let (_third, found) = take(3072)?;
    assert!(found < 50, "{found} of 768 pages were given back");
    Ok(())
}
