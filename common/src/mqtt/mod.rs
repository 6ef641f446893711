//! A client's connection to an MQTT broker: what the producer, its simulated devices and a query that reads topics share.
//!
//! | file | what |
//! |---|---|
//! | [`keep`] | connects, and connects again |
//! | [`link`] | one connection of either version, over rumqttc |
//! | [`options`] | its address, user, password and certificates, checked and read from their files |
//! | [`session`] | what the broker remembers from one connection to the next |

pub mod keep;
pub mod link;
pub mod options;
pub mod session;
