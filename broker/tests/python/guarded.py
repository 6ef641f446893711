"""The listener that asks who one is: guarded.py ADDRESS CERTIFICATE, or "-" where it has none. User ann may use the topic t, and no other."""

import sys
import time

import confluent_kafka
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError

ADDRESS, CERTIFICATE = sys.argv[1:]
PROTOCOL = "SASL_PLAINTEXT" if CERTIFICATE == "-" else "SASL_SSL"


def librdkafka(mechanism):
    config = {"bootstrap.servers": ADDRESS, "security.protocol": PROTOCOL, "sasl.mechanism": mechanism, "sasl.username": "ann"}
    if CERTIFICATE != "-":
        config["ssl.ca.location"] = CERTIFICATE
    own = {**config, "sasl.password": "a secret"}
    outcome = []
    producer = confluent_kafka.Producer({**own, "enable.idempotence": True})
    producer.produce("t", mechanism, on_delivery=lambda fault, _: outcome.append(fault))
    producer.produce("other", mechanism, on_delivery=lambda fault, _: outcome.append(fault and fault.code()))
    assert producer.flush(60) == 0
    assert set(outcome) == {None, confluent_kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED}, outcome
    consumer = confluent_kafka.Consumer({**own, "group.id": f"ann-{mechanism}-c", "auto.offset.reset": "earliest"})
    consumer.subscribe(["t"])
    deadline, found = time.time() + 60, False
    while not found:
        assert time.time() < deadline
        message = consumer.poll(0.5)
        found = message is not None and not message.error() and message.value() == mechanism.encode()
    consumer.commit(asynchronous=False)
    consumer.close()
    faults = []
    stranger = confluent_kafka.Producer({**config, "sasl.password": "a guess", "error_cb": lambda fault: faults.append(fault.code())})
    while confluent_kafka.KafkaError._AUTHENTICATION not in faults:
        assert time.time() < deadline, faults
        stranger.poll(0.2)


def kafka_python(mechanism):
    config = {"bootstrap_servers": ADDRESS, "security_protocol": PROTOCOL, "sasl_mechanism": mechanism, "sasl_plain_username": "ann"}
    if CERTIFICATE != "-":
        config["ssl_cafile"] = CERTIFICATE
    own = {**config, "sasl_plain_password": "a secret"}
    producer = KafkaProducer(**own)
    producer.send("t", f"kafka-python {mechanism}".encode()).get(60)
    producer.close()
    consumer = KafkaConsumer("t", group_id=f"ann-{mechanism}-k", auto_offset_reset="earliest", consumer_timeout_ms=60000, **own)
    assert any(message.value == f"kafka-python {mechanism}".encode() for message in consumer)
    consumer.close()
    try:
        KafkaConsumer("t", sasl_plain_password="a guess", **config).partitions_for_topic("t")
        raise AssertionError("a guess was good enough")
    except KafkaError:
        pass


for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
    librdkafka(mechanism)
    kafka_python(mechanism)
print("all checks hold")
