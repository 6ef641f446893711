import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;

/** Questions about offsets, and records deleted from the start. */
class ComparedOffsets extends Compared {
    static void checks() {
        CHECKS.put("list-offsets", ComparedOffsets::list);
        CHECKS.put("times-out-of-order", ComparedOffsets::outOfOrder);
        CHECKS.put("delete-records", ComparedOffsets::delete);
        CHECKS.put("retention", ComparedOffsets::retention);
    }

    static void all(Case at, String when, TopicPartition partition) {
        Map<String, OffsetSpec> specs = new LinkedHashMap<>();
        specs.put("earliest", OffsetSpec.earliest());
        specs.put("latest", OffsetSpec.latest());
        specs.put("maximum", OffsetSpec.maxTimestamp());
        specs.put("earliest local", OffsetSpec.earliestLocal());
        specs.put("latest tiered", OffsetSpec.latestTiered());
        for (long time : new long[] {0, 999, 1000, 1005, 1009, 1010}) specs.put("time " + time, OffsetSpec.forTimestamp(time));
        specs.forEach((name, spec) -> at.ask(when + ", " + name, () -> shown(admin.listOffsets(Map.of(partition, spec)).all().get().get(partition))));
        at.ask(when + ", committed latest", () -> shown(admin.listOffsets(Map.of(partition, OffsetSpec.latest()),
            new ListOffsetsOptions(IsolationLevel.READ_COMMITTED)).all().get().get(partition)));
    }

    static String shown(ListOffsetsResult.ListOffsetsResultInfo info) { return info.offset() + "@" + info.timestamp() + " " + info.leaderEpoch(); }

    static void list(Case at) throws Exception {
        String topic = at.topic(1);
        TopicPartition partition = new TopicPartition(topic, 0);
        all(at, "empty", partition);
        try (var producer = producer("batch.size", "1")) {
            for (int i = 0; i < 10; i++) producer.send(new ProducerRecord<>(topic, 0, 1000L + i, "k", "v" + i)).get();
        }
        all(at, "ten", partition);
        admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(5))).all().get();
        all(at, "five deleted", partition);
        admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(-1))).all().get();
        all(at, "all deleted", partition);
        at.ask("no partition", () -> admin.listOffsets(Map.of(new TopicPartition(topic, 7), OffsetSpec.latest()), new ListOffsetsOptions().timeoutMs(3000)).all().get());
    }

    static void outOfOrder(Case at) throws Exception {
        String topic = at.topic(1);
        TopicPartition partition = new TopicPartition(topic, 0);
        try (var producer = producer("linger.ms", "100", "compression.type", "lz4", "batch.size", "100000")) {
            for (long time : new long[] {1005, 1001, 1009, 1003}) producer.send(new ProducerRecord<>(topic, 0, time, "k", "v"));
            producer.flush();
            for (long time : new long[] {1009, 1000, 1004}) producer.send(new ProducerRecord<>(topic, 0, time, "k", "v"));
            producer.flush();
        }
        all(at, "out of order", partition);
    }

    static void delete(Case at) throws Exception {
        String topic = at.topic(2);
        TopicPartition partition = new TopicPartition(topic, 0);
        try (var producer = producer("linger.ms", "100")) {
            for (int i = 0; i < 100; i++) producer.send(new ProducerRecord<>(topic, 0, 1000L + i, "k", "v" + i));
        }
        for (long before : new long[] {0, 30, 10, 101, -2, -1}) {
            at.ask("before " + before, () -> admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(before))).all().get() == null ? "done" : "");
            at.ask("low after " + before, () -> shown(admin.listOffsets(Map.of(partition, OffsetSpec.earliest())).all().get().get(partition)));
        }
        at.ask("low watermark of an empty one", () -> admin.deleteRecords(Map.of(new TopicPartition(topic, 1), RecordsToDelete.beforeOffset(-1)))
            .lowWatermarks().get(new TopicPartition(topic, 1)).get().lowWatermark());
        at.ask("no topic", () -> admin.deleteRecords(Map.of(new TopicPartition("compared-nowhere", 0), RecordsToDelete.beforeOffset(1)),
            new DeleteRecordsOptions().timeoutMs(3000)).all().get());
        String compacted = at.topic(1, "cleanup.policy", "compact");
        at.ask("of a compacted topic", () -> admin.deleteRecords(Map.of(new TopicPartition(compacted, 0), RecordsToDelete.beforeOffset(0))).all().get());
        try (var producer = producer()) {
            at.say("offset after", producer.send(new ProducerRecord<>(topic, 0, 5000L, "k", "after")).get().offset());
        }
        try (var consumer = consumer()) {
            at.say("what is left", values(readAll(consumer, partition)));
        }
    }

    static void retention(Case at) throws Exception {
        String topic = at.topic(1, "retention.ms", "1000", "segment.bytes", "1048576");
        at.say("segment", "taken");
        at.ask("too small a segment", () -> at.topic(1, "segment.bytes", "1024"));
        at.ask("segment of 13 bytes", () -> at.topic(1, "segment.bytes", "13"));
        at.say("topic", topic.length() > 0);
    }
}
