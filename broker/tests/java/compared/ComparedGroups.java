import java.time.Duration;
import java.util.*;
import java.util.stream.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;

/** Consumer groups: balancing, static members, commits, what an administrator sees and does. */
class ComparedGroups extends Compared {
    static final String ASSIGNORS = "org.apache.kafka.clients.consumer.";

    static void checks() {
        for (String assignor : List.of("RangeAssignor", "RoundRobinAssignor", "StickyAssignor", "CooperativeStickyAssignor")) {
            CHECKS.put("balance-" + assignor, at -> balance(at, assignor));
        }
        CHECKS.put("member-dies", ComparedGroups::dies);
        CHECKS.put("poll-too-late", ComparedGroups::late);
        CHECKS.put("static-returns", ComparedGroups::staticReturns);
        CHECKS.put("static-fenced", ComparedGroups::staticFenced);
        CHECKS.put("static-removed", ComparedGroups::staticRemoved);
        CHECKS.put("offsets", ComparedGroups::offsets);
        CHECKS.put("offsets-of-others", ComparedGroups::offsetsOfOthers);
        CHECKS.put("auto-commit", ComparedGroups::autoCommit);
        CHECKS.put("group-states", ComparedGroups::states);
        CHECKS.put("incompatible", ComparedGroups::incompatible);
        CHECKS.put("pattern", ComparedGroups::pattern);
        CHECKS.put("partitions-added", ComparedGroups::grown);
        CHECKS.put("session-bounds", ComparedGroups::sessionBounds);
        CHECKS.put("topic-deleted", ComparedGroups::topicDeleted);
        CHECKS.put("group-names", ComparedGroups::names);
    }

    static void fill(String topic, int partitions, int count) {
        try (var producer = producer()) {
            for (int i = 0; i < count; i++) producer.send(new ProducerRecord<>(topic, i % partitions, null, "" + i));
        }
    }

    static ConsumerGroupDescription described(String group) throws Exception {
        return admin.describeConsumerGroups(List.of(group)).all().get().get(group);
    }

    /** A group without what differs between runs. */
    static String shown(String group) throws Exception {
        var d = described(group);
        var members = d.members().stream().map(m -> m.clientId().replaceAll("\\d+$", "N") + " " + m.groupInstanceId() + " " + m.assignment().topicPartitions().size()
            + " " + m.host() + " " + m.consumerId().startsWith(m.groupInstanceId().orElse(m.clientId()) + "-")).sorted().toList();
        return d.groupState() + " " + d.type() + " " + d.partitionAssignor() + " " + d.isSimpleConsumerGroup() + " " + members;
    }

    static void balance(Case at, String assignor) throws Exception {
        String topic = at.topic(6);
        String group = topic;
        String[] pairs = {"group.id", group, "partition.assignment.strategy", ASSIGNORS + assignor, "session.timeout.ms", "30000"};
        List<KafkaConsumer<String, String>> members = new ArrayList<>();
        Map<Integer, Integer> seen = new TreeMap<>();
        Runnable step = () -> members.forEach(m -> {
            m.poll(Duration.ofMillis(20)).forEach(r -> seen.merge(r.partition(), 1, Integer::sum));
            try {
                m.commitSync();
            } catch (CommitFailedException | org.apache.kafka.common.errors.RebalanceInProgressException rebalance) {
                // Joins with its next poll.
            }
        });
        for (int count = 1; count <= 3; count++) {
            members.add(consumer(pairs));
            members.get(count - 1).subscribe(List.of(topic));
            int share = 6 / count, all = 600 * count;
            until(count + " members", () -> members.stream().allMatch(m -> m.assignment().size() == share), step);
            // Only now: what is read while the group changes may not be committed, and is then rightly read again.
            fill(topic, 6, 600);
            until("all records", () -> seen.values().stream().mapToInt(n -> n).sum() >= all, step);
            at.say(count + " members", members.stream().map(m -> m.assignment().size()).toList());
            at.ask("described with " + count, () -> shown(group));
        }
        at.say("each once", seen);
        members.remove(0).close();
        until("two are left", () -> members.stream().allMatch(m -> m.assignment().size() == 3), step);
        at.ask("after one left", () -> shown(group));
        members.forEach(m -> m.close());
        at.ask("after all left", () -> shown(group));
        at.ask("committed", () -> offsets(group));
        at.ask("deleted", () -> admin.deleteConsumerGroups(List.of(group)).all().get());
        at.ask("described after", () -> shown(group));
    }

