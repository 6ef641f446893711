import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.internals.RecordHeader;

/** Records in and out: codecs, sizes, headers, timestamps, compaction's rules. */
class ComparedRecords extends Compared {
    static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");

    static void checks() {
        for (String codec : CODECS) CHECKS.put("codec-" + codec, at -> codec(at, codec));
        for (String codec : List.of("uncompressed", "gzip", "snappy", "lz4", "zstd")) CHECKS.put("recompressed-" + codec, at -> recompressed(at, codec));
        CHECKS.put("mixed-codecs", ComparedRecords::mixed);
        CHECKS.put("large-records", ComparedRecords::large);
        CHECKS.put("size-limits", ComparedRecords::limits);
        CHECKS.put("headers-and-nulls", ComparedRecords::headers);
        CHECKS.put("create-time", ComparedRecords::createTime);
        CHECKS.put("append-time", ComparedRecords::appendTime);
        CHECKS.put("timestamp-limits", ComparedRecords::timestampLimits);
        CHECKS.put("acks", ComparedRecords::acks);
        CHECKS.put("compacted", ComparedRecords::compacted);
        CHECKS.put("unknown-topics", ComparedRecords::unknown);
        CHECKS.put("partitioner", ComparedRecords::partitioner);
        CHECKS.put("fetch-limits", ComparedRecords::fetchLimits);
    }

    static void codec(Case at, String codec) throws Exception {
        String topic = at.topic(1);
        TopicPartition partition = new TopicPartition(topic, 0);
        try (var producer = producer("compression.type", codec, "linger.ms", "20", "batch.size", "200000")) {
            for (int i = 0; i < 3000; i++) producer.send(new ProducerRecord<>(topic, 0, 1000L + i, "k" + i % 7, "value-" + i));
            producer.flush();
        }
        try (var consumer = consumer()) {
            var all = readAll(consumer, partition);
            at.say("records", all.size());
            at.say("in order", all.stream().allMatch(r -> r.value().equals("value-" + r.offset()) && r.timestamp() == 1000 + r.offset()));
            var time = consumer.offsetsForTimes(Map.of(partition, 2234L)).get(partition);
            at.say("offset for a time inside a batch", time.offset() + "@" + time.timestamp());
            consumer.seek(partition, 1501);
            at.say("from inside a batch", read(consumer, 1).get(0).value());
        }
    }

    static void recompressed(Case at, String codec) throws Exception {
        String topic = at.topic(1, "compression.type", codec);
        for (String own : CODECS) {
            try (var producer = producer("compression.type", own, "linger.ms", "20")) {
                for (int i = 0; i < 100; i++) producer.send(new ProducerRecord<>(topic, 0, 7L + i, "k", own + "-" + i + "-" + "x".repeat(500)));
                producer.flush();
            }
        }
        try (var consumer = consumer()) {
            at.say("hash", values(readAll(consumer, new TopicPartition(topic, 0))).hashCode());
            var found = consumer.offsetsForTimes(Map.of(new TopicPartition(topic, 0), 50L)).get(new TopicPartition(topic, 0));
            at.say("offset for a time", found.offset() + "@" + found.timestamp());
        }
    }

    static void mixed(Case at) throws Exception {
        String topic = at.topic(1);
        for (int round = 0; round < 2; round++) {
            for (String codec : CODECS) {
                try (var producer = producer("compression.type", codec)) {
                    for (int i = 0; i < 50; i++) producer.send(new ProducerRecord<>(topic, codec + i));
                }
            }
        }
        try (var consumer = consumer("check.crcs", "true", "max.partition.fetch.bytes", "500")) {
            at.say("hash", values(readAll(consumer, new TopicPartition(topic, 0))).hashCode());
        }
    }

