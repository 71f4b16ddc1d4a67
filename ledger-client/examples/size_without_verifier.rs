//! What the verifier is measured against (docs/benchmarks.md, "The verifier's size"): a program that reads a bundle and verifies nothing.

use std::io::Read as _;
use std::process::ExitCode;

use caregate_protocol::policy::{PolicyBundle, SignedEmergency, SignedRevocation};

fn main() -> ExitCode {
    let mut bytes = Vec::new();
    let read = std::io::stdin().read_to_end(&mut bytes).is_ok();
    let is_good = PolicyBundle::decode(&bytes).is_ok()
        || SignedRevocation::decode(&bytes).is_ok()
        || SignedEmergency::decode(&bytes).is_ok();
    ExitCode::from(u8::from(!(read && is_good)))
}
