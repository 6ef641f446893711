//! The embedded log by itself: `cargo run --release -p broker --example serve -- DIR [ADDRESS] [os]`, until Ctrl-C.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use broker::{Broker, BrokerConfig, Durability};

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().expect("the folder of the log");
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:9092".to_owned());
    let mut config = BrokerConfig::new(dir, address.parse().expect("an address such as 127.0.0.1:9092"));
    if arguments.next().is_some_and(|durability| durability == "os") {
        config.durability = Durability::Os;
    }
    let broker = Broker::start(config).await.unwrap();
    println!("kafka on {}", broker.addr());
    tokio::signal::ctrl_c().await.unwrap();
    broker.shutdown().await.unwrap();
}
