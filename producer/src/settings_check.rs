//! Faults of `[producer]` that only this house can see.

use common::Settings;
use common::settings::Faults;

use crate::replay::Speed;

const COMPRESSIONS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// Checks what the producer needs beyond what loading the settings has checked.
///
/// # Errors
/// All faults in one error.
pub fn check(settings: &Settings) -> Result<(), Faults> {
    let producer = &settings.producer;
    let mut faults = Vec::new();
    if let Err(fault) = producer.replay.speed.parse::<Speed>() {
        faults.push(format!("producer.replay.speed: {fault}"));
    }
    if !COMPRESSIONS.contains(&producer.compression.as_str()) {
        faults.push(format!("producer.compression: '{}' is not known; choose one of {}", producer.compression, COMPRESSIONS.join(", ")));
    }
    let simulator = &producer.simulator;
    if simulator.late + simulator.out_of_order > 1.0 {
        faults.push("producer.simulator: late and out_of_order are more than 1 together; no reading is both".to_owned());
    }
    if faults.is_empty() { Ok(()) } else { Err(Faults(faults)) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_fine_and_faults_come_together() {
        let mut settings = Settings::default();
        check(&settings).unwrap();
        settings.producer.replay.speed = "fast".into();
        settings.producer.compression = "rar".into();
        settings.producer.simulator.late = 0.7;
        settings.producer.simulator.out_of_order = 0.7;
        let Faults(faults) = check(&settings).unwrap_err();
        assert_eq!(faults.len(), 3, "{faults:?}");
    }
}
