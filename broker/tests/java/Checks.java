import java.time.Duration;
import java.util.*;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.serialization.*;

/** What a program with Apache Kafka's own client relies on. Each check prints its name; the first that fails ends the program. */
public class Checks {
    static String servers;
    static Admin admin;

    static Properties properties(String... pairs) {
        Properties all = new Properties();
        all.put("bootstrap.servers", servers);
        for (int i = 0; i < pairs.length; i += 2) all.put(pairs[i], pairs[i + 1]);
        return all;
    }

    static KafkaProducer<String, String> producer(String... pairs) {
        return new KafkaProducer<>(properties(pairs), new StringSerializer(), new StringSerializer());
    }

    static KafkaConsumer<String, String> consumer(String... pairs) {
        Properties all = properties(pairs);
        all.putIfAbsent("auto.offset.reset", "earliest");
        all.putIfAbsent("enable.auto.commit", "false");
        return new KafkaConsumer<>(all, new StringDeserializer(), new StringDeserializer());
    }

    static void same(Object wanted, Object found) {
        if (!Objects.equals(wanted, found)) throw new AssertionError("wanted " + wanted + ", found " + found);
    }

    static List<String> read(KafkaConsumer<String, String> consumer, int count) {
        List<String> found = new ArrayList<>();
        long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
        while (found.size() < count) {
            if (System.nanoTime() > deadline) throw new AssertionError("only " + found.size() + " of " + count);
            for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) found.add(record.value());
        }
        return found;
    }

    static void create(String name, int partitions, Map<String, String> configs) throws Exception {
        admin.createTopics(List.of(new NewTopic(name, partitions, (short) 1).configs(configs))).all().get();
    }

    static void codecsAndLargeBatches() throws Exception {
        create("codecs", 1, Map.of("max.message.bytes", "20000000"));
        int sent = 0;
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            try (var producer = producer("compression.type", codec, "batch.size", "2000000", "linger.ms", "50", "max.request.size", "20000000")) {
                for (int i = 0; i < 5000; i++) producer.send(new ProducerRecord<>("codecs", 0, 1_000_000L + sent, "k" + i, codec + "-" + sent++));
                producer.send(new ProducerRecord<>("codecs", 0, 1_000_000L + sent++, "large", "x".repeat(5_000_000))).get();
            }
        }
        try (var consumer = consumer("group.id", "codecs", "fetch.max.bytes", "1000000", "max.partition.fetch.bytes", "100000")) {
            TopicPartition partition = new TopicPartition("codecs", 0);
            consumer.assign(List.of(partition));
            same(sent, read(consumer, sent).size());
            for (long at : new long[] {0, 1, 4999, 7777, 20002, sent - 1}) {
                var found = consumer.offsetsForTimes(Map.of(partition, 1_000_000L + at)).get(partition);
                same(at, found.offset());
                same(1_000_000L + at, found.timestamp());
            }
            same(null, consumer.offsetsForTimes(Map.of(partition, 1_000_000L + sent)).get(partition));
        }
        var latest = admin.listOffsets(Map.of(new TopicPartition("codecs", 0), OffsetSpec.maxTimestamp())).all().get();
        same((long) sent - 1, latest.get(new TopicPartition("codecs", 0)).offset());
    }

    static void transactions() throws Exception {
        create("tx", 2, Map.of());
        var old = producer("transactional.id", "java");
        old.initTransactions();
        old.beginTransaction();
        for (int i = 0; i < 10; i++) old.send(new ProducerRecord<>("tx", i % 2, null, "aborted"));
        old.flush();
        var fresh = producer("transactional.id", "java");
        fresh.initTransactions();
        try {
            old.commitTransaction();
            throw new AssertionError("the old producer is still let in");
        } catch (ProducerFencedException wanted) {
            old.close(Duration.ZERO);
        }
        fresh.beginTransaction();
        for (int i = 0; i < 10; i++) fresh.send(new ProducerRecord<>("tx", i % 2, null, "committed"));
        fresh.sendOffsetsToTransaction(Map.of(new TopicPartition("codecs", 0), new OffsetAndMetadata(77)), new ConsumerGroupMetadata("through"));
        fresh.commitTransaction();
        fresh.beginTransaction();
        fresh.send(new ProducerRecord<>("tx", 0, null, "aborted")).get();
        fresh.abortTransaction();
        fresh.close();
        try (var consumer = consumer("group.id", "tx", "isolation.level", "read_committed")) {
            consumer.assign(List.of(new TopicPartition("tx", 0), new TopicPartition("tx", 1)));
            same(Collections.nCopies(10, "committed"), read(consumer, 10));
            var ends = consumer.endOffsets(consumer.assignment());
            while (consumer.position(new TopicPartition("tx", 0)) < ends.get(new TopicPartition("tx", 0))) same(0, consumer.poll(Duration.ofMillis(200)).count());
        }
        var offsets = admin.listConsumerGroupOffsets("through").partitionsToOffsetAndMetadata().get();
        same(77L, offsets.get(new TopicPartition("codecs", 0)).offset());
        same("COMPLETE_ABORT", admin.describeTransactions(List.of("java")).all().get().get("java").state().name());
    }

    static void groups() throws Exception {
        create("groups", 4, Map.of());
        String[] fixed = {"group.id", "static", "group.instance.id", "one", "session.timeout.ms", "120000"};
        try (var producer = producer()) {
            for (int i = 0; i < 100; i++) producer.send(new ProducerRecord<>("groups", i % 4, null, "" + i));
        }
        for (String strategy : List.of("RangeAssignor", "CooperativeStickyAssignor")) {
            String group = "group-" + strategy;
            String[] pairs = {"group.id", group, "partition.assignment.strategy", "org.apache.kafka.clients.consumer." + strategy};
            try (var one = consumer(pairs); var two = consumer(pairs)) {
                one.subscribe(List.of("groups"));
                two.subscribe(List.of("groups"));
                long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
                while (one.assignment().size() != 2 || two.assignment().size() != 2) {
                    if (System.nanoTime() > deadline) throw new AssertionError(one.assignment() + " and " + two.assignment());
                    one.poll(Duration.ofMillis(50));
                    two.poll(Duration.ofMillis(50));
                }
                same("Stable", admin.describeConsumerGroups(List.of(group)).all().get().get(group).groupState().toString());
                one.commitSync(Map.of(new TopicPartition("groups", 0), new OffsetAndMetadata(5, "note")));
            }
            same("note", admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(new TopicPartition("groups", 0)).metadata());
            admin.deleteConsumerGroupOffsets(group, Set.of(new TopicPartition("groups", 0))).all().get();
            same(false, admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().containsKey(new TopicPartition("groups", 0)));
            admin.deleteConsumerGroups(List.of(group)).all().get();
        }
        try (var consumer = consumer(fixed)) {
            consumer.subscribe(List.of("groups"));
            same(100, read(consumer, 100).size());
        }
        same(1, admin.describeConsumerGroups(List.of("static")).all().get().get("static").members().size());
        admin.removeMembersFromConsumerGroup("static", new RemoveMembersFromConsumerGroupOptions(List.of(new MemberToRemove("one")))).all().get();
    }

    static void administration() throws Exception {
        create("admin", 1, Map.of("retention.ms", "100000"));
        admin.createPartitions(Map.of("admin", NewPartitions.increaseTo(3))).all().get();
        same(3, admin.describeTopics(List.of("admin")).allTopicNames().get().get("admin").partitions().size());
        ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, "admin");
        admin.incrementalAlterConfigs(Map.of(topic, List.of(
            new AlterConfigOp(new ConfigEntry("retention.ms", ""), AlterConfigOp.OpType.DELETE),
            new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.APPEND)))).all().get();
        Config config = admin.describeConfigs(List.of(topic)).all().get().get(topic);
        same("604800000", config.get("retention.ms").value());
        same("delete,compact", config.get("cleanup.policy").value());
        same(1, admin.describeCluster().nodes().get().size());
        same(1, admin.describeLogDirs(List.of(1)).allDescriptions().get().size());
        try (var producer = producer()) {
            for (int i = 0; i < 10; i++) producer.send(new ProducerRecord<>("admin", 0, "k", "" + i)).get();
            try {
                producer.send(new ProducerRecord<>("admin", 0, null, "no key")).get();
                throw new AssertionError("a compacted topic took a record without a key");
            } catch (ExecutionException wanted) {
                same("InvalidRecordException", wanted.getCause().getClass().getSimpleName());
            }
        }
        TopicPartition first = new TopicPartition("admin", 0);
        admin.deleteRecords(Map.of(first, RecordsToDelete.beforeOffset(4))).all().get();
        same(4L, admin.listOffsets(Map.of(first, OffsetSpec.earliest())).all().get().get(first).offset());
        admin.deleteTopics(List.of("admin")).all().get();
        same(false, admin.listTopics().names().get().contains("admin"));
    }

    public static void main(String[] arguments) throws Exception {
        servers = arguments[0];
        admin = Admin.create(properties());
        codecsAndLargeBatches();
        System.out.println("codecs and large batches");
        transactions();
        System.out.println("transactions");
        groups();
        System.out.println("groups");
        administration();
        System.out.println("administration");
        admin.close();
        System.out.println("all checks hold");
    }
}
