//! As `size_without_verifier`, with all of the verifier that a gateway calls: the difference in size is what it adds.

use std::io::Read as _;
use std::process::ExitCode;

use caregate_protocol::policy::{Floors, PolicyBundle, SignedEmergency, SignedRevocation, VerifiedPolicy};
use ledger_client::verify::{
    Address, Enrolment, LedgerPin, NewestKeys, bundle_number, emergency_numbers, verify_bundle,
    verify_emergency, verify_revocation,
};

fn main() -> ExitCode {
    let mut bytes = Vec::new();
    let read = std::io::stdin().read_to_end(&mut bytes).is_ok();
    let ledger = LedgerPin {
        chain_id: bundle_number(&bytes),
        contract: Address([7; 20]),
        validators: vec![Address([9; 20])],
        staleness_max_s: 600,
    };
    let Ok(pins) = (Enrolment { ledger, patients: Vec::new() }).pins() else { return ExitCode::FAILURE };
    let decoded = (PolicyBundle::decode(&bytes), SignedRevocation::decode(&bytes));
    let is_good = match decoded {
        (Ok(_), _) => {
            let floors = Floors::default();
            verify_bundle(&bytes, &pins, &floors, 0).is_ok_and(|bundle| {
                bundle.admit(&floors).is_ok()
                    && emergency_numbers(&bytes, &bundle.header, &pins, None).is_empty()
            })
        }
        (Err(_), Ok(signed)) => verify_revocation(&signed, &pins, &NewestKeys::default()).is_ok(),
        (Err(_), Err(_)) => SignedEmergency::decode(&bytes)
            .is_ok_and(|signed| verify_emergency(&signed, &pins, &VerifiedPolicy::none(), 0).is_ok()),
    };
    ExitCode::from(u8::from(!(read && is_good)))
}
