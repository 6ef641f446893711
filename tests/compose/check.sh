#!/usr/bin/env bash
# Brings up the stack of deploy/compose.yaml, with images made of the programs in target/release, and checks that it keeps what it promises:
# running within a minute, `down` and `up`, each container killed under load, two processors and back, devices over MQTT, a second
# database, a fleet that misbehaves, TLS; nothing runs as root, no secret is to be seen, no port beyond the loopback address.
#
#   tests/compose/check.sh [--binaries DIR] [STEP...]
#
# No image may have more than 60 MB beyond its base. Needs root, Go, and the programs built; TLS is checked when they were built with
# `--features tidemark/tls`. The engine and the stand-ins for official images are of the tests' own (engine.sh, images.sh).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
binaries=$root/target/release
project=tidemark-check
programs=(tidemark producer processor sink)
all="start rights secrets ports tokens down_up faults scale victoria chaos mqtt tls"

die() { echo "check.sh: $*" >&2; exit 1; }
step() { printf '\n-- %s (%d:%02d)\n' "$*" $((SECONDS / 60)) $((SECONDS % 60)); }

if [[ ${1:-} == --binaries ]]; then binaries=$2; shift 2; fi
for name in "${programs[@]}"; do [[ -x $binaries/$name ]] || die "$binaries/$name is missing; cargo build --release --workspace makes it"; done

