#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| caregate_fuzz::feed::fhir_search(data));
