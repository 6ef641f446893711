#!/usr/bin/env bash
# A Flume agent from its Maven artifacts, for the tests.
#
#   flume.sh resolve              fetches the jars once and prints their folder
#   flume.sh run NAME FILE        becomes the agent NAME of a properties file, in the foreground
#
# Needs Java 11 or later and Maven. FLUME_VERSION and FLUME_LIB (where the jars are kept) may be set.
set -euo pipefail

version=${FLUME_VERSION:-1.11.0}
lib=${FLUME_LIB:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark-test}/flume-$version

die() { echo "flume.sh: $*" >&2; exit 1; }

# shellcheck source=tests/maven.sh
source "$(dirname "${BASH_SOURCE[0]}")/maven.sh"

# The logging backend is in Flume's distribution, and in none of its artifacts.
resolve() {
    fetch_jars "$lib" INFO "org.apache.flume:flume-ng-node:$version" "org.apache.flume.flume-ng-sinks:flume-ng-kafka-sink:$version" \
        "org.apache.flume.flume-ng-sinks:flume-http-sink:$version" \
        org.apache.logging.log4j:log4j-slf4j-impl:2.24.3 org.apache.logging.log4j:log4j-core:2.24.3
}

run() {
    exec java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.awt.headless=true "-Dlog4j2.configurationFile=$lib/log4j2.properties" \
        -cp "$lib/*" org.apache.flume.node.Application --no-reload-conf --name "$1" --conf-file "$2"
}

case ${1:-} in
    resolve) resolve; echo "$lib" ;;
    run) [[ $# -eq 3 ]] || die "usage: flume.sh run NAME FILE"; resolve; run "$2" "$3" ;;
    *) sed -n '2,7p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
