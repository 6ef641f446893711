#!/bin/bash
exec /opt/kafka/bin/kafka-run.sh org.apache.kafka.tools.GetOffsetShell "$@"
