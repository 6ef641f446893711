#!/usr/bin/env bash
# InfluxDB 2 (the API, without the web interface; loopback only) built from its Go module, for the tests.
#
#   influxdb.sh resolve         builds it once (about 12 CPU-minutes) and prints the path of the binary
#   influxdb.sh present         prints the path when it is built already, and fails when it is not
#   influxdb.sh run PORT DIR    becomes the server, in the foreground, with its data in DIR
#
# Needs Go, Rust and a C compiler. INFLUX_VERSION and INFLUX_LIB (where the binary is kept) may be set.
set -euo pipefail

version=${INFLUX_VERSION:-v2.7.12}
lib=${INFLUX_LIB:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark-test}
binary=$lib/influxd-$version

die() { echo "influxdb.sh: $*" >&2; exit 1; }

# Its language, flux, has a part in Rust, which a pkg-config of its own builds with cargo.
resolve() {
    [[ -x $binary ]] && return
    local tmp; tmp=$(mktemp -d)
    # The name now: at the exit it is out of reach.
    # shellcheck disable=SC2064
    trap "chmod -R u+w '$tmp'; rm -rf '$tmp'" EXIT
    local source; source=$(cd / && go mod download -json "github.com/influxdata/influxdb/v2@$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    [[ -n $source ]] || die "the Go module of InfluxDB $version cannot be had"
    # A copy that is the main module: `go install` refuses modules with replacements.
    cp -r "$source" "$tmp/influxdb"
    chmod -R u+w "$tmp/influxdb"
    cd "$tmp/influxdb"
    export GOTOOLCHAIN=local
    GOBIN=$tmp/bin go install github.com/influxdata/pkg-config >&2
    # Its Rust part pins an old compiler and denies warnings, of which a newer one has more.
    RUSTUP_TOOLCHAIN=$(cd / && rustup show active-toolchain | awk '{print $1}')
    printf '#!/bin/sh\ncase " $* " in *" --cap-lints "*) exec "$@" ;; *) exec "$@" --cap-lints warn ;; esac\n' >"$tmp/bin/rustc-cap-lints"
    chmod +x "$tmp/bin/rustc-cap-lints"
    export RUSTUP_TOOLCHAIN PKG_CONFIG=$tmp/bin/pkg-config RUSTC_WRAPPER=$tmp/bin/rustc-cap-lints
    nice -n 19 go build -trimpath -tags sqlite_foreign_keys,sqlite_json -ldflags "-s -w -X main.version=$version" \
        -o "$tmp/influxd" ./cmd/influxd >&2
    mkdir -p "$lib"
    # In one step: half a binary must not look whole to a test that starts at the same time.
    mv "$tmp/influxd" "$binary.$$" && mv "$binary.$$" "$binary"
}

run() {
    exec "$binary" --bolt-path "$2/influxd.bolt" --engine-path "$2/engine" --sqlite-path "$2/influxd.sqlite" \
        --http-bind-address "127.0.0.1:$1" --reporting-disabled --log-level warn
}

case ${1:-} in
    resolve) resolve; echo "$binary" ;;
    present) [[ -x $binary ]] && echo "$binary" ;;
    run) [[ $# -eq 3 ]] || die "usage: influxdb.sh run PORT DIR"; resolve; run "$2" "$3" ;;
    *) sed -n '2,8p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
