#!/usr/bin/env bash
# How long the results of a partition pause when processors come and go, on the embedded log and on Apache Kafka, and what a standby copy
# saves at a takeover. Run it by hand, on a quiet machine; nothing is asserted about time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build --release --workspace
TIDEMARK_TEST_KAFKA=1 cargo test --release --test scale -- --ignored --nocapture --test-threads 1 pauses
cargo test --release --test scale -- --nocapture --exact a_standby_takes_over_with_little_to_read