    static void large(Case at) throws Exception {
        String topic = at.topic(1, "max.message.bytes", "30000000");
        try (var producer = producer("max.request.size", "30000000", "buffer.memory", "100000000", "batch.size", "8000000", "linger.ms", "50")) {
            for (int size : new int[] {1, 1_000_000, 5_000_000, 20_000_000}) {
                var sent = producer.send(new ProducerRecord<>(topic, "x".repeat(size))).get();
                at.say("sent " + size, sent.offset() + " " + sent.serializedValueSize());
            }
            for (int i = 0; i < 4000; i++) producer.send(new ProducerRecord<>(topic, "y".repeat(2000)));
            producer.flush();
        }
        try (var consumer = consumer("fetch.max.bytes", "1000", "max.partition.fetch.bytes", "1000", "max.poll.records", "10000")) {
            var all = readAll(consumer, new TopicPartition(topic, 0));
            at.say("read with small limits", all.size() + " " + all.stream().mapToLong(r -> r.value().length()).sum());
        }
        try (var consumer = consumer("fetch.max.bytes", "60000000", "max.partition.fetch.bytes", "60000000", "fetch.min.bytes", "30000000", "fetch.max.wait.ms", "300")) {
            var all = readAll(consumer, new TopicPartition(topic, 0));
            at.say("read with large limits", all.size() + " " + all.stream().mapToLong(r -> r.value().length()).sum());
        }
    }

    static void limits(Case at) throws Exception {
        String topic = at.topic(1);
        String small = at.topic(1, "max.message.bytes", "1000");
        String large = at.topic(1, "max.message.bytes", "5000000");
        try (var producer = producer("max.request.size", "20000000", "delivery.timeout.ms", "30000", "request.timeout.ms", "20000")) {
            // Default limit of a batch: 1048588 bytes.
            for (int size : new int[] {1_048_000, 1_048_500, 1_048_588, 2_000_000}) {
                at.ask("default topic, " + size, () -> producer.send(new ProducerRecord<>(topic, "x".repeat(size))).get().offset());
            }
            at.ask("small topic, 900", () -> producer.send(new ProducerRecord<>(small, "x".repeat(900))).get().offset());
            at.ask("small topic, 1000", () -> producer.send(new ProducerRecord<>(small, "x".repeat(1000))).get().offset());
            at.ask("large topic, 4.9 MB", () -> producer.send(new ProducerRecord<>(large, "x".repeat(4_900_000))).get().offset());
            at.ask("large topic, 5.1 MB", () -> producer.send(new ProducerRecord<>(large, "x".repeat(5_100_000))).get().offset());
        }
        try (var producer = producer("max.request.size", "20000000", "compression.type", "zstd")) {
            at.ask("small topic, compressed", () -> producer.send(new ProducerRecord<>(small, "x".repeat(50_000))).get().offset());
        }
        // A batch that is too large is split by the client.
        try (var producer = producer("batch.size", "100000", "linger.ms", "200")) {
            var all = new ArrayList<java.util.concurrent.Future<RecordMetadata>>();
            for (int i = 0; i < 40; i++) all.add(producer.send(new ProducerRecord<>(small, i + "y".repeat(300))));
            producer.flush();
            at.ask("split batches", () -> {
                long last = -1;
                for (var one : all) last = one.get().offset();
                return last;
            });
        }
        try (var producer = producer("max.request.size", "1000")) {
            at.ask("beyond the client's own limit", () -> producer.send(new ProducerRecord<>(topic, "x".repeat(1001))).get());
        }
    }

    static void headers(Case at) throws Exception {
        String topic = at.topic(1);
        try (var producer = producer("compression.type", "lz4", "linger.ms", "20")) {
            var headers = List.<org.apache.kafka.common.header.Header>of(new RecordHeader("a", "1".getBytes(StandardCharsets.UTF_8)),
                new RecordHeader("a", new byte[0]), new RecordHeader("ü", null));
            producer.send(new ProducerRecord<>(topic, 0, 5L, "k", "v", headers));
            producer.send(new ProducerRecord<>(topic, 0, 6L, null, "no key"));
            producer.send(new ProducerRecord<String, String>(topic, 0, Long.valueOf(7), "no value", null));
            producer.send(new ProducerRecord<String, String>(topic, 0, Long.valueOf(8), null, null));
            producer.send(new ProducerRecord<>(topic, 0, 0L, "", ""));
        }
        try (var consumer = consumer()) {
            for (var r : readAll(consumer, new TopicPartition(topic, 0))) {
                StringBuilder all = new StringBuilder();
                r.headers().forEach(h -> all.append(h.key()).append('=').append(h.value() == null ? "null" : h.value().length).append(' '));
                at.say("record " + r.offset(), r.timestamp() + " " + r.timestampType() + " " + r.key() + " " + r.value() + " " + all + r.leaderEpoch());
            }
        }
    }

