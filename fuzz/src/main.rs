//! Runs one target of `broker::fuzz`; `TIDEMARK_FUZZ_TARGET` names it. See `run.sh`.
#![no_main]

use std::sync::OnceLock;

static TARGET: OnceLock<broker::fuzz::Target> = OnceLock::new();

fn chosen() -> broker::fuzz::Target {
    let name = std::env::var("TIDEMARK_FUZZ_TARGET").unwrap_or_default();
    let found = broker::fuzz::TARGETS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("TIDEMARK_FUZZ_TARGET={name}: there is no such target")).1
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET.get_or_init(chosen)(bytes));
