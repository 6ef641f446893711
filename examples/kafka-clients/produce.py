"""Sends random values: produce.py TOPIC [COUNT [BROKER]].

Into the topic `votes` go votes of a poll, into any other one readings of sensors.
"""

import json
import random
import sys
import time

from kafka import KafkaProducer

topic = sys.argv[1]
count = int(sys.argv[2]) if len(sys.argv) > 2 else 10
broker = sys.argv[3] if len(sys.argv) > 3 else "127.0.0.1:9092"

producer = KafkaProducer(
    bootstrap_servers=broker,
    acks="all",
    key_serializer=str.encode,
    value_serializer=lambda value: json.dumps(value).encode(),
)
for number in range(count):
    now = int(time.time() * 1000)
    if topic == "votes":
        choice = random.choice(["pasta", "pizza", "salad"])
        key, value = choice, {"poll": "lunch", "choice": choice, "ts": now}
    else:
        key = f"random-{number % 3}"
        value = {"sensor_id": key, "ts": now, "value": round(random.gauss(20, 2), 3), "seq": number}
    sent = producer.send(topic, key=key, value=value).get(timeout=30)
    print(f"{sent.topic}-{sent.partition}@{sent.offset} {key} {json.dumps(value)}")
producer.close()