    static void createTime(Case at) throws Exception {
        String topic = at.topic(1);
        try (var producer = producer()) {
            var sent = producer.send(new ProducerRecord<>(topic, 0, 1234L, "k", "v")).get();
            at.say("metadata", sent.offset() + " " + sent.timestamp() + " " + sent.hasTimestamp() + " " + sent.partition());
            long before = System.currentTimeMillis();
            long given = producer.send(new ProducerRecord<>(topic, "now")).get().timestamp();
            at.say("now", given >= before && given <= System.currentTimeMillis());
        }
        try (var consumer = consumer()) {
            at.say("type", readAll(consumer, new TopicPartition(topic, 0)).get(0).timestampType());
        }
    }

    static void appendTime(Case at) throws Exception {
        String topic = at.topic(1, "message.timestamp.type", "LogAppendTime");
        TopicPartition partition = new TopicPartition(topic, 0);
        long before = System.currentTimeMillis();
        for (String codec : CODECS) {
            try (var producer = producer("compression.type", codec)) {
                long given = producer.send(new ProducerRecord<>(topic, 0, 1234L, "k", "v")).get().timestamp();
                at.say(codec, given >= before && given <= System.currentTimeMillis());
                // Times that CreateTime would refuse are replaced.
                at.ask(codec + ", from the future", () -> producer.send(new ProducerRecord<>(topic, 0, System.currentTimeMillis() * 2, "k", "v")).get().offset());
            }
        }
        try (var consumer = consumer()) {
            for (var r : readAll(consumer, partition)) at.say("record " + r.offset(), r.timestampType() + " " + (r.timestamp() >= before));
            at.say("before all", consumer.offsetsForTimes(Map.of(partition, before - 1000)).get(partition).offset());
            at.say("after all", consumer.offsetsForTimes(Map.of(partition, System.currentTimeMillis() + 60_000)).get(partition));
        }
    }

    static void timestampLimits(Case at) throws Exception {
        String open = at.topic(1);
        String strict = at.topic(1, "message.timestamp.before.max.ms", "60000", "message.timestamp.after.max.ms", "60000");
        long now = System.currentTimeMillis(), hour = 3_600_000;
        try (var producer = producer()) {
            for (long away : new long[] {-20 * 365 * 24 * hour, -hour, 0, 50 * 60_000, 2 * hour, 400 * 24 * hour}) {
                at.ask("default, " + away, () -> producer.send(new ProducerRecord<>(open, 0, now + away, "k", "v")).get().offset());
                at.ask("strict, " + away, () -> producer.send(new ProducerRecord<>(strict, 0, now + away, "k", "v")).get().offset());
            }
            at.ask("zero", () -> producer.send(new ProducerRecord<>(open, 0, 0L, "k", "v")).get().offset());
        }
    }

    static void acks(Case at) throws Exception {
        String topic = at.topic(1);
        List<String> all = List.of("0", "1", "all");
        for (String acks : all) {
            try (var producer = producer("acks", acks, "enable.idempotence", "false")) {
                var sent = producer.send(new ProducerRecord<>(topic, acks)).get();
                at.say("acks " + acks, sent.offset() + " " + sent.hasOffset());
            }
            // Without an acknowledgement it may still be on its way.
            try (var consumer = consumer()) {
                consumer.assign(List.of(new TopicPartition(topic, 0)));
                until("it to arrive", () -> consumer.endOffsets(consumer.assignment()).get(new TopicPartition(topic, 0)) > all.indexOf(acks), () -> { });
            }
        }
        try (var consumer = consumer()) {
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            at.say("values", values(read(consumer, 3)));
        }
    }

