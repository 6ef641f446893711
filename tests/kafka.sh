#!/usr/bin/env bash
# Apache Kafka (KRaft, one node, loopback only) and its console tools from its Maven artifacts, for the tests.
#
#   kafka.sh resolve              fetches the jars once and prints their folder
#   kafka.sh run PORT CPORT DIR   formats DIR when it is new and becomes the broker, in the foreground; CPORT: the controller's port
#   kafka.sh tool NAME ARGUMENT.. becomes a console tool, such as kafka-topics
#
# Needs Java 17 or later and Maven. KAFKA_VERSION, KAFKA_LIB (where the jars are kept), KAFKA_TOOL_HEAP (256m) and KAFKA_ADVERTISED (the
# address that clients are told, such as a proxy's) may be set, and KAFKA_BROKER_SESSION: milliseconds of silence after which the controller
# takes a broker for dead (3000).
set -euo pipefail

version=${KAFKA_VERSION:-4.3.1}
lib=${KAFKA_LIB:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark-test}/kafka-$version-tools

die() { echo "kafka.sh: $*" >&2; exit 1; }

# shellcheck source=tests/maven.sh
source "$(dirname "${BASH_SOURCE[0]}")/maven.sh"

# Kafka leaves the choice of a logging backend to its start scripts, so no artifact brings one along.
resolve() {
    fetch_jars "$lib" WARN "org.apache.kafka:kafka_2.13:$version" "org.apache.kafka:kafka-tools:$version" \
        org.apache.logging.log4j:log4j-slf4j-impl:2.24.3 org.apache.logging.log4j:log4j-core:2.24.3
}

run() {
    local port=$1 controller=$2 dir=$3
    local java=(java -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.awt.headless=true
        "-Dlog4j2.configurationFile=$lib/log4j2.properties" -cp "$lib/*")
    cat >"$dir/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://${KAFKA_ADVERTISED:-127.0.0.1:$port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$dir/logs
default.replication.factor=1
offsets.topic.num.partitions=2
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=2
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
# After a kill the controller waits for the old session to end before it lets the broker in again.
broker.session.timeout.ms=${KAFKA_BROKER_SESSION:-3000}
broker.heartbeat.interval.ms=500
PROPERTIES
    if [[ ! -f $dir/logs/meta.properties ]]; then
        "${java[@]}" kafka.tools.StorageTool format -t tidemarkTestClusterAAA -c "$dir/server.properties" >"$dir/format.log" 2>&1 ||
            { cat "$dir/format.log" >&2; die "cannot format $dir"; }
    fi
    exec "${java[@]}" kafka.Kafka "$dir/server.properties"
}

# The names of Kafka's own scripts, and the classes behind them.
tool() {
    local class
    case $1 in
        kafka-topics) class=org.apache.kafka.tools.TopicCommand ;;
        kafka-console-producer) class=org.apache.kafka.tools.ConsoleProducer ;;
        kafka-console-consumer) class=org.apache.kafka.tools.consumer.ConsoleConsumer ;;
        kafka-consumer-groups) class=org.apache.kafka.tools.consumer.group.ConsumerGroupCommand ;;
        kafka-configs) class=kafka.admin.ConfigCommand ;;
        kafka-delete-records) class=org.apache.kafka.tools.DeleteRecordsCommand ;;
        kafka-get-offsets) class=org.apache.kafka.tools.GetOffsetShell ;;
        kafka-log-dirs) class=org.apache.kafka.tools.LogDirsCommand ;;
        kafka-transactions) class=org.apache.kafka.tools.TransactionsCommand ;;
        kafka-producer-perf-test) class=org.apache.kafka.tools.ProducerPerformance ;;
        kafka-broker-api-versions) class=org.apache.kafka.tools.BrokerApiVersionsCommand ;;
        kafka-cluster) class=org.apache.kafka.tools.ClusterTool ;;
        *) class=$1 ;;
    esac
    exec java "-Xmx${KAFKA_TOOL_HEAP:-256m}" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.awt.headless=true \
        "-Dlog4j2.configurationFile=$lib/log4j2.properties" -cp "$lib/*${TIDEMARK_TEST_CLASSES:+:$TIDEMARK_TEST_CLASSES}" "$class" "${@:2}"
}

case ${1:-} in
    resolve) resolve; echo "$lib" ;;
    run) [[ $# -eq 4 ]] || die "usage: kafka.sh run PORT CPORT DIR"; resolve; run "$2" "$3" "$4" ;;
    tool) [[ $# -ge 2 ]] || die "usage: kafka.sh tool NAME ARGUMENT..."; resolve; tool "${@:2}" ;;
    *) sed -n '2,10p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
