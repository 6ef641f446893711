"""What programs with kafka-python and confluent-kafka rely on: checks.py HOST:PORT."""

import sys
import time

import confluent_kafka
import confluent_kafka.admin
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

SERVERS = sys.argv[1]


def kafka_python():
    admin = KafkaAdminClient(bootstrap_servers=SERVERS)
    admin.create_topics([NewTopic("py", 2, 1)])
    for codec in (None, "gzip"):
        producer = KafkaProducer(bootstrap_servers=SERVERS, acks="all", compression_type=codec, enable_idempotence=True)
        for i in range(200):
            producer.send("py", key=str(i).encode(), value=b"%d" % i)
        producer.flush()
        producer.close()
    consumer = KafkaConsumer("py", bootstrap_servers=SERVERS, group_id="py", auto_offset_reset="earliest", consumer_timeout_ms=60000)
    values = [int(next(consumer).value) for _ in range(400)]
    assert sorted(values) == sorted(list(range(200)) * 2), values
    consumer.commit()
    consumer.close()
    producer = KafkaProducer(bootstrap_servers=SERVERS, transactional_id="py")
    producer.init_transactions()
    for value, commit in ((b"aborted", False), (b"committed", True)):
        producer.begin_transaction()
        producer.send("py", value).get(60)
        producer.commit_transaction() if commit else producer.abort_transaction()
    producer.close()
    consumer = KafkaConsumer(bootstrap_servers=SERVERS, isolation_level="read_committed", auto_offset_reset="earliest", consumer_timeout_ms=60000)
    consumer.assign([TopicPartition("py", 0), TopicPartition("py", 1)])
    values = [next(consumer).value for _ in range(401)]
    assert b"committed" in values and b"aborted" not in values, values
    admin.delete_topics(["py"])


def confluent():
    config = {"bootstrap.servers": SERVERS}
    admin = confluent_kafka.admin.AdminClient(config)
    wait = lambda futures: [future.result(60) for future in futures.values()]
    wait(admin.create_topics([confluent_kafka.admin.NewTopic("ck", 2, 1)]))
    producer = confluent_kafka.Producer({**config, "enable.idempotence": True, "compression.type": "zstd"})
    for i in range(1000):
        producer.produce("ck", key=str(i), value=str(i))
    assert producer.flush(60) == 0
    consumer = confluent_kafka.Consumer({**config, "group.id": "ck", "auto.offset.reset": "earliest"})
    consumer.subscribe(["ck"])
    values, deadline = [], time.time() + 60
    while len(values) < 1000:
        assert time.time() < deadline, len(values)
        values += [int(message.value()) for message in consumer.consume(500, 1)]
    assert sorted(values) == list(range(1000))
    consumer.commit(asynchronous=False)
    group = admin.describe_consumer_groups(["ck"])["ck"].result(60)
    assert group.state == confluent_kafka.ConsumerGroupState.STABLE, group.state
    consumer.close()
    wait(admin.create_partitions([confluent_kafka.admin.NewPartitions("ck", 4)]))
    wait(admin.delete_consumer_groups(["ck"]))
    wait(admin.delete_topics(["ck"]))


kafka_python()
print("kafka-python")
confluent()
print("confluent-kafka")
