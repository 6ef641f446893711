//! The flags of the binary. Each sets a key of the settings; what is not given is left to environment, file and default.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use common::cli::{CommonArgs, ConfigCommand, Flags};
use common::healthcheck::HealthcheckArgs;
use common::version::VERSION;
use producer::replay::Speed;

/// Publishes sensor readings into the Kafka log: from real devices over MQTT and HTTP, from a simulated fleet, or from CSV files.
///
/// Without --mqtt, --devices, --ingest or --replay, a seeded fleet is simulated until stopped (or until --count). Every reading is
/// acknowledged by the log before it counts as published, and before its device hears of it; Ctrl-C or SIGTERM drains what is in flight
/// and ends.
#[derive(Debug, Parser)]
#[command(name = "producer", version, long_version = VERSION, after_help = EXAMPLES, subcommand_precedence_over_arg = true)]
pub(crate) struct Args {
    /// Simulated sensors [default: 20] [env: TIDEMARK_PRODUCER__SIMULATOR__SENSORS]
    #[arg(long, value_name = "N", global = true, help_heading = "Simulator")]
    sensors: Option<u32>,
    /// Readings per second of the whole fleet; 0 is as fast as it goes [default: 100] [env: TIDEMARK_PRODUCER__SIMULATOR__RATE]
    #[arg(long, value_name = "N", global = true, help_heading = "Simulator")]
    rate: Option<f64>,
    /// The same seed gives the same fleet and values [default: 42] [env: TIDEMARK_PRODUCER__SIMULATOR__SEED]
    #[arg(long, value_name = "N", global = true, help_heading = "Simulator")]
    seed: Option<u64>,
    /// Stop after so many readings, duplicates not counted [default: go on until stopped] [env: TIDEMARK_PRODUCER__SIMULATOR__COUNT]
    #[arg(long, value_name = "N", global = true, help_heading = "Simulator")]
    count: Option<u64>,
    /// CSV files to publish instead, merged by event time; their first line names the columns: `timestamp,value` (the file's name is the
    /// sensor) or `sensor_id,ts,value[,kind][,seq]` [env: TIDEMARK_PRODUCER__REPLAY__FILES, with commas]
    #[arg(long, value_name = "FILE", num_args = 1.., global = true, help_heading = "Replay")]
    replay: Vec<PathBuf>,
    /// Times real time, such as 1 or 60, or `max` [default: 1] [env: TIDEMARK_PRODUCER__REPLAY__SPEED]
    #[arg(long, value_name = "SPEED", value_parser = speed, global = true, help_heading = "Replay")]
    speed: Option<String>,
    /// Take readings from the devices of this MQTT broker: mqtt://host[:port], or mqtts:// for TLS [env: TIDEMARK_PRODUCER__MQTT__URL]
    #[arg(long, value_name = "URL", global = true, help_heading = "Devices")]
    mqtt: Option<String>,
    /// Be the MQTT broker: devices connect here [default address: 127.0.0.1:1883] [env: TIDEMARK_PRODUCER__MQTT_LISTENER__LISTEN]
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:1883", value_parser = producer::device_address, global = true, help_heading = "Devices")]
    devices: Option<SocketAddr>,
    /// Take readings by HTTP: POST /ingest at --http-listen [env: TIDEMARK_PRODUCER__INGEST__ENABLED]
    #[arg(long, global = true, help_heading = "Devices")]
    ingest: bool,
    /// Topics of the devices, with wildcards and named parts [default: sensors/{sensor_id}, sensors/{sensor_id}/{kind},
    /// sensors/{site}/{sensor_id}/{kind}, and Sparkplug B below spBv1.0/] [env: TIDEMARK_PRODUCER__PAYLOAD__TOPICS, with commas]
    #[arg(long, value_name = "TEMPLATE", num_args = 1.., global = true, help_heading = "Devices")]
    topic: Vec<String>,
    /// How payloads are written: json, mapped_json, number, line_protocol, senml, sparkplug [default: json]
    /// [env: TIDEMARK_PRODUCER__PAYLOAD__FORMAT]
    #[arg(long, value_name = "FORMAT", global = true, help_heading = "Devices")]
    format: Option<String>,
    /// The session's name at the MQTT broker; each producer its own [default: tidemark-producer]
    /// [env: TIDEMARK_PRODUCER__MQTT__CLIENT_ID]
    #[arg(long, value_name = "NAME", global = true, help_heading = "Devices")]
    client_id: Option<String>,
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  producer --sensors 100 --rate 5000
  producer --rate 0 --count 3000000
  producer --replay machine_temperature.csv pump.csv --speed max
  producer --mqtt mqtt://broker:1883 --topic 'plant/{site}/{sensor_id}/{kind}'
  producer --devices                     # then: mosquitto_pub -q 1 -t sensors/pump-1/temperature -m 21.5
  producer simulate --to mqtt://127.0.0.1:1883 --sensors 200 --rate 1000
  producer config show

More settings (shares of late, duplicate and out-of-order readings, compression,
topics) are in `producer config show`; each can be given in a file (--config)
or in the environment (TIDEMARK_PRODUCER__SIMULATOR__LATE=0.01).";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Simulate the fleet; the same as no command, but for --to.
    Simulate {
        /// Publish as MQTT devices, each with a connection of its own, instead of into the log: mqtt://host[:port]
        /// [env: TIDEMARK_PRODUCER__SIMULATOR__MQTT__URL]
        #[arg(long, value_name = "URL")]
        to: Option<String>,
    },
    /// Show or check the settings.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Ask the running producer whether it is well, without a shell or curl; for the health check of a container.
    Healthcheck(HealthcheckArgs),
}

