#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| caregate_fuzz::node::node_trie(data));
