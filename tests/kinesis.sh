#!/usr/bin/env bash
# A Kinesis server from npm (kinesalite), in memory, for the tests.
#
#   kinesis.sh resolve      fetches it once and prints its folder
#   kinesis.sh run PORT     becomes the server, in the foreground
#
# Needs Node 18 or later and npm. KINESALITE_VERSION and KINESALITE_LIB (where it is kept) may be set.
set -euo pipefail

version=${KINESALITE_VERSION:-3.3.3}
lib=${KINESALITE_LIB:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark-test/kinesalite-$version}

die() { echo "kinesis.sh: $*" >&2; exit 1; }

# What is optional keeps streams on a disk, and needs a compiler.
resolve() {
    mkdir -p "$lib"
    # Two test programs may do this at the same time.
    exec 9>"$lib/.lock"
    flock 9
    if [[ ! -f $lib/.complete ]]; then
        npm install --prefix "$lib" --silent --no-audit --no-fund --omit=optional "kinesalite@$version" >&2 ||
            die "npm cannot install kinesalite $version"
        touch "$lib/.complete"
    fi
    exec 9>&-
}

case ${1:-} in
    resolve) resolve; echo "$lib" ;;
    run)
        [[ $# -eq 2 ]] || die "usage: kinesis.sh run PORT"
        resolve
        exec node "$lib/node_modules/kinesalite/cli.js" --port "$2" --createStreamMs 10 --updateStreamMs 10 --shardLimit 100
        ;;
    *) sed -n '2,7p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
