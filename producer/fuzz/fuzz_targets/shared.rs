//! What holds of every payload: each of its readings is one, and what is no reading is in the dead lane.

use producer::fuzzing::{FORMATS, read};

pub fn check(name: &str, payload: &[u8]) {
    let format = FORMATS.iter().find(|(other, _)| *other == name).map(|(_, format)| *format).expect("a format");
    let rows = read(format, "fuzz", payload, 1_800_000_000_000).expect("settings");
    for reading in &rows.readings {
        let reading: serde_json::Value = serde_json::from_slice(reading).expect("JSON");
        assert!(reading["sensor_id"].as_str().is_some_and(|name| !name.is_empty()), "{reading}");
        assert!(reading["value"].as_f64().is_some_and(f64::is_finite), "{reading}");
        assert!(reading["ts"].is_i64(), "{reading}");
    }
    for dead in &rows.dead {
        assert!(!dead.reason.is_empty() && !dead.detail.is_empty(), "{dead:?}");
        assert!(dead.value.len() <= payload.len(), "{dead:?}");
    }
    // Deaths and births of Sparkplug may have nothing to read.
    assert!(name == "sparkplug" || rows.readings.len() + rows.dead.len() > 0);
}
