"""Prints what comes into a topic, from its beginning: consume.py TOPIC [GROUP [BROKER]].

Members of one group share the partitions; each group gets everything. Ends when nothing has come for ten seconds.
"""

import sys

from kafka import KafkaConsumer

topic = sys.argv[1]
group = sys.argv[2] if len(sys.argv) > 2 else None
broker = sys.argv[3] if len(sys.argv) > 3 else "127.0.0.1:9092"

consumer = KafkaConsumer(
    topic,
    bootstrap_servers=broker,
    group_id=group,
    auto_offset_reset="earliest",
    consumer_timeout_ms=10_000,
)
for record in consumer:
    key = record.key.decode() if record.key else None
    print(f"{record.topic}-{record.partition}@{record.offset} {key} {record.value.decode()}", flush=True)
consumer.close()
