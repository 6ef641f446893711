#!/usr/bin/env bash
# A Docker engine of the tests' own, started by hand, and Docker Compose built from its Go module. The machine's engine, if it has one, is
# not touched: the tests put stand-ins under the names of official images into theirs.
#
#   engine.sh start      installs what is missing (Debian, as root), starts the engine, and prints the lines of shell that select it
#   engine.sh compose    builds Docker Compose, once, and prints its path
#   engine.sh stop       ends it; images and volumes stay
#
# TIDEMARK_TEST_DOCKER names its folder.
set -euo pipefail

cache=${XDG_CACHE_HOME:-$HOME/.cache}/tidemark-test
folder=${TIDEMARK_TEST_DOCKER:-$cache/docker}
socket=unix://$folder/docker.sock
compose_version=v2.40.3
compose=$cache/docker-compose-$compose_version

die() { echo "engine.sh: $*" >&2; exit 1; }

install_engine() {
    PATH=$PATH:/usr/sbin
    command -v dockerd >/dev/null && command -v iptables >/dev/null && return
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker.io iptables >&2
}

build_compose() {
    [[ -x $compose ]] && return
    command -v go >/dev/null || die "Go is missing, and Docker Compose $compose_version is built with it"
    local tmp source
    tmp=$(mktemp -d)
    source=$(cd / && go mod download -json "github.com/docker/compose/v2@$compose_version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    [[ -n $source ]] || die "the Go module of Docker Compose $compose_version cannot be had"
    # A copy that is the main module: `go install` refuses modules with replacements.
    cp -r "$source" "$tmp/compose"
    chmod -R u+w "$tmp/compose"
    (cd "$tmp/compose" && CGO_ENABLED=0 GOTOOLCHAIN=local nice go build -trimpath \
        -ldflags "-s -w -X github.com/docker/compose/v2/internal.Version=$compose_version" -o "$tmp/docker-compose" ./cmd) >&2
    mkdir -p "$cache"
    mv "$tmp/docker-compose" "$compose.$$" && mv "$compose.$$" "$compose"
    rm -rf "$tmp"
}

start() {
    [[ $EUID -eq 0 ]] || die "a Docker engine is started as root"
    install_engine
    build_compose
    mkdir -p "$folder/config/cli-plugins"
    ln -sfn "$compose" "$folder/config/cli-plugins/docker-compose"
    if ! docker -H "$socket" version >/dev/null 2>&1; then
        # Away from this script's descriptors: whoever reads our output must not wait for the engine's end.
        nohup setsid dockerd --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/dockerd.pid" -H "$socket" \
            </dev/null >"$folder/dockerd.log" 2>&1 &
        for ((i = 0; i < 1800; i++)); do
            docker -H "$socket" version >/dev/null 2>&1 && break
            sleep 0.1
        done
    fi
    docker -H "$socket" info >/dev/null 2>&1 || { tail -20 "$folder/dockerd.log" >&2; die "the engine does not start"; }
    echo "export DOCKER_HOST=$socket DOCKER_CONFIG=$folder/config"
}

stop() {
    [[ -f $folder/dockerd.pid ]] || return 0
    local pid
    pid=$(<"$folder/dockerd.pid")
    kill "$pid" 2>/dev/null || return 0
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
}

case ${1:-} in
    start) start ;;
    compose) build_compose; echo "$compose" ;;
    stop) stop ;;
    *) sed -n '2,10p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
