#!/bin/bash
# What Kafka's own start scripts do with the variables that compose.yaml sets.
mkdir -p "${LOG_DIR:-/tmp}"
exec java ${KAFKA_HEAP_OPTS:--Xmx256m} -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.awt.headless=true \
    "-Dkafka.logs.dir=${LOG_DIR:-/tmp}" $KAFKA_LOG4J_OPTS $KAFKA_OPTS -cp "/opt/kafka/libs/*" "$@"
