#!/usr/bin/env bash
# A large workload through the processor, every result row compared with an oracle. Run it by hand, on a quiet machine.
#
#   tests/bench.sh                    5 million readings on the embedded log
#   N=20_000_000 tests/bench.sh       another number (SENSORS: 1000)
#   KILLS=3 tests/bench.sh            SIGKILL of the processor three times on the way, and of the log once
#   tests/bench.sh kafka              the same on Apache Kafka (Java 17 or later, Maven)
#   tests/bench.sh shared             by the benchmark in ../shared/bench, where it is: its generator, its oracle, its table
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build --release --workspace

own() { cargo test --release --test bench -- --ignored --nocapture --exact a_large_workload_is_exact; }

# The shared benchmark wants its own columns: times in milliseconds, `count` instead of `n`.
shared() {
    # Not local: the trap below runs after this function.
    bench=$(cd .. && pwd)/shared/bench
    [[ -x $bench/run.sh ]] || { echo "bench.sh: there is no ../shared/bench here" >&2; exit 1; }
    export WORK=${WORK:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark-bench}
    mkdir -p "$WORK"
    local command="$WORK/tidemark-peer.sh"
    cat >"$command" <<PEER
#!/usr/bin/env bash
set -euo pipefail
# Another name for every run: a name has a journal, and a journal goes on where it stopped.
name=bench-\$(date +%s%N)
cat >"\$STATE_DIR/\$name.toml" <<QUERY
name = "\$name"
[source]
topic = "\$IN_TOPIC"
schema = "sensor_id STRING, ts TIMESTAMP, value DOUBLE, kind STRING, seq BIGINT"
event_time = "ts"
watermark = "5 seconds"
[query]
sql = """SELECT sensor_id, unix_millis(window.start) AS window_start, unix_millis(window.end) AS window_end,
                count(*) AS \\\`count\\\`, avg(value) AS avg, min(value) AS min, max(value) AS max
         FROM \\\`\$IN_TOPIC\\\` GROUP BY window(ts, '10 seconds'), sensor_id"""
[sink]
topic = "\$OUT_TOPIC"
QUERY
exec "$PWD/target/release/processor" --bootstrap-servers "\$BROKERS" --http-listen 127.0.0.1:0 --query "\$STATE_DIR/\$name.toml"
PEER
    chmod +x "$command"
    "$bench/run.sh" setup rust
    "$bench/run.sh" broker
    trap '"$bench/run.sh" stop' EXIT
    "$bench/run.sh" load
    "$bench/run.sh" --peer tidemark --cmd "$command"
    "$bench/run.sh" table
}

case ${1:-own} in
    own) own ;;
    kafka) TIDEMARK_TEST_KAFKA=1 own ;;
    shared) shared ;;
    *) sed -n '2,8p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
