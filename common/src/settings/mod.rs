//! One typed tree of settings for every binary.
//!
//! A value comes from the first of: flag, environment (`TIDEMARK_KAFKA__BOOTSTRAP_SERVERS`), file (`--config FILE`), default.
//! Every key of the tree has a default, so the tree of defaults is also the list of the keys that exist: a key that is not in it is a
//! fault. All faults of all sources are reported together.

mod devices;
mod load;
mod sections;
mod sink;

pub use devices::*;
pub use load::{Faults, Flag, Loaded, Origin, load};
pub use sections::*;
use serde::{Deserialize, Serialize};
pub use sink::*;

/// Everything that can be set. Each house reads its own section and the shared ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    pub kafka: Kafka,
    pub topics: Topics,
    pub http: Http,
    pub log: Log,
    pub sql: Sql,
    pub producer: Producer,
    pub processor: Processor,
    pub sink: Sink,
    pub broker: Broker,
    pub appliance: Appliance,
}

impl Settings {
    /// Faults that no single key shows.
    pub(crate) fn cross_faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |fine: bool, text: &str| {
            if !fine {
                faults.push(text.to_owned());
            }
        };
        check(self.topics.partitions >= 1, "topics.partitions is 0; a topic has at least 1 partition");
        check(
            self.http.certificate_file.is_some() == self.http.key_file.is_some(),
            "http.certificate_file and http.key_file belong together; set both, or neither",
        );
        check(
            self.http.client_ca_file.is_none() || self.http.certificate_file.is_some(),
            "http.client_ca_file needs http.certificate_file: clients show certificates over TLS only",
        );
        for (key, share) in self.producer.simulator.shares() {
            check((0.0..=1.0).contains(&share), &format!("producer.simulator.{key} is {share}; a share lies between 0 and 1"));
        }
        check(
            self.producer.simulator.rate >= 0.0 && self.producer.simulator.rate.is_finite(),
            "producer.simulator.rate must be 0 (as fast as it goes) or a positive number of readings per second",
        );
        check(self.producer.simulator.sensors >= 1, "producer.simulator.sensors is 0; simulate at least 1 sensor");
        check(self.producer.mqtt.receive_maximum >= 1, "producer.mqtt.receive_maximum is 0; the broker could never send");
        check(self.producer.mqtt_listener.receive_maximum >= 1, "producer.mqtt_listener.receive_maximum is 0; no device could send");
        check(self.producer.simulator.mqtt.in_flight >= 1, "producer.simulator.mqtt.in_flight is 0; no device could send");
        for (key, span) in [
            ("producer.mqtt.keep_alive", self.producer.mqtt.connection.keep_alive),
            ("producer.simulator.mqtt.keep_alive", self.producer.simulator.mqtt.connection.keep_alive),
        ] {
            check((1_000..=65_535_000).contains(&span.millis()), &format!("{key} is {span}; it lies between 1s and 65535s"));
        }
        check(self.sql.max_rows >= 1, "sql.max_rows is 0; an answer has at least 1 row (sql.enabled = false takes no questions)");
        check(self.processor.max_rows_per_step >= 1, "processor.max_rows_per_step is 0; a step takes at least 1 row");
        check(
            self.processor.drain_timeout < self.processor.session_timeout,
            "processor.drain_timeout must be shorter than processor.session_timeout, or another processor takes over before the drain ends",
        );
        for fault in self.broker.external.faults() {
            check(false, fault);
        }
        for part in self.log.level.split(',') {
            let level = part.rsplit('=').next().unwrap_or_default().trim().to_lowercase();
            let known = ["off", "error", "warn", "info", "debug", "trace"].contains(&level.as_str());
            check(
                known,
                &format!("log.level: '{part}' is none of off, error, warn, info, debug and trace, nor PART=LEVEL with one of them"),
            );
        }
        for server in self.kafka.bootstrap_servers.split(',').map(str::trim) {
            // As librdkafka has it: PROTOCOL://HOST:PORT, of which only the host must be there.
            let address = server.split_once("://").map_or(server, |(_, address)| address);
            let port = address.rsplit_once(':').filter(|_| !address.ends_with(']')).map(|(_, port)| port);
            let is_one = !address.is_empty() && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
            check(is_one, &format!("kafka.bootstrap_servers: '{server}' is no HOST:PORT such as 127.0.0.1:9092"));
        }
        for name in [&self.topics.input, &self.topics.late, &self.topics.dead] {
            if let Err(fault) = crate::topics::check_name(name) {
                check(false, &format!("topics: {fault}"));
            }
        }
        let Topics { input, late, dead, .. } = &self.topics;
        for (key, name, is_own) in [("topics.late", late, late != input), ("topics.dead", dead, dead != input && dead != late)] {
            let own = "what is set aside would be read or judged again";
            check(is_own, &format!("{key} is '{name}', which another of the topics is as well; {own}: give it a name of its own"));
        }
        faults.extend(self.sink.faults());
        faults
    }
}
