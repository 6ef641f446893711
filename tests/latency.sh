#!/usr/bin/env bash
# From the produce of a reading to its result being visible, as percentiles, for three triggers on the embedded log. Run it by hand, on
# a quiet machine; nothing is asserted about time.
#
#   tests/latency.sh                              1,000 readings/s for 20 s
#   RATE=5_000 READ_SECONDS=60 SENSORS=1000 tests/latency.sh
#   LINGER=0 tests/latency.sh                     milliseconds that a reading waits for company in the load's own client (1)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build --release --workspace
cargo test --release --test latency -- --ignored --nocapture --exact from_produce_to_visible_result
