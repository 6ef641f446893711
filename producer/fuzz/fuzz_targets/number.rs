#![no_main]

#[path = "shared.rs"]
mod shared;

libfuzzer_sys::fuzz_target!(|payload: &[u8]| shared::check("number", payload));