step "engine, and stand-ins for official images"
eval "$("$here/engine.sh" start)"
work=$(mktemp -d)
files=()
cleanup() {
    [[ ${#files[@]} -eq 0 ]] || docker compose -p "$project" "${files[@]}" --profile '*' down --volumes --timeout 5 >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap cleanup EXIT
"$here/images.sh" parts >"$work/parts.log" 2>&1 || { tail -30 "$work/parts.log"; die "the stand-ins cannot be made"; }
docker compose version

# The context that BINARIES=prebuilt reads.
mkdir -p "$work/context/dist"
cp "$root/Dockerfile" "$work/context/"
cp /etc/ssl/certs/ca-certificates.crt "$work/context/dist/"
for name in "${programs[@]}"; do strip -o "$work/context/dist/$name" "$binaries/$name"; done
build="build: { context: $work/context, args: { BINARIES: prebuilt } }"
printf 'services:\n  setup: { %s }\n  producer: { %s }\n  processor: { %s }\n  sink: { %s }\n' "$build" "$build" "$build" "$build" >"$work/build.yaml"
files=(-f "$root/deploy/compose.yaml" -f "$work/build.yaml")

# Other ports than those of a stack that may run here: ten in a row that are free, below those that the system gives to clients, since a
# container that is started again must find its port free.
first=$(python3 - <<'PYTHON'
import random, socket
def free(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
print(next(first for first in iter(lambda: random.randrange(10000, 32000, 10), None) if all(map(free, range(first, first + 10)))))
PYTHON
)
names=(KAFKA INFLUXDB PROMETHEUS GRAFANA MQTT VICTORIA)
for ((i = 0; i < ${#names[@]}; i++)); do export "${names[i]}_PORT=$((first + 4 + i))"; done
export PROCESSOR_PORTS=$first-$((first + 3)) TIDEMARK_VERSION=check TIDEMARK_RATE=${TIDEMARK_RATE:-500}

compose() { docker compose -p "$project" "${files[@]}" --progress quiet "$@"; }
up() { compose "$@" up -d --wait --no-build --wait-timeout 300 || { compose --profile '*' ps --all; compose --profile '*' logs --tail 40; die "the stack does not come up"; }; }
ledger() { compose exec -T processor processor ledger "$@"; }
rows() { ledger --output json | awk -v key="\"$1\":" '$1 == key { sum += $2 } END { print sum + 0 }'; }
# Where the engine keeps a volume.
volume() { docker volume inspect --format '{{.Mountpoint}}' "${project}_$1"; }
secret() { cat "$(volume "secrets-$1")/$2"; }
containers() { compose --profile '*' ps --all --quiet; }
query() { curl -s -H "Authorization: Token $2" -H 'content-type: application/vnd.flux' "127.0.0.1:$INFLUXDB_PORT/api/v2/query?org=tidemark" --data "$1"; }

# Whether a pipe's text has a line of this pattern. Unlike `grep -q` it reads to the end: what writes must not be ended by a closed pipe.
has() { [[ $(grep -c -e "$1") -gt 0 ]]; }

# await WHAT COMMAND...: until the command succeeds. The limit is for a stack that has stopped working, not for a slow machine.
await() {
    local limit=$((SECONDS + 300)) what=$1
    shift
    until "$@"; do [[ $SECONDS -lt $limit ]] || die "$what did not happen in time"; sleep 1; done
}

agrees() { compose run --rm --no-deps -T verify >"$work/verify" 2>"$work/faults"; }
balances() {
    await "that InfluxDB holds what the log gives" agrees
    ledger
    grep equal "$work/verify"
}

# What each image adds to its base.
sizes() {
    local base name bytes limit=60000000
    base=$(docker image inspect --format '{{.Size}}' debian:bookworm-slim)
    for name in "${programs[@]}"; do
        bytes=$(($(docker image inspect --format '{{.Size}}' "tidemark/$name:check") - base))
        printf '%s: %d.%d MB beyond the base\n' "$name" $((bytes / 1000000)) $((bytes % 1000000 / 100000))
        [[ $bytes -le $limit ]] || die "the image of $name is larger than $((limit / 1000000)) MB"
    done
}

start() {
    local began=$SECONDS
    up
    # What Grafana's first panel shows: windows of live sensors.
    await "the first window in InfluxDB" sees_windows
    echo "windows in InfluxDB $((SECONDS - began)) s after the start"
    [[ $((SECONDS - began)) -le ${TIDEMARK_TEST_START_LIMIT:-300} ]] || die "that is too slow"
    curl -sf "127.0.0.1:$PROMETHEUS_PORT/-/ready" >/dev/null
    await "a metric of the processor in Prometheus" scraped processor
    await "a metric of the sink in Prometheus" scraped sink
    if command -v kcat >/dev/null; then
        kcat -L -b "127.0.0.1:$KAFKA_PORT" -t iot | has 'topic "iot" with 2 partitions' || die "the listener for this machine does not answer"
    fi
}
sees_windows() { query 'from(bucket:"tidemark") |> range(start:-5m) |> filter(fn:(r) => r._field == "avg") |> count()' "$(secret grafana influxdb-token)" | has s-0001; }
scraped() { curl -s "127.0.0.1:$PROMETHEUS_PORT/api/v1/query?query=up%7Bjob%3D%22$1%22%7D" | has '"1"\]'; }

processes() { docker top "$1" -eo pid 2>/dev/null | tail -n +2; }

rights() {
    local container name pid status seen=0
    for container in $(containers); do
        name=$(docker inspect --format '{{.Name}}' "$container")
        docker inspect --format '{{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} {{.HostConfig.Privileged}}' "$container" |
            has '^\[ALL\] \[no-new-privileges:true\] false$' || die "$name has more rights than it needs"
        [[ $(docker inspect --format '{{.HostConfig.Memory}}' "$container") -gt 0 ]] || die "$name has no memory limit"
        [[ $(docker inspect --format '{{index .HostConfig.LogConfig.Config "max-size"}}' "$container") == 10m ]] || die "$name's log grows for ever"
        for pid in $(processes "$container"); do
            # Gone meanwhile, such as a health check's.
            status=$(cat "/proc/$pid/status" 2>/dev/null) || continue
            awk -v name="$name" '/^Uid:/ && ($2 == 0 || $3 == 0) { print name " runs as root"; bad = 1 }
                                 /^CapEff:/ && $2 != "0000000000000000" { print name " has capabilities"; bad = 1 } END { exit bad }' <<<"$status" ||
                die "too many rights"
            seen=$((seen + 1))
        done
    done
    local service
    for container in $(containers); do
        service=$(docker inspect --format '{{index .Config.Labels "com.docker.compose.service"}}' "$container")
        # Grafana's image keeps more in places of its own than a volume.
        [[ $service == grafana || $(docker inspect --format '{{.HostConfig.ReadonlyRootfs}}' "$container") == true ]] || die "$service can write its own image"
    done
    [[ $seen -ge 5 ]] || die "only $seen processes were looked at"
    echo "no root, no capabilities, no writable image, memory and logs limited: $(containers | wc -l) containers, $seen processes"
}

# The first line of each private key.
keys() { (grep -A 1 -e '-----BEGIN [A-Z ]*PRIVATE KEY-----$' || true) | (grep -x '[A-Za-z0-9+/=]\{40,\}' || true) | sort -u; }

secrets() {
    local file secret container pid image found=0
    docker history --no-trunc --format '{{.CreatedBy}}' tidemark/tidemark:check >"$work/seen"
    for container in $(containers); do
        docker inspect "$container"
        docker logs "$container" 2>&1
        # A process may be gone meanwhile, such as a health check's.
        for pid in $(processes "$container"); do (cat "/proc/$pid/environ" "/proc/$pid/cmdline" 2>/dev/null || true) | tr '\0' '\n'; done
    done >>"$work/seen"
    for image in tidemark producer processor sink; do docker save "tidemark/$image:check" | strings -n 16; done >"$work/images"
    for file in "$(volume secrets-admin)"/* "$(volume secrets-sink)"/* "$(volume secrets-grafana)"/*; do
        secret=$(<"$file")
        [[ ${#secret} -ge 32 ]] || die "$file holds no secret"
        [[ $(stat -c %a "$file") == 440 ]] || die "$file can be read by more than its readers"
        if grep -qF -- "$secret" "$work/seen" "$work/images"; then die "the secret of $file is to be seen"; fi
        found=$((found + 1))
    done
    [[ $found -eq 5 ]] || die "there are $found secrets where 5 are expected"
    # The base's libraries have keys, with which they test themselves.
    docker save debian:bookworm-slim | strings -n 16 | keys >"$work/base-keys"
    keys <"$work/images" | comm -13 "$work/base-keys" - >"$work/keys"
    [[ ! -s $work/keys ]] || { cut -c 1-40 "$work/keys"; die "an image holds a private key"; }
    echo "$found secrets: in no image, environment, argument or log"
}

ports() {
    local container bound
    for container in $(containers); do
        bound=$(docker inspect --format '{{range $port, $hosts := .NetworkSettings.Ports}}{{range $hosts}}{{.HostIp}} {{end}}{{end}}' "$container")
        for bound in $bound; do [[ $bound == 127.0.0.1 ]] || die "a port of $(docker inspect --format '{{.Name}}' "$container") is open at $bound"; done
    done
    echo "all ports on 127.0.0.1"
}

# Each token does its one thing, and no other.
tokens() {
    local url=127.0.0.1:$INFLUXDB_PORT write='api/v2/write?org=tidemark&bucket=tidemark' line='probe value=1 0' code
    code=$(curl -s -o /dev/null -w '%{http_code}' -H "Authorization: Token $(secret grafana influxdb-token)" "$url/$write" --data-binary "$line")
    [[ $code == 40[134] ]] || die "Grafana's token may write ($code)"
    query 'from(bucket:"tidemark") |> range(start:-5m) |> limit(n:1)' "$(secret sink influxdb-token)" | has s-0001 && die "the sink's token may read"
    code=$(curl -s -o /dev/null -w '%{http_code}' -H "Authorization: Token $(secret sink influxdb-token)" "$url/api/v2/authorizations")
    [[ $code == 401 || $(curl -s -H "Authorization: Token $(secret sink influxdb-token)" "$url/api/v2/authorizations") != *'"token":'* ]] || die "the sink's token sees tokens"
    echo "the sink's token may write only, Grafana's read only"
}

down_up() {
    local before after token
    before=$(rows read) token=$(secret sink influxdb-token)
    compose down --timeout 20
    [[ -z $(containers) ]] || die "down leaves containers"
    up
    await "more readings than before" more_than "$before"
    after=$(rows read)
    [[ $(secret sink influxdb-token) == "$token" ]] || die "a second start made new secrets"
    echo "$before readings before, $after after"
    balances
}
more_than() { [[ $(rows read) -gt $1 ]]; }

faults() {
    "$root/deploy/drill" --compose "-p $project $(printf '%q ' "${files[@]}")" --faults "${DRILL_FAULTS:-kill}" --seconds 12
}

scale() {
    local began
    began=$(rows read)
    compose up -d --wait --no-build --scale processor=2
    await "that each of two processors has a partition" shared 2
    await "readings by both" more_than "$((began + 1000))"
    docker kill "$(compose ps --quiet processor | tail -1)" >/dev/null
    await "that the one that is left has both" shared 1
    compose up -d --wait --no-build --scale processor=1
    await "that one processor has both" shared 1
    began=$(rows read)
    await "readings by the one" more_than "$((began + 500))"
    balances
}

# Whether so many processors have the two partitions between them.
shared() {
    local container port owned sum=0 owners=0
    for container in $(compose ps --quiet processor); do
        port=$(docker inspect --format '{{(index (index .NetworkSettings.Ports "9102/tcp") 0).HostPort}}' "$container")
        owned=$(curl -s "127.0.0.1:$port/status" | python3 -c '
import json, sys
queries = json.load(sys.stdin)["parts"]["processor"]["status"]["queries"]
print(sum(isinstance(partition.get("offset"), int) for query in queries for partition in query["partitions"]))' 2>/dev/null || echo 0)
        sum=$((sum + owned)) owners=$((owners + (owned > 0)))
    done
    [[ $sum -eq 2 && $owners -eq $1 ]]
}

victoria() {
    up --profile simulator --profile victoria
    await "samples in VictoriaMetrics" sampled
    compose --profile victoria rm --force --stop victoria sink-victoria >/dev/null
}
sampled() { curl -s "127.0.0.1:$VICTORIA_PORT/api/v1/query?query=count(last_over_time(iot_10s_avg%5B5m%5D))" | has '"value":\[[0-9.]*,"20"\]'; }

chaos() {
    compose rm --force --stop producer >/dev/null
    up --profile chaos
    await "late readings" counted late
    await "dead readings" counted dead
    compose --profile chaos rm --force --stop producer-chaos >/dev/null
    balances
}
counted() { [[ $(rows "$1") -gt 0 ]]; }

mqtt() {
    compose --profile '*' rm --force --stop producer producer-chaos >/dev/null 2>&1
    up --profile mqtt
    [[ -z $(compose ps --quiet producer) ]] || die "the simulator runs beside the devices"
    await "that the simulator's readings are read" is_read
    local before; before=$(rows read)
    for value in 20 21 22 23 24; do
        compose --profile mqtt exec -T mosquitto mosquitto_pub -q 1 -t sensors/pump-1/temperature -m "$value"
    done
    await "five readings of a device" more_than "$((before + 4))"
    [[ $(rows read) -eq $((before + 5)) ]] || die "five readings became $(($(rows read) - before))"
    await "the device's window in InfluxDB" sees_pump
    balances
}
is_read() { ledger --output json >"$work/ledger" && ! grep -q '"lag": [1-9]' "$work/ledger"; }
sees_pump() { query 'from(bucket:"tidemark") |> range(start:-10m) |> filter(fn:(r) => r.sensor_id =~ /pump-1/ and r._field == "n")' "$(secret grafana influxdb-token)" | has pump-1; }

# A stack of its own, with TLS: who has no certificate is refused everywhere, who has one is answered.
tls() {
    local name said without=()
    for name in "${programs[@]}"; do
        said=$("$binaries/$name" --version) || die "$binaries/$name --version fails"
        case $said in
            *$'\nfeatures: tls'*) ;;
            *$'\nfeatures: none') without+=("$name") ;;
            *) die "$binaries/$name --version does not say whether it was built with TLS, but '$said'; build the programs anew" ;;
        esac
    done
    if [[ ${#without[@]} -eq ${#programs[@]} ]]; then
        echo "skipped: the programs were built without --features tidemark/tls"
        return
    fi
    [[ ${#without[@]} -eq 0 ]] || die "built without --features tidemark/tls: ${without[*]}; build all programs alike"
    compose --profile '*' down --volumes --timeout 5
    files+=(-f "$root/deploy/compose.tls.yaml")
    project=$project-tls
    up
    local certificates=(--cacert "$(volume tls-device)/ca.pem" --cert "$(volume tls-device)/tls.pem" --key "$(volume tls-device)/tls.key")
    await "the first window in InfluxDB, over TLS" sees_windows_over_tls
    local job
    for job in producer processor sink influxdb prometheus; do await "metrics of $job over TLS" scraped_over_tls "$job"; done
    # The engine takes any port of the range, not always the first.
    local processor; processor=$(compose port processor 9102)
    curl -sf "${certificates[@]}" "https://$processor/metrics" >"$work/metrics" || die "the processor does not answer who has a certificate"
    grep -q ^tidemark_processor "$work/metrics" || die "the processor has no metrics"
    # All three have just answered who asks as they want to be asked.
    refuses curl -sf "http://127.0.0.1:$INFLUXDB_PORT/health"
    refuses curl -sf --cacert "$(volume tls-device)/ca.pem" "https://127.0.0.1:$PROMETHEUS_PORT/-/ready"
    refuses curl -sf --cacert "$(volume tls-device)/ca.pem" "https://$processor/metrics"
    if command -v kcat >/dev/null; then
        kcat -L -b "127.0.0.1:$KAFKA_PORT" -X security.protocol=ssl -X ssl.ca.location="$(volume tls-device)/ca.pem" -X ssl.certificate.location="$(volume tls-device)/tls.pem" \
            -X ssl.key.location="$(volume tls-device)/tls.key" >"$work/topics" || die "Kafka does not answer who has a certificate"
        grep -q 'topic "iot" with 2 partitions' "$work/topics" || die "Kafka has no topic iot"
        refuses timeout 20 kcat -L -b "127.0.0.1:$KAFKA_PORT" -m 5
    fi
    compose rm --force --stop producer >/dev/null
    up --profile mqtt
    local before device=(mosquitto_pub -h localhost -p 8883 -q 1 -t sensors/pump-1/temperature -m 21.5 --cafile /run/tls/ca.pem)
    await "that the simulator's readings are read" is_read
    before=$(rows read)
    refuses timeout 20 docker compose -p "$project" "${files[@]}" --profile mqtt exec -T mosquitto "${device[@]}"
    compose --profile mqtt exec -T mosquitto "${device[@]}" --cert /run/tls/tls.pem --key /run/tls/tls.key
    await "a reading of a device with a certificate" more_than "$before"
    [[ $(rows read) -eq $((before + 1)) ]] || die "one reading became $(($(rows read) - before)): who has no certificate was let in"
    balances
    rights
}
refuses() { if "$@" >/dev/null 2>&1; then die "answered, but should not have been: $*"; fi; }
sees_windows_over_tls() {
    curl -s --cacert "$(volume tls-device)/ca.pem" -H "Authorization: Token $(secret grafana influxdb-token)" -H 'content-type: application/vnd.flux' \
        "https://127.0.0.1:$INFLUXDB_PORT/api/v2/query?org=tidemark" --data 'from(bucket:"tidemark") |> range(start:-5m) |> limit(n:1)' | has s-0001
}
scraped_over_tls() {
    curl -s --cacert "$(volume tls-device)/ca.pem" --cert "$(volume tls-device)/tls.pem" --key "$(volume tls-device)/tls.key" \
        "https://127.0.0.1:$PROMETHEUS_PORT/api/v1/query?query=up%7Bjob%3D%22$1%22%7D" | has '"1"\]'
}

step "images of the programs in $binaries"
compose build >"$work/build.log" 2>&1 || { tail -30 "$work/build.log"; die "the images cannot be built"; }
sizes

for name in ${*:-$all}; do
    step "$name"
    "$name"
done
step "done"
