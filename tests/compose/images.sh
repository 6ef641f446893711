#!/usr/bin/env bash
# Stand-ins for the official images that compose.yaml names, made of the same programs from package registries, in the tests' own engine
# (engine.sh). Same users, paths and start scripts as far as compose.yaml uses them. Not for use: an engine that reaches a registry pulls.
#
#   images.sh base               debian:bookworm-slim, by debootstrap
#   images.sh parts              apache/kafka (Maven), influxdb (Go), prom/prometheus and eclipse-mosquitto (Debian), victoria-metrics (Go)
#   images.sh rust               rust:1.95-bookworm, from the machine's toolchain, for a build from source
#
# Grafana's server is in no registry that a build reaches: grafana/grafana is a placeholder that answers its health check, so that what
# depends on it is started. Names and tags are read from compose.yaml.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$here/../..
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tidemark-test
die() { echo "images.sh: $*" >&2; exit 1; }
[[ ${DOCKER_HOST:-} == unix://* ]] || die "DOCKER_HOST is not set; eval \"\$(engine.sh start)\" first"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

present() { docker image inspect "$1" >/dev/null 2>&1; }

# tag NAME: the full reference that compose.yaml gives the image NAME.
tag() { sed -n "s|^ *image: *\(docker.io/\)\{0,1\}\($1:[^ @]*\).*|\2|p" "$root"/deploy/compose.yaml | head -1 | grep . || die "compose.yaml names no image $1"; }

base() {
    present debian:bookworm-slim && return
    PATH=$PATH:/usr/sbin
    command -v debootstrap >/dev/null || { apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap; } >&2
    local sources=/etc/apt/sources.list.d/debian.sources mirror
    mirror=$(awk '/^URIs:/ {print $2; exit}' "$sources" 2>/dev/null || true)
    nice debootstrap --variant=minbase --include=ca-certificates bookworm "$work/root" ${mirror:+"$mirror"} >"$work/log" 2>&1 ||
        { tail "$work/log" >&2; die "debootstrap failed"; }
    (
        cd "$work/root"
        rm -rf var/cache/apt/archives/*.deb var/lib/apt/lists/* usr/share/doc usr/share/man usr/share/locale
        # What this machine reaches its package registries by.
        if [[ -f $sources ]]; then rm -f etc/apt/sources.list; cp "$sources" etc/apt/sources.list.d/; fi
        cp /etc/apt/apt.conf.d/99* etc/apt/apt.conf.d/ 2>/dev/null || true
        cp /etc/ssl/certs/ca-certificates.crt etc/ssl/certs/
    )
    tar -C "$work/root" -c . | docker import --change 'CMD ["bash"]' - debian:bookworm-slim >/dev/null
    rm -rf "$work/root"
}

# image NAME: builds $work/NAME under the tag that compose.yaml has.
image() {
    docker build -q -t "$(tag "$2")" "$work/$1" >/dev/null || die "the stand-in for $2 cannot be built"
}

kafka() {
    present "$(tag apache/kafka)" && return
    local jars; jars=$("$root/tests/kafka.sh" resolve)
    mkdir -p "$work/kafka/libs"
    cp "$jars"/*.jar "$work/kafka/libs/"
    cp "$here"/kafka/*.sh "$work/kafka/"
    cat >"$work/kafka/Dockerfile" <<'DOCKERFILE'
FROM debian:bookworm-slim
RUN mkdir -p /usr/share/man/man1 && apt-get update -qq && apt-get install -y -qq --no-install-recommends openjdk-17-jre-headless >/dev/null && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 1000 --create-home appuser && mkdir -p /opt/kafka/config /var/lib/kafka/data /etc/kafka/secrets \
 && chown -R appuser /opt/kafka /var/lib/kafka /etc/kafka
COPY libs /opt/kafka/libs
COPY *.sh /opt/kafka/bin/
USER appuser
VOLUME ["/etc/kafka/secrets", "/var/lib/kafka/data"]
CMD ["/opt/kafka/bin/kafka-server-start.sh", "/opt/kafka/config/server.properties"]
DOCKERFILE
    image kafka apache/kafka
}

influxdb() {
    present "$(tag influxdb)" && return
    mkdir -p "$work/influxdb"
    cp "$("$root/tests/influxdb.sh" resolve)" "$work/influxdb/influxd"
    printf '#!/bin/sh\n[ "$1" = influxd ] && shift\nexec influxd --bolt-path /var/lib/influxdb2/influxd.bolt --engine-path /var/lib/influxdb2/engine --sqlite-path /var/lib/influxdb2/influxd.sqlite "$@"\n' >"$work/influxdb/entrypoint.sh"
    chmod +x "$work/influxdb/entrypoint.sh"
    cat >"$work/influxdb/Dockerfile" <<'DOCKERFILE'
FROM debian:bookworm-slim
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends curl >/dev/null && rm -rf /var/lib/apt/lists/*
RUN groupadd -r influxdb --gid=1000 && useradd -r -g influxdb --uid=1000 --create-home influxdb \
 && mkdir -p /var/lib/influxdb2 /etc/influxdb2 && chown -R influxdb:influxdb /var/lib/influxdb2 /etc/influxdb2
COPY influxd /usr/local/bin/influxd
COPY entrypoint.sh /entrypoint.sh
VOLUME /var/lib/influxdb2 /etc/influxdb2
ENTRYPOINT ["/entrypoint.sh"]
CMD ["influxd"]
DOCKERFILE
    image influxdb influxdb
}

# Debian's Prometheus is older than the one that compose.yaml names; the flags and the configuration are the same in both.
prometheus() {
    present "$(tag prom/prometheus)" && return
    mkdir -p "$work/prometheus"
    cat >"$work/prometheus/Dockerfile" <<'DOCKERFILE'
FROM debian:bookworm-slim
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus busybox netcat-openbsd >/dev/null && rm -rf /var/lib/apt/lists/* \
 && ln -s /usr/bin/prometheus /bin/prometheus 2>/dev/null; ln -s /bin/busybox /bin/wget; \
    rm -rf /etc/prometheus && mkdir -p /etc/prometheus /prometheus && chown nobody:nogroup /prometheus
USER nobody
VOLUME /prometheus
WORKDIR /prometheus
ENTRYPOINT ["/usr/bin/prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
DOCKERFILE
    image prometheus prom/prometheus
}

mosquitto() {
    present "$(tag eclipse-mosquitto)" && return
    mkdir -p "$work/mosquitto"
    cat >"$work/mosquitto/Dockerfile" <<'DOCKERFILE'
FROM debian:bookworm-slim
RUN groupadd -r -g 1883 mosquitto && useradd -r -u 1883 -g mosquitto -M -d /var/empty -s /sbin/nologin mosquitto \
 && apt-get update -qq && apt-get install -y -qq --no-install-recommends mosquitto mosquitto-clients >/dev/null && rm -rf /var/lib/apt/lists/* \
 && mkdir -p /mosquitto/config /mosquitto/data /mosquitto/log && chown -R mosquitto:mosquitto /mosquitto
VOLUME ["/mosquitto/data", "/mosquitto/log"]
CMD ["/usr/sbin/mosquitto", "-c", "/mosquitto/config/mosquitto.conf"]
DOCKERFILE
    image mosquitto eclipse-mosquitto
}

victoria() {
    present "$(tag victoriametrics/victoria-metrics)" && return
    local binary; binary=$("$root/tests/victoriametrics.sh" resolve) || die "VictoriaMetrics cannot be built"
    mkdir -p "$work/victoria"
    cp "$binary" "$work/victoria/victoria-metrics-prod"
    cat >"$work/victoria/Dockerfile" <<'DOCKERFILE'
FROM debian:bookworm-slim
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends busybox >/dev/null && rm -rf /var/lib/apt/lists/* && ln -s /bin/busybox /bin/wget
COPY victoria-metrics-prod /victoria-metrics-prod
ENTRYPOINT ["/victoria-metrics-prod"]
DOCKERFILE
    image victoria victoriametrics/victoria-metrics
}

# Listens where Grafana would and answers /api/health with what it has: proof that its container gets what compose.yaml gives it.
grafana() {
    present "$(tag grafana/grafana)" && return
    mkdir -p "$work/grafana"
    cp "$here/grafana/placeholder.sh" "$work/grafana/"
    cat >"$work/grafana/Dockerfile" <<'DOCKERFILE'
FROM debian:bookworm-slim
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends wget busybox openssl >/dev/null && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 472 --gid 0 -M grafana && mkdir -p /var/lib/grafana /etc/grafana && chown -R grafana:0 /var/lib/grafana
COPY placeholder.sh /placeholder.sh
USER 472
ENTRYPOINT ["/placeholder.sh"]
DOCKERFILE
    image grafana grafana/grafana
}

rust() {
    local name; name=$(sed -n 's/^FROM \(--platform=[^ ]* \)\{0,1\}\(rust:[^ ]*\).*/\2/p' "$root/Dockerfile" | head -1)
    present "$name" && return
    mkdir -p "$work/rust/toolchain"
    tar -C "$(rustc --print sysroot)" --exclude=./share/doc --exclude=./share/man -c . | tar -C "$work/rust/toolchain" -x
    cp /etc/ssl/certs/ca-certificates.crt "$work/rust/"
    cat >"$work/rust/Dockerfile" <<'DOCKERFILE'
FROM debian:bookworm-slim
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends ca-certificates gcc g++ make cmake pkg-config libc6-dev perl git >/dev/null \
 && rm -rf /var/lib/apt/lists/*
# What this machine trusts, again: the package has its own.
COPY ca-certificates.crt /etc/ssl/certs/
ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:$PATH
COPY toolchain /usr/local/rustup/toolchains/host
RUN mkdir -p /usr/local/cargo/bin && ln -s /usr/local/rustup/toolchains/host/bin/* /usr/local/cargo/bin/ && chmod -R a+w /usr/local/cargo && cargo --version
DOCKERFILE
    docker build -q -t "$name" "$work/rust" >/dev/null
}

case ${1:-} in
    base) base ;;
    parts) base; kafka; influxdb; prometheus; mosquitto; victoria; grafana ;;
    rust) base; rust ;;
    *) sed -n '2,12p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