/// Refuses what is no speed, but keeps the text: that is what the settings hold.
fn speed(text: &str) -> Result<String, String> {
    text.parse::<Speed>().map(|_| text.to_owned())
}

impl Args {
    pub(crate) fn flags(&self) -> Flags {
        let mut flags = Flags::default();
        flags
            .set("producer.simulator.sensors", "--sensors", self.sensors)
            .set("producer.simulator.rate", "--rate", self.rate)
            .set("producer.simulator.seed", "--seed", self.seed)
            .set("producer.simulator.count", "--count", self.count)
            .set_paths("producer.replay.files", "--replay", &self.replay)
            .set("producer.replay.speed", "--speed", self.speed.clone())
            .set("producer.mqtt.url", "--mqtt", self.mqtt.clone())
            .set("producer.mqtt.client_id", "--client-id", self.client_id.clone())
            .set("producer.mqtt_listener.listen", "--devices", self.devices.map(|address| address.to_string()))
            .set("producer.ingest.enabled", "--ingest", self.ingest.then_some(true))
            .set("producer.payload.topics", "--topic", (!self.topic.is_empty()).then(|| self.topic.clone()))
            .set("producer.payload.format", "--format", self.format.clone());
        if let Some(Command::Simulate { to }) = &self.command {
            flags.set("producer.simulator.mqtt.url", "--to", to.clone());
        }
        flags
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::CommandFactory as _;
    use common::settings::{Replay, Simulator};

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_help_tells_the_true_defaults() {
        let help = Args::command().render_long_help().to_string();
        let (simulator, replay) = (Simulator::default(), Replay::default());
        for (flag, default) in [
            ("Simulated sensors", simulator.sensors.to_string()),
            ("as fast as it goes", simulator.rate.to_string()),
            ("same fleet and values", simulator.seed.to_string()),
            ("or `max`", replay.speed),
        ] {
            assert!(help.contains(&format!("{flag} [default: {default}]")), "{flag} in {help}");
        }
        assert_eq!(simulator.count, None);
    }

    #[test]
    fn flags_become_settings() {
        let args =
            Args::try_parse_from(["producer", "--rate", "2.5", "--replay", "a.csv", "b.csv", "--speed", "max", "config", "show"]).unwrap();
        let settings = args.common.load(args.flags()).unwrap().settings;
        assert_eq!(settings.producer.simulator.rate, 2.5);
        assert_eq!(settings.producer.replay.files, [PathBuf::from("a.csv"), PathBuf::from("b.csv")]);
        assert_eq!(settings.producer.replay.speed, "max");
    }
}
