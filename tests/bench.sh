#!/usr/bin/env bash
# Large workloads through the processor, every result row compared with an oracle. Run it by hand, on a quiet machine.
#
#   tests/bench.sh                    5 million readings of 1,000 sensors on the embedded log
#   N=20_000_000 tests/bench.sh       another number (SENSORS: 1000)
#   KILLS=3 tests/bench.sh            SIGKILL of the processor three times on the way, and of the log once
#   tests/bench.sh sensors            a million sensors (SENSORS) beside a thousand
#   tests/bench.sh hopping            windows of 60 s every second beside tumbling ones
#   tests/bench.sh others             10 and 100,000 sensors, ten columns, values of 500 bytes
#   tests/bench.sh restore            from the start to the first result, with 100,000 groups (SENSORS) to restore (RUNS: 5)
#   tests/bench.sh simulator          the producer's simulator into the embedded log
#   tests/bench.sh appliance          everything in one process: at RATE (200_000), at 1,000/s, and doing nothing (READ_SECONDS: 20)
#   tests/bench.sh shared             by the benchmark in ../shared/bench, where it is: its generator, its oracle, its table; with
#                                     PEERS="flink-stream ks-rocksdb" those before and after it, and librdkafka alone (Maven)
#                                     with LAT_SECS=60 its latency at 20,000 readings/s as well
#
# KAFKA=apache takes Apache Kafka instead of the embedded log (Java 17 or later, Maven).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build --release --workspace

[[ ${KAFKA:-} != apache ]] || export TIDEMARK_TEST_KAFKA=1
own() { cargo test --release --test bench -- --ignored --nocapture --exact "$1"; }

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
# Every peer says when it begins to read, so that its start is a column of its own: here by the line about what was restored.
exec "$PWD/target/release/processor" --bootstrap-servers "\$BROKERS" --http-listen 127.0.0.1:0 --query "\$STATE_DIR/\$name.toml" \
    > >(exec sed --unbuffered '0,/: restored /{/: restored /e date +"PEER_READY %s%3N"
}') 2>&1
PEER
    chmod +x "$command"
    "$bench/run.sh" setup rust
    local peer
    for peer in ${PEERS:-}; do
        case $peer in
            flink-*) "$bench/run.sh" setup flink ;;
            ks-*) "$bench/run.sh" setup kstreams ;;
            spark*) "$bench/run.sh" setup spark ;;
            *) "$bench/run.sh" setup python ;;
        esac
    done
    "$bench/run.sh" broker
    trap '"$bench/run.sh" stop' EXIT
    "$bench/run.sh" load
    local round
    for round in before after; do
        [[ -z ${PEERS:-} ]] || "$bench/run.sh" raw
        [[ -z ${PEERS:-} ]] || "$bench/run.sh" peers $PEERS
        [[ $round == after ]] || RUNS=${RUNS:-3} "$bench/run.sh" --peer tidemark --cmd "$command"
    done
    [[ -z ${LAT_SECS:-} ]] || "$bench/run.sh" --peer tidemark --cmd "$command" --latency
    "$bench/run.sh" table
}

case ${1:-} in
    '') own a_large_workload_is_exact ;;
    sensors) own a_million_sensors ;;
    hopping) own more_windows_for_each_reading ;;
    others) own other_queries_and_readings ;;
    restore) own start_to_first_result ;;
    simulator) own the_simulator_into_the_log ;;
    appliance) own the_whole_appliance ;;
    shared) shared ;;
    *) sed -n '2,17p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
