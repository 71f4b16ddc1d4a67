#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| caregate_fuzz::protocol::id_text(data));