    static Map<String, String> offsets(String group) throws Exception {
        Map<String, String> all = new TreeMap<>();
        admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get()
            .forEach((p, o) -> all.put(p.toString(), o == null ? "none" : o.offset() + "/" + o.metadata() + "/" + o.leaderEpoch()));
        return all;
    }

    static void dies(Case at) throws Exception {
        String topic = at.topic(2);
        String[] pairs = {"group.id", topic, "session.timeout.ms", "6000", "heartbeat.interval.ms", "1000"};
        var stays = consumer(pairs);
        stays.subscribe(List.of(topic));
        // A consumer whose heartbeats stop: its poll interval is over, and it says goodbye only then; so it is left by hand in the middle of a join.
        var dies = consumer("group.id", topic, "session.timeout.ms", "6000", "heartbeat.interval.ms", "5000", "max.poll.interval.ms", "6000");
        dies.subscribe(List.of(topic));
        until("both", () -> stays.assignment().size() == 1 && dies.assignment().size() == 1, () -> {
            stays.poll(Duration.ofMillis(20));
            dies.poll(Duration.ofMillis(20));
        });
        until("the other's part", () -> stays.assignment().size() == 2, () -> stays.poll(Duration.ofMillis(50)));
        at.ask("after", () -> shown(topic));
        at.ask("the late one's commit", () -> {
            dies.commitSync(Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(1)));
            return "done";
        });
        dies.close();
        stays.close();
    }

    static void late(Case at) throws Exception {
        String topic = at.topic(1);
        fill(topic, 1, 10);
        try (var consumer = consumer("group.id", topic, "max.poll.interval.ms", "6000", "session.timeout.ms", "6000")) {
            consumer.subscribe(List.of(topic));
            at.say("read", read(consumer, 10).size());
            until("it is put out", () -> {
                try {
                    return described(topic).members().isEmpty();
                } catch (Exception fault) {
                    return false;
                }
            }, () -> { });
            at.ask("commit", () -> {
                consumer.commitSync();
                return "done";
            });
            at.say("again", read(consumer, 10).size());
        }
    }

    static void staticReturns(Case at) throws Exception {
        String topic = at.topic(4);
        fill(topic, 4, 40);
        List<Set<TopicPartition>> revoked = new ArrayList<>();
        String[] other = {"group.id", topic, "group.instance.id", "two", "session.timeout.ms", "20000"};
        String[] own = {"group.id", topic, "group.instance.id", "one", "session.timeout.ms", "20000"};
        try (var two = consumer(other)) {
            var one = consumer(own);
            one.subscribe(List.of(topic));
            two.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                public void onPartitionsRevoked(Collection<TopicPartition> partitions) { revoked.add(new HashSet<>(partitions)); }
                public void onPartitionsAssigned(Collection<TopicPartition> partitions) { }
            });
            var first = one;
            until("both", () -> first.assignment().size() == 2 && two.assignment().size() == 2, () -> {
                first.poll(Duration.ofMillis(20));
                two.poll(Duration.ofMillis(20));
            });
            int before = revoked.size();
            Set<TopicPartition> had = Set.copyOf(one.assignment());
            one.close();
            at.ask("while it is away", () -> shown(topic));
            var again = consumer(own);
            again.subscribe(List.of(topic));
            until("it is back", () -> again.assignment().size() == 2, () -> {
                again.poll(Duration.ofMillis(20));
                two.poll(Duration.ofMillis(20));
            });
            at.say("the same partitions", had.equals(again.assignment()));
            at.say("nobody else was disturbed", revoked.size() == before);
            at.ask("described", () -> shown(topic));
            again.close();
        }
    }

    static void staticFenced(Case at) throws Exception {
        String topic = at.topic(2);
        String[] pairs = {"group.id", topic, "group.instance.id", "one", "session.timeout.ms", "30000", "heartbeat.interval.ms", "200"};
        try (var old = consumer(pairs); var fresh = consumer(pairs)) {
            old.subscribe(List.of(topic));
            fresh.subscribe(List.of(topic));
            until("the first", () -> old.assignment().size() == 2, () -> old.poll(Duration.ofMillis(20)));
            until("the second", () -> fresh.assignment().size() == 2, () -> fresh.poll(Duration.ofMillis(20)));
            at.ask("poll of the first", () -> {
                until("fenced", () -> false, () -> old.poll(Duration.ofMillis(100)));
                return "never";
            });
            at.ask("commit of the first", () -> {
                old.commitSync(Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(1)));
                return "done";
            });
            at.ask("commit of the second", () -> {
                fresh.commitSync(Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(1)));
                return "done";
            });
            at.ask("described", () -> shown(topic));
        }
    }

    static void staticRemoved(Case at) throws Exception {
        String topic = at.topic(2);
        try (var one = consumer("group.id", topic, "group.instance.id", "one", "session.timeout.ms", "30000")) {
            one.subscribe(List.of(topic));
            until("member", () -> one.assignment().size() == 2, () -> one.poll(Duration.ofMillis(20)));
        }
        at.ask("after close", () -> shown(topic));
        at.ask("delete with a member", () -> admin.deleteConsumerGroups(List.of(topic)).all().get());
        at.ask("remove a stranger", () -> admin.removeMembersFromConsumerGroup(topic, new RemoveMembersFromConsumerGroupOptions(List.of(new MemberToRemove("two")))).all().get());
        at.ask("remove it", () -> admin.removeMembersFromConsumerGroup(topic, new RemoveMembersFromConsumerGroupOptions(List.of(new MemberToRemove("one")))).all().get());
        at.ask("after", () -> shown(topic));
        try (var one = consumer("group.id", topic)) {
            one.subscribe(List.of(topic));
            until("member", () -> one.assignment().size() == 2, () -> one.poll(Duration.ofMillis(20)));
            at.ask("remove all", () -> admin.removeMembersFromConsumerGroup(topic, new RemoveMembersFromConsumerGroupOptions()).all().get());
            at.ask("commit after", () -> {
                one.commitSync(Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(1)));
                return "done";
            });
        }
        at.ask("remove from no group", () -> admin.removeMembersFromConsumerGroup("compared-none", new RemoveMembersFromConsumerGroupOptions()).all().get());
    }

    static void offsets(Case at) throws Exception {
        String topic = at.topic(3);
        fill(topic, 3, 30);
        TopicPartition first = new TopicPartition(topic, 0), last = new TopicPartition(topic, 2);
        try (var consumer = consumer("group.id", topic)) {
            consumer.assign(List.of(first, last));
            consumer.commitSync(Map.of(first, new OffsetAndMetadata(5, Optional.of(0), "a note"), last, new OffsetAndMetadata(100)));
            at.ask("committed", () -> offsets(topic));
            at.ask("through the consumer", () -> new TreeMap<>(consumer.committed(Set.of(first, last, new TopicPartition(topic, 1))).entrySet().stream()
                .collect(Collectors.toMap(e -> e.getKey().toString(), e -> String.valueOf(e.getValue())))));
            at.ask("no such partition", () -> {
                consumer.commitSync(Map.of(new TopicPartition(topic, 9), new OffsetAndMetadata(1)), Duration.ofSeconds(2));
                return "done";
            });
            at.ask("no such topic", () -> {
                consumer.commitSync(Map.of(new TopicPartition("compared-nowhere", 0), new OffsetAndMetadata(1)), Duration.ofSeconds(2));
                return "done";
            });
            at.ask("a long note", () -> {
                consumer.commitSync(Map.of(first, new OffsetAndMetadata(1, "n".repeat(4096))));
                return "done";
            });
            at.ask("too long a note", () -> {
                consumer.commitSync(Map.of(first, new OffsetAndMetadata(1, "n".repeat(4097))));
                return "done";
            });
            at.ask("of a group that does not exist", () -> offsets("compared-none"));
            at.ask("lag", () -> {
                read(consumer, 1);
                return consumer.currentLag(first).isPresent();
            });
        }
        at.ask("state", () -> shown(topic));
        at.ask("altered", () -> admin.alterConsumerGroupOffsets(topic, Map.of(first, new OffsetAndMetadata(3, "by hand"))).all().get());
        at.ask("altered to nowhere", () -> admin.alterConsumerGroupOffsets(topic, Map.of(new TopicPartition("compared-nowhere", 0), new OffsetAndMetadata(3))).all().get());
        at.ask("after", () -> offsets(topic));
        at.ask("one deleted", () -> admin.deleteConsumerGroupOffsets(topic, Set.of(first)).all().get());
        at.ask("after that", () -> offsets(topic));
        at.ask("deleted where nothing is", () -> admin.deleteConsumerGroupOffsets(topic, Set.of(new TopicPartition(topic, 1))).all().get());
        at.ask("deleted of no topic", () -> admin.deleteConsumerGroupOffsets(topic, Set.of(new TopicPartition("compared-nowhere", 0))).all().get());
        at.ask("deleted of no group", () -> admin.deleteConsumerGroupOffsets("compared-none", Set.of(first)).all().get());
        at.ask("delete no group", () -> admin.deleteConsumerGroups(List.of("compared-none")).all().get());
        at.ask("a new group by hand", () -> admin.alterConsumerGroupOffsets(topic + "-new", Map.of(first, new OffsetAndMetadata(3))).all().get());
        at.ask("described", () -> shown(topic + "-new"));
    }

    static void offsetsOfOthers(Case at) throws Exception {
        String topic = at.topic(2);
        fill(topic, 2, 20);
        try (var one = consumer("group.id", topic); var other = consumer("group.id", topic)) {
            one.subscribe(List.of(topic));
            until("member", () -> one.assignment().size() == 2, () -> one.poll(Duration.ofMillis(20)));
            other.assign(List.of(new TopicPartition(topic, 0)));
            at.ask("commit from outside", () -> {
                other.commitSync(Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(1)));
                return "done";
            });
            at.ask("alter from outside", () -> admin.alterConsumerGroupOffsets(topic, Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(3))).all().get());
            at.ask("delete from outside", () -> admin.deleteConsumerGroupOffsets(topic, Set.of(new TopicPartition(topic, 0))).all().get());
            at.ask("delete the group", () -> admin.deleteConsumerGroups(List.of(topic)).all().get());
        }
    }

    static void autoCommit(Case at) throws Exception {
        String topic = at.topic(1);
        fill(topic, 1, 50);
        String[] pairs = {"group.id", topic, "enable.auto.commit", "true", "auto.commit.interval.ms", "100"};
        try (var consumer = consumer(pairs)) {
            consumer.subscribe(List.of(topic));
            read(consumer, 50);
        }
        at.ask("after close", () -> offsets(topic));
        fill(topic, 1, 5);
        try (var consumer = consumer(pairs)) {
            consumer.subscribe(List.of(topic));
            at.say("goes on at", values(read(consumer, 5)));
        }
        try (var consumer = consumer("group.id", topic + "-latest", "auto.offset.reset", "latest")) {
            consumer.subscribe(List.of(topic));
            until("assigned", () -> consumer.assignment().size() == 1, () -> consumer.poll(Duration.ofMillis(20)));
            at.say("latest", consumer.position(new TopicPartition(topic, 0)));
        }
        try (var consumer = consumer("group.id", topic + "-none", "auto.offset.reset", "none")) {
            consumer.subscribe(List.of(topic));
            at.ask("none", () -> {
                until("error", () -> false, () -> consumer.poll(Duration.ofMillis(50)));
                return "never";
            });
        }
    }

    static void states(Case at) throws Exception {
        String topic = at.topic(1);
        at.ask("before", () -> shown(topic));
        try (var consumer = consumer("group.id", topic)) {
            consumer.subscribe(List.of(topic));
            until("member", () -> consumer.assignment().size() == 1, () -> consumer.poll(Duration.ofMillis(20)));
            for (GroupState state : List.of(GroupState.STABLE, GroupState.EMPTY)) {
                at.ask("listed as " + state, () -> listed(topic, ListGroupsOptions.forConsumerGroups().inGroupStates(Set.of(state))));
            }
            at.ask("listed", () -> listed(topic, new ListGroupsOptions()));
            at.ask("listed as classic", () -> listed(topic, new ListGroupsOptions().withTypes(Set.of(GroupType.CLASSIC))));
            at.ask("listed as consumer", () -> listed(topic, new ListGroupsOptions().withTypes(Set.of(GroupType.CONSUMER))));
            at.ask("listed by protocol", () -> listed(topic, new ListGroupsOptions().withProtocolTypes(Set.of("consumer"))));
            at.ask("described as classic", () -> {
                var d = admin.describeClassicGroups(List.of(topic)).all().get().get(topic);
                return d.state() + " " + d.protocol() + " " + d.protocolData() + " " + d.members().size();
            });
        }
        at.ask("left, nothing committed", () -> shown(topic));
        at.ask("listed when empty", () -> listed(topic, new ListGroupsOptions()));
    }

    static List<String> listed(String group, ListGroupsOptions options) throws Exception {
        return admin.listGroups(options).all().get().stream().filter(g -> g.groupId().equals(group))
            .map(g -> g.groupState() + " " + g.type() + " " + g.protocol() + " " + g.isSimpleConsumerGroup()).toList();
    }

    static void incompatible(Case at) throws Exception {
        String topic = at.topic(2);
        try (var one = consumer("group.id", topic, "partition.assignment.strategy", ASSIGNORS + "RangeAssignor");
             var two = consumer("group.id", topic, "partition.assignment.strategy", ASSIGNORS + "RoundRobinAssignor")) {
            one.subscribe(List.of(topic));
            until("member", () -> one.assignment().size() == 2, () -> one.poll(Duration.ofMillis(20)));
            two.subscribe(List.of(topic));
            at.ask("another assignor", () -> {
                until("error", () -> false, () -> two.poll(Duration.ofMillis(50)));
                return "never";
            });
        }
    }

    static void pattern(Case at) throws Exception {
        String first = at.topic(1, "retention.ms", "100000"), second = at.topic(2, "retention.ms", "200000");
        try (var consumer = consumer("group.id", "compared-pattern", "metadata.max.age.ms", "500")) {
            consumer.subscribe(java.util.regex.Pattern.compile("compared-pattern-.*"));
            until("both", () -> consumer.assignment().size() == 3, () -> consumer.poll(Duration.ofMillis(20)));
            at.topic(2, "retention.ms", "300000");
            until("the third", () -> consumer.assignment().size() == 5, () -> consumer.poll(Duration.ofMillis(20)));
            admin.deleteTopics(List.of(first)).all().get();
            until("one less", () -> consumer.assignment().size() == 4, () -> consumer.poll(Duration.ofMillis(20)));
            at.say("followed", !second.isEmpty());
        }
        // The broker's own regular expressions belong to the new protocol.
        try (var consumer = consumer("group.id", "compared-pattern-2")) {
            at.ask("the broker's pattern", () -> {
                consumer.subscribe(new SubscriptionPattern("compared-pattern-.*"));
                return "taken";
            });
        }
    }

    static void grown(Case at) throws Exception {
        String topic = at.topic(1);
        try (var consumer = consumer("group.id", topic, "metadata.max.age.ms", "500")) {
            consumer.subscribe(List.of(topic));
            until("one", () -> consumer.assignment().size() == 1, () -> consumer.poll(Duration.ofMillis(20)));
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all().get();
            fill(topic, 4, 40);
            Set<String> found = new HashSet<>();
            until("all records", () -> found.size() == 40, () -> consumer.poll(Duration.ofMillis(50)).forEach(r -> found.add(r.value())));
            at.say("assigned", consumer.assignment().size());
        }
    }

    static void sessionBounds(Case at) throws Exception {
        String topic = at.topic(1);
        for (String timeout : List.of("1000", "6000", "1800000", "1800001")) {
            try (var consumer = consumer("group.id", topic + timeout, "session.timeout.ms", timeout, "heartbeat.interval.ms", "300", "max.poll.interval.ms", "2000000")) {
                consumer.subscribe(List.of(topic));
                at.ask(timeout, () -> {
                    until("joined", () -> consumer.assignment().size() == 1, () -> consumer.poll(Duration.ofMillis(20)));
                    return "joined";
                });
            }
        }
    }

    static void topicDeleted(Case at) throws Exception {
        String topic = at.topic(1);
        fill(topic, 1, 10);
        try (var consumer = consumer("group.id", topic)) {
            consumer.assign(List.of(new TopicPartition(topic, 0)));
            read(consumer, 10);
            consumer.commitSync();
        }
        admin.deleteTopics(List.of(topic)).all().get();
        until("it is gone", () -> {
            try {
                return offsets(topic).isEmpty();
            } catch (Exception fault) {
                return true;
            }
        }, () -> { });
        at.ask("offsets", () -> offsets(topic));
        at.topic(1);
        fill(topic, 1, 3);
        try (var consumer = consumer("group.id", topic)) {
            consumer.subscribe(List.of(topic));
            at.say("begins anew", values(read(consumer, 3)));
        }
    }

    static void names(Case at) throws Exception {
        String topic = at.topic(1);
        fill(topic, 1, 3);
        for (String group : List.of(" x", "ü/ö?", "g".repeat(300))) {
            try (var consumer = consumer("group.id", group)) {
                consumer.subscribe(List.of(topic));
                at.ask("group of " + group.length(), () -> {
                    read(consumer, 3);
                    consumer.commitSync();
                    return "works";
                });
            }
        }
        try (var consumer = consumer()) {
            at.ask("without a group", () -> {
                consumer.subscribe(List.of(topic));
                consumer.poll(Duration.ofMillis(100));
                return "works";
            });
        }
    }
}
