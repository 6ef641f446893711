//! Faults of `[producer]` that only this house can see.

use common::Settings;
use common::mqtt::options::{PAIR, faults as connection_faults};
use common::settings::{Faults, Producer};

use crate::payload::Reader;
use crate::replay::Speed;

const COMPRESSIONS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// Checks what the producer needs beyond what loading the settings has checked.
///
/// # Errors
/// All faults in one error.
pub fn check(settings: &Settings) -> Result<(), Faults> {
    let producer = &settings.producer;
    let open = settings.http.listen.filter(|address| !address.ip().is_loopback());
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
    faults.extend(devices(producer));
    let has_token = producer.ingest.token.is_some() || producer.ingest.token_file.is_some();
    if let Some(address) = open.filter(|_| producer.ingest.enabled && !has_token) {
        faults.push(format!("producer.ingest takes readings at {address}, which others can reach; set producer.ingest.token_file"));
    }
    if faults.is_empty() { Ok(()) } else { Err(Faults(faults)) }
}

/// Faults of the doors.
fn devices(producer: &Producer) -> Vec<String> {
    let mut faults = Reader::new(&producer.payload).err().unwrap_or_default();
    for (key, connection) in
        [("producer.mqtt", &producer.mqtt.connection), ("producer.simulator.mqtt", &producer.simulator.mqtt.connection)]
    {
        faults.extend(connection_faults(connection).into_iter().map(|fault| format!("{key}.{fault}")));
    }
    if producer.mqtt.share.as_deref().is_some_and(|share| share.is_empty() || share.contains(['/', '+', '#'])) {
        faults.push("producer.mqtt.share: a shared subscription's name has no '/', '+' or '#' and is not empty".to_owned());
    }
    let real = producer.mqtt.connection.url.is_some() || producer.mqtt_listener.listen.is_some() || producer.ingest.enabled;
    if real && !producer.replay.files.is_empty() {
        faults.push("producer.replay.files is given with real devices (mqtt, mqtt_listener, ingest); choose one".to_owned());
    }
    let listener = &producer.mqtt_listener;
    let known = listener.users_file.is_some() || listener.tls_client_ca_file.is_some() || listener.allow_anonymous;
    if let Some(address) = listener.listen.filter(|address| !address.ip().is_loopback() && !known) {
        faults.push(format!(
            "producer.mqtt_listener.listen is {address}, which others can reach: name users_file (mosquitto_passwd writes it) or \
             tls_client_ca_file, or say allow_anonymous = true"
        ));
    }
    if listener.tls_client_ca_file.is_some() && listener.tls_certificate_file.is_none() {
        faults.push("producer.mqtt_listener.tls_client_ca_file needs tls_certificate_file and tls_key_file".to_owned());
    }
    if listener.tls_certificate_file.is_some() != listener.tls_key_file.is_some() {
        faults.push(format!("producer.mqtt_listener.{PAIR}"));
    }
    faults
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

    #[test]
    fn what_would_be_ignored_is_said() {
        let mut settings = Settings::default();
        let mqtt = &mut settings.producer.mqtt.connection;
        mqtt.url = Some("mqtt://broker".into());
        mqtt.tls_key_file = Some("key.pem".into());
        mqtt.password_file = Some("password".into());
        settings.producer.mqtt_listener.tls_key_file = Some("key.pem".into());
        let Faults(faults) = check(&settings).unwrap_err();
        let said = |what: &str| faults.iter().any(|fault| fault.contains(what));
        assert!(said("producer.mqtt.url") && said("producer.mqtt.tls_") && said("producer.mqtt.password"), "{faults:?}");
        assert!(said("producer.mqtt_listener.tls_") && faults.len() == 4, "{faults:?}");
    }
}
