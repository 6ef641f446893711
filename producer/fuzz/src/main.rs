//! A payload in the format that `TIDEMARK_FUZZ_TARGET` names: whatever it is, its readings are readings, and the rest is in the dead lane.
#![no_main]

use std::sync::LazyLock;

use producer::fuzzing::{FORMATS, read};

static TARGET: LazyLock<String> = LazyLock::new(|| std::env::var("TIDEMARK_FUZZ_TARGET").expect("TIDEMARK_FUZZ_TARGET names a format"));

libfuzzer_sys::fuzz_target!(|payload: &[u8]| {
    let format = FORMATS.iter().find(|(name, _)| *name == *TARGET).map(|(_, format)| *format).expect("a format");
    let rows = read(format, "fuzz", payload, 1_800_000_000_000).expect("settings without a fault");
    for reading in &rows.readings {
        let reading: serde_json::Value = serde_json::from_slice(reading).expect("JSON");
        assert!(reading["sensor_id"].as_str().is_some_and(|name| !name.is_empty()), "{reading}");
        assert!(reading["value"].as_f64().is_some_and(f64::is_finite) && reading["ts"].is_i64(), "{reading}");
    }
    for dead in &rows.dead {
        assert!(!dead.reason.is_empty() && !dead.detail.is_empty() && dead.value.len() <= payload.len(), "{dead:?}");
    }
    // Only Sparkplug has messages in which there is nothing to read.
    assert!(*TARGET == "sparkplug" || rows.readings.len() + rows.dead.len() > 0);
});
