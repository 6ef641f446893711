#!/usr/bin/env bash
# How fast readings come from an MQTT broker into the log, quality of service 1, beside Telegraf on the same work.
#
#   cargo build --release --workspace && tests/mqtt_bench.sh
#
# Two figures for each: `live`, while the devices publish as fast as their broker takes it; `backlog`, what the broker had kept for a
# session while its client was away. Both end when the last reading is in the log. The broker's own limits come first: devices without
# anybody who listens, and `mosquitto_sub`, which acknowledges at once and writes into no log.
#
# COUNT   readings (1000000)            CLIENTS   devices (200)            VERSION   5 or 3.1.1 (5)
# KAFKA   host:port of a log; apache: Apache Kafka, by tests/kafka.sh; unset: the embedded one
# BIN   where our programs are (target/release)
# TELEGRAF   its program; unset: no comparison. The log must have the topic bench.telegraf, or make it when it is written
#
# Needs mosquitto, curl, kcat. For a quiet machine; nothing here is asserted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bin=${BIN:-$PWD/target/release} count=${COUNT:-1000000} clients=${CLIENTS:-200} version=${VERSION:-5} kafka=${KAFKA:-}
mqtt=21883 status=21081
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null; rm -rf "$work"' EXIT
export PATH=$PATH:/usr/sbin

start() { # NAME COMMAND...: in the background; its number is in $started
    local name=$1; shift
    "$@" >"$work/$name.log" 2>&1 &
    started=$!
    pids+=("$started")
}
stop() { kill "$1"; wait "$1" 2>/dev/null || true; }
until_true() { until "$@" >/dev/null 2>&1; do sleep 0.05; done; }
now() { date +%s.%N; }
in_topic() { # TOPIC: how many records, by the ends of its two partitions
    kcat -b "$kafka" -Q -t "$1:0:-1" -t "$1:1:-1" 2>/dev/null | awk '/offset/ && $NF > 0 { sum += $NF } END { print sum + 0 }'
}
say() { awk -v what="$1" -v from="$2" -v to="$3" -v n="$count" 'BEGIN { printf "%-24s %8.0f messages/s\n", what, n / (to - from) }'; }

printf 'listener %s 127.0.0.1\nallow_anonymous true\npersistence false\nmax_inflight_messages 0\nmax_queued_messages 0\n' $mqtt >"$work/m.conf"
start mosquitto mosquitto -c "$work/m.conf"
if [[ $kafka == apache ]]; then
    kafka=127.0.0.1:21093
    mkdir "$work/kafka"
    start kafka tests/kafka.sh run 21093 21094 "$work/kafka"
elif [[ -z $kafka ]]; then
    kafka=127.0.0.1:21092
    start log "$bin/tidemark" --data-dir "$work/data" --kafka-port 21092 --http-port 0 --rate 0.001 --sensors 1
fi
until_true kcat -b "$kafka" -L
[[ $kafka == *:21093 ]] && tests/kafka.sh tool kafka-topics --bootstrap-server "$kafka" --create --topic bench.telegraf --partitions 2 >/dev/null

devices() { # publishes COUNT readings
    "$bin/producer" simulate --to "mqtt://127.0.0.1:$mqtt" --sensors "$clients" --rate 0 --count "$count" --http-listen 127.0.0.1:0
}

# ---- the broker alone
from=$(now); devices >/dev/null; say "devices alone" "$from" "$(now)"
listen() { mosquitto_sub -p $mqtt -V mqttv5 -c -i limit -q 1 -t 'sensors/#' -x 3600 -D connect receive-maximum 20000 "$@" >/dev/null; }
listen -E
devices >/dev/null
from=$(now); listen -C "$count"; say "mosquitto_sub, backlog" "$from" "$(now)"
mosquitto_sub -p $mqtt -V mqttv5 -i limit -t nothing -E

# ---- ours
published() { curl -sf "127.0.0.1:$status/metrics" | awk '$1 == "tidemark_producer_published_total" { print $2 }'; }
all_published() { [[ $(published) -ge $count ]]; }
subscribed() { curl -sf "127.0.0.1:$status/metrics" | grep -q '^tidemark_producer_mqtt_connected 1'; }
ours() {
    TIDEMARK_PRODUCER__MQTT__VERSION=$version start producer "$bin/producer" --mqtt "mqtt://127.0.0.1:$mqtt" --bootstrap-servers "$kafka" \
        --http-listen "127.0.0.1:$status"
    until_true subscribed
}
ours; from=$(now); devices >/dev/null; until_true all_published; say "ours, live" "$from" "$(now)"
stop "$started"
devices >/dev/null
from=$(now); ours; until_true all_published; say "ours, backlog" "$from" "$(now)"
stop "$started"

# ---- Telegraf
[[ -n ${TELEGRAF:-} ]] || exit 0
cat >"$work/telegraf.conf" <<CONF
[agent]
  flush_interval = "100ms"
  metric_batch_size = 5000
  metric_buffer_limit = 200000
  omit_hostname = true
[[inputs.mqtt_consumer]]
  servers = ["tcp://127.0.0.1:$mqtt"]
  topics = ["sensors/#"]
  qos = 1
  persistent_session = true
  client_id = "telegraf"
  max_undelivered_messages = 20000
  data_format = "json"
  json_string_fields = ["sensor_id", "kind"]
[[outputs.kafka]]
  brokers = ["$kafka"]
  topic = "bench.telegraf"
  required_acks = -1
  data_format = "json"
CONF
kcat -b "$kafka" -L -t bench.telegraf -X allow.auto.create.topics=true >/dev/null || true
all_there() { [[ $(in_topic bench.telegraf) -ge $1 ]]; }
connected() { grep -q 'Connected \[tcp' "$work/telegraf.log"; }
telegraf() { start telegraf "$TELEGRAF" --config "$work/telegraf.conf"; until_true connected; }
telegraf; from=$(now); devices >/dev/null; until_true all_there "$count"; say "Telegraf, live" "$from" "$(now)"
stop "$started"
devices >/dev/null
from=$(now); telegraf; until_true all_there $((2 * count)); say "Telegraf, backlog" "$from" "$(now)"
