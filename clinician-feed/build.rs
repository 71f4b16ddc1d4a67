//! The page is built by `cargo xtask web` before this crate. Without it the crate still compiles and says so at `/`.

use std::path::Path;

fn main() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("web/dist");
    if let Err(error) = std::fs::create_dir_all(&page) {
        println!("cargo::warning={}: {error}; the page will be missing", page.display());
    }
    // Each build gives its files new names, which `include_bytes!` alone would not notice.
    println!("cargo::rerun-if-changed=web/dist");
    println!("cargo::rerun-if-changed=build.rs");
}
