import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;

/** Idempotence and transactions. */
class ComparedTransactions extends Compared {
    static void checks() {
        CHECKS.put("idempotence", ComparedTransactions::idempotence);
        CHECKS.put("tx-commit-and-abort", ComparedTransactions::commitAndAbort);
        CHECKS.put("tx-fenced", ComparedTransactions::fenced);
        CHECKS.put("tx-timeout", ComparedTransactions::timeout);
        CHECKS.put("tx-timeout-too-long", ComparedTransactions::timeoutTooLong);
        CHECKS.put("tx-interleaved", ComparedTransactions::interleaved);
        CHECKS.put("tx-last-stable", ComparedTransactions::lastStable);
        CHECKS.put("tx-offsets", ComparedTransactions::offsets);
        CHECKS.put("tx-copy", ComparedTransactions::copy);
        CHECKS.put("tx-described", ComparedTransactions::described);
        CHECKS.put("tx-aborted-by-hand", ComparedTransactions::byHand);
        CHECKS.put("tx-fenced-by-hand", ComparedTransactions::fencedByHand);
        CHECKS.put("tx-misuse", ComparedTransactions::misuse);
        CHECKS.put("producers", ComparedTransactions::producers);
    }

    static KafkaProducer<String, String> transactional(String id, String... pairs) {
        String[] all = Arrays.copyOf(pairs, pairs.length + 2);
        all[pairs.length] = "transactional.id";
        all[pairs.length + 1] = id;
        var producer = producer(all);
        producer.initTransactions();
        return producer;
    }

    static List<String> seen(String topic, int partition, String isolation) {
        try (var consumer = consumer("isolation.level", isolation)) {
            return values(readAll(consumer, new TopicPartition(topic, partition)));
        }
    }

    static void idempotence(Case at) throws Exception {
        String topic = at.topic(2);
        try (var producer = producer("enable.idempotence", "true", "max.in.flight.requests.per.connection", "5", "batch.size", "100")) {
            for (int i = 0; i < 2000; i++) producer.send(new ProducerRecord<>(topic, i % 2, null, "" + i / 2));
        }
        for (int partition = 0; partition < 2; partition++) {
            var found = seen(topic, partition, "read_uncommitted");
            boolean inOrder = true;
            for (int i = 0; i < found.size(); i++) inOrder &= found.get(i).equals(i + ":" + i);
            at.say("partition " + partition, found.size() + " " + inOrder);
        }
        at.ask("needs acks", () -> producer("enable.idempotence", "true", "acks", "1"));
    }

    static void commitAndAbort(Case at) throws Exception {
        String topic = at.topic(1);
        try (var producer = transactional(topic)) {
            for (int round = 0; round < 4; round++) {
                producer.beginTransaction();
                for (int i = 0; i < 3; i++) producer.send(new ProducerRecord<>(topic, round + "-" + i));
                // An abort throws away what has not been sent yet.
                producer.flush();
                if (round % 2 == 0) producer.commitTransaction(); else producer.abortTransaction();
            }
            producer.beginTransaction();
            producer.commitTransaction();
            producer.beginTransaction();
            producer.abortTransaction();
        }
        ended(topic);
        at.say("committed", seen(topic, 0, "read_committed"));
        at.say("uncommitted", seen(topic, 0, "read_uncommitted"));
        try (var consumer = consumer("isolation.level", "read_committed")) {
            TopicPartition partition = new TopicPartition(topic, 0);
            at.say("end", consumer.endOffsets(List.of(partition)));
            consumer.assign(List.of(partition));
            consumer.seek(partition, 5);
            at.say("from inside an aborted one", values(read(consumer, 3)));
        }
    }

    static void fenced(Case at) throws Exception {
        String topic = at.topic(1);
        var old = transactional(topic);
        old.beginTransaction();
        old.send(new ProducerRecord<>(topic, "old")).get();
        var fresh = transactional(topic);
        at.ask("send of the old", () -> old.send(new ProducerRecord<>(topic, "old again")).get().offset());
        at.ask("commit of the old", () -> {
            old.commitTransaction();
            return "done";
        });
        at.ask("abort of the old", () -> {
            old.abortTransaction();
            return "done";
        });
        at.ask("begin of the old", () -> {
            old.beginTransaction();
            return "done";
        });
        old.close(Duration.ZERO);
        fresh.beginTransaction();
        fresh.send(new ProducerRecord<>(topic, "fresh"));
        fresh.commitTransaction();
        var idle = transactional(topic + "-idle");
        transactional(topic + "-idle").close();
        idle.beginTransaction();
        at.ask("first send of one fenced while idle", () -> idle.send(new ProducerRecord<>(topic, "x")).get().offset());
        at.ask("its commit", () -> {
            idle.commitTransaction();
            return "done";
        });
        idle.close(Duration.ZERO);
        fresh.close();
        ended(topic);
        at.say("committed", seen(topic, 0, "read_committed").size());
        at.ask("state", () -> state(topic));
    }