    static void compacted(Case at) throws Exception {
        String topic = at.topic(1, "cleanup.policy", "compact");
        try (var producer = producer("linger.ms", "50", "compression.type", "gzip")) {
            at.ask("no key", () -> producer.send(new ProducerRecord<>(topic, null, "v")).get().offset());
            at.ask("tombstone", () -> producer.send(new ProducerRecord<>(topic, "k", null)).get().offset());
            at.ask("empty key", () -> producer.send(new ProducerRecord<>(topic, "", "v")).get().offset());
            var bad = producer.send(new ProducerRecord<>(topic, null, "bad"));
            var good = producer.send(new ProducerRecord<>(topic, "good", "good"));
            at.ask("bad in a batch", () -> bad.get().offset());
            at.ask("good beside it", () -> good.get().offset() >= 0);
        }
    }

    static void unknown(Case at) throws Exception {
        try (var producer = producer("max.block.ms", "2000")) {
            at.ask("send to no topic", () -> producer.send(new ProducerRecord<>("compared-nowhere", "v")).get());
            String topic = at.topic(1);
            at.ask("send to no partition", () -> producer.send(new ProducerRecord<>(topic, 5, "k", "v")).get());
            at.ask("partitions of no topic", () -> producer.partitionsFor("compared-nowhere"));
        }
        try (var producer = producer()) {
            at.ask("send to an impossible topic", () -> producer.send(new ProducerRecord<>("not/allowed", "v")).get());
        }
        try (var consumer = consumer("group.id", "compared-unknown", "allow.auto.create.topics", "true", "default.api.timeout.ms", "3000")) {
            at.ask("end of no topic", () -> consumer.endOffsets(List.of(new TopicPartition("compared-nowhere", 0))));
            at.ask("partitions of no topic, asked", () -> consumer.partitionsFor("compared-nowhere"));
            consumer.subscribe(List.of("compared-nowhere"));
            at.ask("poll of no topic", () -> consumer.poll(Duration.ofMillis(1000)).count());
            consumer.subscribe(List.of("not/allowed"));
            at.ask("poll of an impossible topic", () -> {
                until("an error", () -> false, () -> consumer.poll(Duration.ofMillis(100)));
                return "never";
            });
        }
    }

    static void partitioner(Case at) throws Exception {
        String topic = at.topic(5);
        try (var producer = producer()) {
            for (String key : List.of("a", "b", "sensor-1", "sensor-2", "ü")) at.say(key, producer.send(new ProducerRecord<>(topic, key, "v")).get().partition());
        }
    }

    static void fetchLimits(Case at) throws Exception {
        String topic = at.topic(3);
        try (var producer = producer("batch.size", "1")) {
            for (int i = 0; i < 300; i++) producer.send(new ProducerRecord<>(topic, i % 3, null, i + "z".repeat(1000)));
        }
        try (var consumer = consumer("fetch.max.bytes", "5000", "max.poll.records", "1000")) {
            var all = List.of(new TopicPartition(topic, 0), new TopicPartition(topic, 1), new TopicPartition(topic, 2));
            consumer.assign(all);
            at.say("records", read(consumer, 300).size());
            consumer.seek(all.get(1), 1000);
            at.ask("beyond the end, earliest", () -> {
                until("the jump", () -> consumer.position(all.get(1)) == 100, () -> consumer.poll(Duration.ofMillis(100)));
                return consumer.position(all.get(1));
            });
        }
        try (var consumer = consumer("auto.offset.reset", "none")) {
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            at.ask("no position", () -> consumer.poll(Duration.ofSeconds(10)).count());
            consumer.seek(new TopicPartition(topic, 0), 101);
            at.ask("beyond the end", () -> consumer.poll(Duration.ofSeconds(10)).count());
            consumer.seek(new TopicPartition(topic, 0), 100);
            at.ask("at the end", () -> consumer.poll(Duration.ofSeconds(1)).count());
        }
    }
}
