#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| caregate_fuzz::client::fhir_consent(data));
