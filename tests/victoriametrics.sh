#!/usr/bin/env bash
# VictoriaMetrics (one node, loopback only) built from its Go module, for the tests.
#
#   victoriametrics.sh resolve         builds it once and prints the path of the binary
#   victoriametrics.sh present         prints the path when it is built already, and fails when it is not
#   victoriametrics.sh run PORT DIR    becomes the server, in the foreground, with its data in DIR; more flags of its own may follow
#
# Needs Go. VICTORIAMETRICS_VERSION and VICTORIAMETRICS_LIB (where the binary is kept) may be set.
set -euo pipefail

# Its module has no version numbers that the proxy knows; this is the state of July 2025.
version=${VICTORIAMETRICS_VERSION:-v0.0.0-20250718125606-9d9bea03485e}
lib=${VICTORIAMETRICS_LIB:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark-test}
binary=$lib/victoria-metrics-$version

die() { echo "victoriametrics.sh: $*" >&2; exit 1; }

resolve() {
    [[ -x $binary ]] && return
    local tmp; tmp=$(mktemp -d)
    # The name now: at the exit it is out of reach.
    # shellcheck disable=SC2064
    trap "chmod -R u+w '$tmp'; rm -rf '$tmp'" EXIT
    local source
    source=$(cd / && go mod download -json "github.com/VictoriaMetrics/VictoriaMetrics@$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    [[ -n $source ]] || die "the Go module of VictoriaMetrics $version cannot be had"
    # A copy that is the main module: `go install` refuses modules with replacements.
    cp -r "$source" "$tmp/victoria-metrics"
    chmod -R u+w "$tmp/victoria-metrics"
    cd "$tmp/victoria-metrics"
    local buildinfo=github.com/VictoriaMetrics/VictoriaMetrics/lib/buildinfo.Version=victoria-metrics-$version
    CGO_ENABLED=0 GOTOOLCHAIN=local nice -n 19 go build -mod=mod -trimpath -ldflags "-s -w -X $buildinfo" \
        -o "$tmp/built" ./app/victoria-metrics >&2
    mkdir -p "$lib"
    # In one step: half a binary must not look whole to a test that starts at the same time.
    mv "$tmp/built" "$binary.$$" && mv "$binary.$$" "$binary"
}

run() {
    local port=$1 dir=$2
    shift 2
    exec "$binary" -httpListenAddr="127.0.0.1:$port" -storageDataPath="$dir" -retentionPeriod=100y -loggerLevel=WARN "$@"
}

case ${1:-} in
    resolve) resolve; echo "$binary" ;;
    present) [[ -x $binary ]] && echo "$binary" ;;
    run) [[ $# -ge 3 ]] || die "usage: victoriametrics.sh run PORT DIR [FLAG...]"; resolve; run "${@:2}" ;;
    *) sed -n '2,8p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
