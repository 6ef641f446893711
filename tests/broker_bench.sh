#!/usr/bin/env bash
# The embedded log's figures beside Apache Kafka's, in one run: records per second in and out, memory, what it takes when nothing
# happens, how soon it is ready with 10 GB of log.
#
#   tests/broker_bench.sh [build]    "build": only builds what it needs
#
# RECORDS (5,000,000) and FILL (10,000,000,000 bytes; 0 leaves that part out) may be set. The log is in a folder below TMPDIR, which
# needs room for it. Needs what tests/kafka.sh needs; without Java, Kafka's lines are missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build --release -p broker --examples
[[ ${1:-} != build ]] || exit 0
bin=target/release/examples
dir=$(mktemp -d)
pids=()
cleanup() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$dir"
}
trap cleanup EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
listening() { for _ in {1..600}; do (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return; sleep 0.1; done; echo "nothing listens on $1" >&2; exit 1; }
memory() { awk '/^(VmRSS|VmHWM|RssAnon):/ { printf "%s %d MiB  ", $1, $2 / 1024 }' "/proc/$1/status"; }
ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }

# serve FOLDER [os]: starts the log, and says after how many milliseconds it was ready.
serve() {
    local began=$(date +%s%N)
    coproc LOG { exec "$bin/serve" "$1" 127.0.0.1:0 ${2:-}; }
    pid=$LOG_PID; pids+=("$pid")
    local line; read -r line <&"${LOG[0]}"
    ready=$((($(date +%s%N) - began) / 1000000)); address=${line##* }
}
stop() { kill -INT "$pid"; wait "$pid" 2>/dev/null || true; }

for durability in os fsync; do
    serve "$dir/$durability" "$durability"
    echo "this log, durability $durability: $("$bin/throughput" "$address")"
    echo "  $(memory "$pid")"
    if [[ $durability == fsync ]]; then
        # Its compaction and retention look at their topics in that time, too.
        before=$(ticks "$pid"); sleep 30; after=$(ticks "$pid")
        echo "  doing nothing: $(awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" 'BEGIN { printf "%.2f", 100 * t / hz / 30 }') % of a core, over 30 s"
    fi
    stop
    rm -rf "${dir:?}/$durability"
done

if command -v java >/dev/null; then
    port=$(free_port); mkdir "$dir/kafka"
    bash tests/kafka.sh run "$port" "$(free_port)" "$dir/kafka" >"$dir/kafka.log" 2>&1 &
    kafka=$!; pids+=("$kafka")
    listening "$port"
    for round in first second; do
        [[ $round == first ]] || bash tests/kafka.sh tool kafka-topics --bootstrap-server "127.0.0.1:$port" --delete --topic iot >/dev/null
        echo "Apache Kafka, $round round: $("$bin/throughput" "127.0.0.1:$port")"
    done
    echo "  $(memory "$kafka")"
    kill "$kafka"; wait "$kafka" 2>/dev/null || true
    rm -rf "$dir/kafka"
fi

if [[ ${FILL:-10000000000} != 0 ]]; then
    serve "$dir/full" os
    "$bin/throughput" "$address" fill "${FILL:-10000000000}"
    echo "this log with $(du -sh "$dir/full" | cut -f1): $(memory "$pid")"
    kill -KILL "$pid"; wait "$pid" 2>/dev/null || true
    serve "$dir/full" os
    echo "  ready again $ready ms after its process was started, after SIGKILL"
    stop
    serve "$dir/full" os
    echo "  ready again $ready ms after its process was started, after a stop; $(memory "$pid")"
    stop
fi
