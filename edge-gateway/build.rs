//! Linker flags that make the shipped binary smaller: a router's flash is the limit (docs/limits.md).
//!
//! On this target rustc links with the LLD that comes with it. Relative relocations in their packed form (RELR, read by
//! glibc from 2.36, which Debian 12 has) save 450 KiB; folding of identical functions another 270.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |key: &str, value: &str| std::env::var(key).is_ok_and(|found| found == value);
    let own_linker = std::env::var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|flags| flags.contains("link"))
        || std::env::var_os("RUSTC_LINKER").is_some();
    if is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ENV", "gnu")
        && is("CARGO_CFG_TARGET_ARCH", "x86_64")
        && !own_linker
    {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}