    /** Waits until the markers of the last transaction are written, for its end is answered before: until then not everybody sees it. */
    static TransactionDescription ended(String id) throws Exception {
        var d = admin.describeTransactions(List.of(id)).all().get().get(id);
        long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
        while (d.state() == TransactionState.PREPARE_COMMIT || d.state() == TransactionState.PREPARE_ABORT) {
            if (System.nanoTime() > deadline) throw new IllegalStateException("a transaction does not end");
            d = admin.describeTransactions(List.of(id)).all().get().get(id);
        }
        return d;
    }

    static String state(String id) throws Exception {
        var d = ended(id);
        return d.state() + " timeout " + d.transactionTimeoutMs() + " partitions " + d.topicPartitions().size() + " started " + d.transactionStartTimeMs().isPresent();
    }

    static void timeout(Case at) throws Exception {
        String topic = at.topic(1);
        var slow = transactional(topic, "transaction.timeout.ms", "10000");
        slow.beginTransaction();
        slow.send(new ProducerRecord<>(topic, "slow")).get();
        at.ask("while open", () -> state(topic));
        until("it is aborted", () -> {
            try {
                return state(topic).startsWith("CompleteAbort");
            } catch (Exception fault) {
                return false;
            }
        }, () -> { });
        at.ask("after", () -> state(topic));
        at.ask("send", () -> slow.send(new ProducerRecord<>(topic, "too late")).get().offset());
        at.ask("commit", () -> {
            slow.commitTransaction();
            return "done";
        });
        at.ask("abort", () -> {
            slow.abortTransaction();
            return "done";
        });
        at.ask("a new one", () -> {
            slow.beginTransaction();
            slow.send(new ProducerRecord<>(topic, "again")).get();
            slow.commitTransaction();
            return "done";
        });
        slow.close(Duration.ZERO);
        ended(topic);
        at.say("committed", seen(topic, 0, "read_committed").stream().map(v -> v.replaceAll("^\\d+:", "")).toList());
    }

    static void timeoutTooLong(Case at) throws Exception {
        at.ask("15 minutes", () -> {
            transactional("compared-long", "transaction.timeout.ms", "900000").close();
            return "taken";
        });
        at.ask("more", () -> {
            transactional("compared-longer", "transaction.timeout.ms", "900001").close();
            return "taken";
        });
    }

    static void interleaved(Case at) throws Exception {
        String topic = at.topic(1);
        try (var a = transactional(topic + "-a"); var b = transactional(topic + "-b"); var plain = producer()) {
            a.beginTransaction();
            b.beginTransaction();
            for (int i = 0; i < 3; i++) {
                a.send(new ProducerRecord<>(topic, "a" + i)).get();
                b.send(new ProducerRecord<>(topic, "b" + i)).get();
                plain.send(new ProducerRecord<>(topic, "p" + i)).get();
            }
            at.say("both open", seen(topic, 0, "read_committed"));
            b.commitTransaction();
            ended(topic + "-b");
            at.say("one open", seen(topic, 0, "read_committed"));
            a.abortTransaction();
            ended(topic + "-a");
            at.say("none open", seen(topic, 0, "read_committed"));
        }
    }

