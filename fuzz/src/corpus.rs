//! Feeds the kept inputs to the targets, for the plain tests.

use std::fs;
use std::path::Path;

use super::Target;

/// Every file in `fuzz/seeds/{target}` and `fuzz/regressions/{target}`, to the target of that name. `fuzz` is the folder.
///
/// # Panics
/// As a target does; and when a target has no seed or can't be read, since it would then test nothing.
pub fn replay(fuzz: &Path, targets: &[Target]) {
    for (name, target) in targets {
        let seeds = files(&fuzz.join("seeds").join(name));
        assert!(!seeds.is_empty(), "no seeds for {name}");
        for file in seeds.into_iter().chain(files(&fuzz.join("regressions").join(name))) {
            let data = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            #[expect(clippy::print_stdout, reason = "shown by the test harness only when the target panics")]
            {
                println!("{}", file.display());
            }
            target(&data);
            // Cut short, as a connection would.
            target(&data[..data.len() / 2]);
        }
    }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    files
}
