//! Records that the log finds too large.
//!
//! It refuses a batch as a whole, and most of its records may be small: each is sent again in a batch of its own. One that is refused alone is set
//! aside by its beginning.

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Most bytes that are kept of a record; where they are refused too, each further refusal takes the half.
const SET_ASIDE: usize = 16 * 1024;

/// Whether the log, or the client before it, refuses a record or its batch for its size.
#[must_use]
pub fn is_too_large(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize))
}

/// Makes a producer send each record in a batch of its own.
pub fn send_alone(config: &mut ClientConfig) {
    config.set("batch.num.messages", "1").set("linger.ms", "0");
}

/// How many bytes are kept of a value of `length` that was refused alone. `again`: it is what was kept of one before.
#[must_use]
pub fn kept(length: usize, again: bool) -> usize {
    if again { length / 2 } else { length }.min(SET_ASIDE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_is_kept_with_each_refusal() {
        assert_eq!([kept(10, false), kept(1 << 20, false), kept(1 << 14, true), kept(1, true)], [10, 1 << 14, 1 << 13, 0]);
    }
}