    static void lastStable(Case at) throws Exception {
        String topic = at.topic(1);
        TopicPartition partition = new TopicPartition(topic, 0);
        try (var producer = transactional(topic); var plain = producer()) {
            plain.send(new ProducerRecord<>(topic, 0, 1000L, "k", "plain")).get();
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic, 0, 2000L, "k", "open")).get();
            plain.send(new ProducerRecord<>(topic, 0, 3000L, "k", "behind")).get();
            for (IsolationLevel level : IsolationLevel.values()) {
                for (var spec : Map.of("latest", OffsetSpec.latest(), "at 2000", OffsetSpec.forTimestamp(2000), "maximum", OffsetSpec.maxTimestamp()).entrySet().stream()
                    .sorted(Map.Entry.comparingByKey()).toList()) {
                    at.ask(level + " " + spec.getKey(), () -> ComparedOffsets.shown(admin.listOffsets(Map.of(partition, spec.getValue()), new ListOffsetsOptions(level)).all().get().get(partition)));
                }
            }
            try (var consumer = consumer("isolation.level", "read_committed", "group.id", topic)) {
                consumer.assign(List.of(partition));
                at.say("read", values(read(consumer, 1)));
                at.say("position", consumer.position(partition));
                at.say("lag", consumer.currentLag(partition));
            }
            at.ask("delete records behind the open one", () -> admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(2))).all().get());
            producer.commitTransaction();
            ended(topic);
            at.say("after", seen(topic, 0, "read_committed"));
        }
    }

    static void offsets(Case at) throws Exception {
        String topic = at.topic(2);
        TopicPartition partition = new TopicPartition(topic, 0);
        String group = topic + "-group";
        try (var producer = transactional(topic)) {
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic, 0, null, "v"));
            producer.sendOffsetsToTransaction(Map.of(partition, new OffsetAndMetadata(7, "in a transaction")), new ConsumerGroupMetadata(group));
            at.ask("while open", () -> ComparedGroups.offsets(group));
            try (var consumer = consumer("group.id", group, "default.api.timeout.ms", "2000")) {
                at.ask("stable ones while open", () -> consumer.committed(Set.of(partition)));
            }
            at.ask("asked for stable ones", () -> admin.listConsumerGroupOffsets(group, new ListConsumerGroupOffsetsOptions().requireStable(true).timeoutMs(2000)).partitionsToOffsetAndMetadata().get());
            at.ask("described while open", () -> ComparedGroups.shown(group));
            producer.commitTransaction();
            ended(topic);
            at.ask("committed", () -> ComparedGroups.offsets(group));
            producer.beginTransaction();
            producer.sendOffsetsToTransaction(Map.of(partition, new OffsetAndMetadata(99)), new ConsumerGroupMetadata(group));
            producer.abortTransaction();
            ended(topic);
            at.ask("after an abort", () -> ComparedGroups.offsets(group));
            producer.beginTransaction();
            at.ask("for a member that is none", () -> {
                producer.sendOffsetsToTransaction(Map.of(partition, new OffsetAndMetadata(1)), new ConsumerGroupMetadata(group, 5, "nobody", Optional.empty()));
                return "done";
            });
            at.ask("after that", () -> {
                producer.commitTransaction();
                return "done";
            });
            at.ask("abort then", () -> {
                producer.abortTransaction();
                return "done";
            });
        }
    }

    static void copy(Case at) throws Exception {
        String from = at.topic(2), to = at.topic(1, "retention.ms", "1000000");
        ComparedGroups.fill(from, 2, 200);
        String[] pairs = {"group.id", from, "isolation.level", "read_committed", "max.poll.records", "17"};
        try (var producer = transactional(from)) {
            int done = 0, round = 0;
            while (done < 200) {
                try (var consumer = consumer(pairs)) {
                    consumer.subscribe(List.of(from));
                    // Each consumer takes a few steps; every third is aborted and its successor begins where the last commit was.
                    for (int step = 0; step < 4 && done < 200; step++) {
                        List<ConsumerRecord<String, String>> records = new ArrayList<>();
                        until("records", () -> !records.isEmpty(), () -> consumer.poll(Duration.ofMillis(50)).forEach(records::add));
                        producer.beginTransaction();
                        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
                        for (var r : records) {
                            producer.send(new ProducerRecord<>(to, r.value()));
                            offsets.put(new TopicPartition(from, r.partition()), new OffsetAndMetadata(r.offset() + 1));
                        }
                        producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
                        if (++round % 3 == 0) {
                            producer.abortTransaction();
                            break;
                        }
                        producer.commitTransaction();
                        done += records.size();
                    }
                }
            }
        }
        ended(from);
        var numbers = seen(to, 0, "read_committed").stream().map(v -> Integer.parseInt(v.replaceAll("^\\d+:", ""))).sorted().toList();
        at.say("each once", numbers.size() + " " + (new HashSet<>(numbers).size() == 200));
    }

    static void described(Case at) throws Exception {
        String topic = at.topic(2);
        at.ask("nobody", () -> state("compared-no-transaction"));
        try (var producer = transactional(topic, "transaction.timeout.ms", "33000")) {
            at.ask("new", () -> state(topic));
            at.ask("listed when new", () -> listed(topic, new ListTransactionsOptions()));
            producer.beginTransaction();
            for (int i = 0; i < 4; i++) producer.send(new ProducerRecord<>(topic, i % 2, null, "v")).get();
            at.ask("open", () -> state(topic));
            at.ask("listed", () -> listed(topic, new ListTransactionsOptions()));
            at.ask("listed as ongoing", () -> listed(topic, new ListTransactionsOptions().filterStates(Set.of(TransactionState.ONGOING))));
            at.ask("listed as empty", () -> listed(topic, new ListTransactionsOptions().filterStates(Set.of(TransactionState.EMPTY))));
            at.ask("listed as long", () -> listed(topic, new ListTransactionsOptions().filterOnDuration(1_000_000)));
            at.ask("listed by pattern", () -> listed(topic, new ListTransactionsOptions().filterOnTransactionalIdPattern("compared-tx-desc.*")));
            at.ask("listed by another pattern", () -> listed(topic, new ListTransactionsOptions().filterOnTransactionalIdPattern("nobody.*")));
            at.ask("producers", () -> shown(new TopicPartition(topic, 0)));
            producer.commitTransaction();
            at.ask("committed", () -> state(topic));
            at.ask("producers after", () -> shown(new TopicPartition(topic, 0)));
        }
    }

    static List<String> listed(String id, ListTransactionsOptions options) throws Exception {
        return admin.listTransactions(options).all().get().stream().filter(t -> t.transactionalId().equals(id)).map(t -> t.state().toString()).toList();
    }

    static List<String> shown(TopicPartition partition) throws Exception {
        return admin.describeProducers(List.of(partition)).all().get().get(partition).activeProducers().stream()
            .map(p -> "sequence " + p.lastSequence() + " open since " + p.currentTransactionStartOffset() + " time " + (p.lastTimestamp() > 0)
                + " coordinator " + p.coordinatorEpoch()).toList();
    }

    static void byHand(Case at) throws Exception {
        String topic = at.topic(1);
        TopicPartition partition = new TopicPartition(topic, 0);
        try (var producer = transactional(topic)) {
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic, "hangs")).get();
            var open = admin.describeProducers(List.of(partition)).all().get().get(partition).activeProducers().get(0);
            at.ask("aborted", () -> admin.abortTransaction(new AbortTransactionSpec(partition, open.producerId(), (short) open.producerEpoch(), open.coordinatorEpoch().orElse(0))).all().get());
            at.ask("producers", () -> shown(partition));
            at.say("committed", seen(topic, 0, "read_committed"));
            at.ask("with an old epoch", () -> admin.abortTransaction(new AbortTransactionSpec(partition, open.producerId(), (short) (open.producerEpoch() - 1), 0)).all().get());
            at.ask("on no topic", () -> admin.abortTransaction(new AbortTransactionSpec(new TopicPartition("compared-nowhere", 0), 1L, (short) 0, 0), new AbortTransactionOptions().timeoutMs(2000)).all().get());
            producer.close(Duration.ZERO);
        }
    }

    static void fencedByHand(Case at) throws Exception {
        String topic = at.topic(1);
        var producer = transactional(topic);
        producer.beginTransaction();
        producer.send(new ProducerRecord<>(topic, "open")).get();
        at.ask("fenced", () -> admin.fenceProducers(List.of(topic)).all().get());
        at.ask("nobody fenced", () -> admin.fenceProducers(List.of(topic + "-nobody")).all().get());
        at.ask("commit", () -> {
            producer.commitTransaction();
            return "done";
        });
        producer.close(Duration.ZERO);
        at.ask("state", () -> state(topic));
        at.ask("terminated", () -> admin.forceTerminateTransaction(topic).result().get());
        at.say("committed", seen(topic, 0, "read_committed"));
    }

    static void misuse(Case at) throws Exception {
        String topic = at.topic(1);
        try (var producer = producer("transactional.id", topic)) {
            at.ask("begin before init", () -> {
                producer.beginTransaction();
                return "done";
            });
        }
        try (var producer = transactional(topic)) {
            at.ask("send outside", () -> producer.send(new ProducerRecord<>(topic, "x")).get());
            producer.beginTransaction();
            at.ask("to a topic that does not exist", () -> producer.send(new ProducerRecord<>(topic, 17, "k", "x")).get());
        }
        try (var producer = transactional(topic, "max.request.size", "5000000")) {
            producer.beginTransaction();
            at.ask("too large", () -> producer.send(new ProducerRecord<>(topic, "x".repeat(2_000_000))).get());
            // Which error it is depends on what the client hears first.
            at.say("commit after an error", fails(producer::commitTransaction));
            at.ask("abort after an error", () -> {
                producer.abortTransaction();
                return "done";
            });
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic, "fine"));
            producer.commitTransaction();
        }
        ended(topic);
        at.say("committed", seen(topic, 0, "read_committed").size());
    }

    static boolean fails(Runnable act) {
        try {
            act.run();
            return false;
        } catch (KafkaException fault) {
            return true;
        }
    }

    static void producers(Case at) throws Exception {
        String topic = at.topic(2);
        TopicPartition partition = new TopicPartition(topic, 0);
        at.ask("none", () -> shown(partition));
        try (var producer = producer("enable.idempotence", "true")) {
            for (int i = 0; i < 5; i++) producer.send(new ProducerRecord<>(topic, 0, null, "v")).get();
        }
        at.ask("one", () -> shown(partition));
        at.ask("no topic", () -> admin.describeProducers(List.of(new TopicPartition("compared-nowhere", 0)), new DescribeProducersOptions().timeoutMs(3000)).all().get());
        at.ask("no partition", () -> admin.describeProducers(List.of(new TopicPartition(topic, 9)), new DescribeProducersOptions().timeoutMs(3000)).all().get());
    }
}
