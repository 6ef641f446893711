import java.util.*;
import java.util.stream.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.*;

/** Topics, their settings, the cluster. */
class ComparedAdministration extends Compared {
    static void checks() {
        CHECKS.put("create-topics", ComparedAdministration::create);
        CHECKS.put("topic-names", ComparedAdministration::names);
        CHECKS.put("describe-topics", ComparedAdministration::describe);
        CHECKS.put("delete-topics", ComparedAdministration::delete);
        CHECKS.put("create-partitions", ComparedAdministration::partitions);
        CHECKS.put("topic-settings", ComparedAdministration::settings);
        CHECKS.put("alter-settings", ComparedAdministration::alter);
        CHECKS.put("impossible-settings", ComparedAdministration::impossible);
        CHECKS.put("broker-settings", ComparedAdministration::broker);
        CHECKS.put("cluster", ComparedAdministration::cluster);
        CHECKS.put("log-dirs", ComparedAdministration::logDirs);
        CHECKS.put("not-there", ComparedAdministration::notThere);
        CHECKS.put("new-protocol", ComparedAdministration::newProtocol);
    }

    static void create(Case at) throws Exception {
        String name = "compared-create-";
        Map<String, NewTopic> topics = new LinkedHashMap<>();
        topics.put("plain", new NewTopic(name + 1, 3, (short) 1));
        topics.put("defaults", new NewTopic(name + 2, Optional.empty(), Optional.empty()));
        topics.put("twice", new NewTopic(name + 1, 3, (short) 1));
        topics.put("no partitions", new NewTopic(name + 3, 0, (short) 1));
        topics.put("negative", new NewTopic(name + 3, -5, (short) 1));
        topics.put("replicas", new NewTopic(name + 3, 1, (short) 3));
        topics.put("no replicas", new NewTopic(name + 3, 1, (short) 0));
        topics.put("assigned", new NewTopic(name + 4, Map.of(0, List.of(1), 1, List.of(1))));
        topics.put("assigned elsewhere", new NewTopic(name + 5, Map.of(0, List.of(7))));
        topics.put("assigned with a gap", new NewTopic(name + 5, Map.of(1, List.of(1))));
        topics.put("assigned twice", new NewTopic(name + 5, Map.of(0, List.of(1, 1))));
        topics.put("unknown setting", new NewTopic(name + 6, 1, (short) 1).configs(Map.of("no.such.setting", "1")));
        topics.put("wrong setting", new NewTopic(name + 6, 1, (short) 1).configs(Map.of("retention.ms", "soon")));
        topics.put("with settings", new NewTopic(name + 7, 1, (short) 1).configs(Map.of("retention.ms", "1000", "cleanup.policy", "compact,delete")));
        topics.forEach((what, topic) -> at.ask(what, () -> {
            var created = admin.createTopics(List.of(topic));
            created.all().get();
            return created.numPartitions(topic.name()).get() + " " + created.replicationFactor(topic.name()).get() + " " + given(created.config(topic.name()).get());
        }));
        at.ask("only checked", () -> admin.createTopics(List.of(new NewTopic(name + 8, 1, (short) 1)), new CreateTopicsOptions().validateOnly(true)).all().get());
        at.ask("only checked, exists", () -> admin.createTopics(List.of(new NewTopic(name + 1, 1, (short) 1)), new CreateTopicsOptions().validateOnly(true)).all().get());
        at.settled();
        at.ask("there now", () -> new TreeSet<>(admin.listTopics().names().get().stream().filter(n -> n.matches("compared-create-\\d+")).toList()));
    }

    static String given(Config config) {
        return config.entries().stream().filter(e -> !e.isDefault()).filter(e -> e.source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG)
            .map(e -> e.name() + "=" + e.value()).sorted().toList().toString();
    }

    static void names(Case at) throws Exception {
        for (String name : List.of("", ".", "..", "a b", "a/b", "ü", "x".repeat(249), "x".repeat(250), "compared.dots", "compared_dots", "__compared", "compared-Ok_1.2")) {
            at.ask("'" + (name.length() > 20 ? name.length() : name) + "'", () -> admin.createTopics(List.of(new NewTopic(name, 1, (short) 1))).all().get());
        }
        at.settled();
        at.ask("internal hidden", () -> admin.listTopics().names().get().contains("__compared"));
    }

    static void describe(Case at) throws Exception {
        String topic = at.topic(3);
        at.ask("described", () -> {
            var d = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
            return d.isInternal() + " " + d.partitions().stream().map(p -> p.partition() + " " + p.leader().id() + " " + p.replicas().size() + " " + p.isr().size()
                + " " + p.elr() + " " + p.lastKnownElr()).toList();
        });
        at.ask("by id", () -> {
            var id = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).topicId();
            return admin.describeTopics(TopicCollection.ofTopicIds(List.of(id))).allTopicIds().get().get(id).name().equals(topic);
        });
        at.ask("no such", () -> admin.describeTopics(List.of("compared-nowhere")).allTopicNames().get());
        at.ask("no such id", () -> admin.describeTopics(TopicCollection.ofTopicIds(List.of(Uuid.randomUuid()))).allTopicIds().get());
        at.ask("impossible", () -> admin.describeTopics(List.of("a b")).allTopicNames().get());
        at.ask("listed", () -> admin.listTopics().listings().get().stream().filter(l -> l.name().equals(topic)).map(l -> l.isInternal()).toList());
    }

    static void delete(Case at) throws Exception {
        String topic = at.topic(2);
        ComparedGroups.fill(topic, 2, 10);
        at.ask("deleted", () -> admin.deleteTopics(List.of(topic)).all().get());
        at.settled();
        at.ask("again", () -> admin.deleteTopics(List.of(topic)).all().get());
        at.ask("no such id", () -> admin.deleteTopics(TopicCollection.ofTopicIds(List.of(Uuid.randomUuid()))).all().get());
        at.topic(1);
        at.ask("anew", () -> ComparedOffsets.shown(admin.listOffsets(Map.of(new TopicPartition(topic, 0), OffsetSpec.latest())).all().get().get(new TopicPartition(topic, 0))));
        at.ask("by id", () -> {
            var id = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).topicId();
            return admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all().get();
        });
        at.settled();
        at.ask("there", () -> admin.listTopics().names().get().contains(topic));
    }

    static void partitions(Case at) throws Exception {
        String topic = at.topic(2);
        at.ask("to 4", () -> admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all().get());
        at.ask("to 4 again", () -> admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all().get());
        at.ask("to 3", () -> admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(3))).all().get());
        at.ask("to 0", () -> admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(0))).all().get());
        at.ask("assigned", () -> admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5, List.of(List.of(1))))).all().get());
        at.ask("assigned elsewhere", () -> admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(6, List.of(List.of(9))))).all().get());
        at.ask("assigned too few", () -> admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(8, List.of(List.of(1))))).all().get());
        at.ask("only checked", () -> admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(9)), new CreatePartitionsOptions().validateOnly(true)).all().get());
        at.ask("no such", () -> admin.createPartitions(Map.of("compared-nowhere", NewPartitions.increaseTo(4))).all().get());
        at.settled();
        at.ask("count", () -> admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size());
    }

    static void settings(Case at) throws Exception {
        String topic = at.topic(1, "retention.ms", "123456", "cleanup.policy", "compact");
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        var all = admin.describeConfigs(List.of(resource), new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true)).all().get().get(resource);
        all.entries().stream().sorted(Comparator.comparing(ConfigEntry::name)).forEach(e -> at.say(e.name(), e.value() + " " + e.source() + " " + e.type()
            + (e.isSensitive() ? " sensitive" : "") + (e.isReadOnly() ? " read only" : "")));
        all.entries().stream().sorted(Comparator.comparing(ConfigEntry::name)).forEach(e -> at.say("synonyms of " + e.name(), e.synonyms().stream()
            .map(s -> s.name() + "=" + s.value() + " " + s.source()).toList()));
        at.ask("no such topic", () -> {
            ConfigResource none = new ConfigResource(ConfigResource.Type.TOPIC, "compared-nowhere");
            return admin.describeConfigs(List.of(none)).all().get();
        });
        at.ask("of an impossible topic", () -> {
            ConfigResource none = new ConfigResource(ConfigResource.Type.TOPIC, "a b");
            return admin.describeConfigs(List.of(none)).all().get();
        });
    }

    static Collection<AlterConfigOp> ops(Object... all) {
        List<AlterConfigOp> ops = new ArrayList<>();
        for (int i = 0; i < all.length; i += 3) ops.add(new AlterConfigOp(new ConfigEntry((String) all[i + 1], (String) all[i + 2]), (AlterConfigOp.OpType) all[i]));
        return ops;
    }

    static void alter(Case at) throws Exception {
        String topic = at.topic(1, "retention.ms", "1000");
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        var set = AlterConfigOp.OpType.SET;
        var delete = AlterConfigOp.OpType.DELETE;
        var append = AlterConfigOp.OpType.APPEND;
        var subtract = AlterConfigOp.OpType.SUBTRACT;
        Map<String, Collection<AlterConfigOp>> steps = new LinkedHashMap<>();
        steps.put("set", ops(set, "retention.ms", "2000", set, "segment.ms", "600000"));
        steps.put("delete", ops(delete, "retention.ms", null));
        steps.put("delete what was not set", ops(delete, "retention.bytes", null));
        steps.put("append", ops(append, "cleanup.policy", "compact"));
        steps.put("append again", ops(append, "cleanup.policy", "compact"));
        steps.put("subtract", ops(subtract, "cleanup.policy", "delete"));
        steps.put("subtract what is not there", ops(subtract, "cleanup.policy", "delete"));
        steps.put("append to a number", ops(append, "retention.ms", "1"));
        steps.put("the same twice", ops(set, "retention.ms", "1", set, "retention.ms", "2"));
        steps.put("unknown", ops(set, "no.such.setting", "1"));
        steps.put("delete unknown", ops(delete, "no.such.setting", null));
        steps.put("wrong", ops(set, "retention.ms", "x"));
        steps.put("one right, one wrong", ops(set, "retention.ms", "5", set, "segment.bytes", "x"));
        steps.put("empty", ops(set, "retention.ms", ""));
        steps.put("spaces", ops(set, "retention.ms", " 7000 "));
        steps.put("subtract everything", ops(subtract, "cleanup.policy", "compact"));
        steps.forEach((what, ops) -> {
            at.ask(what, () -> admin.incrementalAlterConfigs(Map.of(resource, ops)).all().get());
            at.ask("after " + what, () -> {
                at.settled();
                return given(admin.describeConfigs(List.of(resource)).all().get().get(resource));
            });
        });
        at.ask("only checked", () -> admin.incrementalAlterConfigs(Map.of(resource, ops(set, "retention.ms", "9")), new AlterConfigsOptions().validateOnly(true)).all().get());
        at.ask("only checked, wrong", () -> admin.incrementalAlterConfigs(Map.of(resource, ops(set, "retention.ms", "y")), new AlterConfigsOptions().validateOnly(true)).all().get());
        at.ask("after", () -> given(admin.describeConfigs(List.of(resource)).all().get().get(resource)));
        at.ask("no such topic", () -> admin.incrementalAlterConfigs(Map.of(new ConfigResource(ConfigResource.Type.TOPIC, "compared-nowhere"), ops(set, "retention.ms", "9"))).all().get());
    }

    static void impossible(Case at) throws Exception {
        String[][] all = {{"retention.ms", "-2"}, {"retention.bytes", "-2"}, {"segment.bytes", "0"}, {"segment.bytes", "99999999999"}, {"segment.ms", "0"}, {"cleanup.policy", ""},
            {"cleanup.policy", "burn"}, {"cleanup.policy", "delete,delete"}, {"compression.type", "zip"}, {"compression.type", "gzip"}, {"compression.type", "uncompressed"},
            {"compression.gzip.level", "5"}, {"compression.gzip.level", "77"}, {"compression.zstd.level", "3"}, {"compression.lz4.level", "9"}, {"message.timestamp.type", "Never"},
            {"max.message.bytes", "-1"}, {"max.message.bytes", "0"}, {"min.insync.replicas", "0"}, {"min.insync.replicas", "2"}, {"min.cleanable.dirty.ratio", "1.5"},
            {"min.cleanable.dirty.ratio", "x"}, {"preallocate", "maybe"}, {"preallocate", "TRUE"}, {"unclean.leader.election.enable", "true"}, {"delete.retention.ms", "-1"},
            {"flush.messages", "0"}, {"flush.messages", "1"}, {"flush.ms", "0"}, {"file.delete.delay.ms", "0"}, {"index.interval.bytes", "0"}, {"segment.index.bytes", "3"},
            {"segment.index.bytes", "4"}, {"segment.jitter.ms", "-1"}, {"min.compaction.lag.ms", "-1"}, {"max.compaction.lag.ms", "0"}, {"message.timestamp.before.max.ms", "-1"},
            {"message.timestamp.after.max.ms", "-1"}, {"message.downconversion.enable", "false"}, {"message.format.version", "3.0"}, {"remote.storage.enable", "false"},
            {"remote.storage.enable", "true"}, {"local.retention.ms", "-2"}, {"local.retention.bytes", "-2"}, {"local.retention.ms", "5"}, {"leader.replication.throttled.replicas", "*"},
            {"follower.replication.throttled.replicas", "0:1"}, {"internal.segment.bytes", "1000"}, {"retention.ms", "9223372036854775807"}, {"retention.ms", "9223372036854775808"}};
        int count = 0;
        for (String[] pair : all) {
            String topic = "compared-impossible-" + count++;
            at.ask(pair[0] + "=" + pair[1], () -> {
                var created = admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1).configs(Map.of(pair[0], pair[1]))));
                created.all().get();
                return given(created.config(topic).get());
            });
        }
    }

    /** Of the broker's settings those are compared that mean the same on one node. */
    static void broker(Case at) throws Exception {
        for (String id : List.of("1", "", "2", "x")) {
            ConfigResource resource = new ConfigResource(ConfigResource.Type.BROKER, id);
            at.ask("of '" + id + "'", () -> {
                var all = admin.describeConfigs(List.of(resource), new DescribeConfigsOptions().timeoutMs(3000)).all().get().get(resource);
                List<String> shown = new ArrayList<>();
                for (String name : List.of("auto.create.topics.enable", "delete.topic.enable", "message.max.bytes", "num.partitions", "default.replication.factor", "log.retention.hours",
                    "log.retention.ms", "compression.type", "log.message.timestamp.type", "offsets.retention.minutes", "transaction.max.timeout.ms", "group.max.session.timeout.ms",
                    "socket.request.max.bytes", "broker.id", "node.id", "log.cleanup.policy", "min.insync.replicas", "offset.metadata.max.bytes", "max.incremental.fetch.session.cache.slots",
                    "group.min.session.timeout.ms", "connections.max.idle.ms", "log.retention.bytes", "log.roll.ms", "log.roll.hours", "transactional.id.expiration.ms")) {
                    ConfigEntry entry = all.get(name);
                    if (entry != null) shown.add(name + "=" + entry.value());
                }
                return shown;
            });
        }
        at.ask("altered for an unknown broker", () -> admin.incrementalAlterConfigs(Map.of(new ConfigResource(ConfigResource.Type.BROKER, "9"),
            ops(AlterConfigOp.OpType.SET, "log.cleaner.threads", "1")), new AlterConfigsOptions().timeoutMs(3000)).all().get());
        for (var type : List.of(ConfigResource.Type.BROKER_LOGGER, ConfigResource.Type.CLIENT_METRICS, ConfigResource.Type.GROUP)) {
            at.ask("of " + type, () -> admin.describeConfigs(List.of(new ConfigResource(type, "1")), new DescribeConfigsOptions().timeoutMs(3000)).all().get().size());
        }
    }

    static void cluster(Case at) throws Exception {
        at.ask("nodes", () -> admin.describeCluster().nodes().get().stream().map(n -> n.id() + " " + n.host() + " " + n.rack() + " " + n.isFenced()).toList());
        at.ask("controller", () -> admin.describeCluster().controller().get().id());
        at.ask("id", () -> admin.describeCluster().clusterId().get().length());
        at.ask("authorized", () -> admin.describeCluster().authorizedOperations().get());
        at.ask("authorized, asked", () -> new TreeSet<>(admin.describeCluster(new DescribeClusterOptions().includeAuthorizedOperations(true)).authorizedOperations().get()));
        String topic = at.topic(1);
        at.ask("topic, authorized", () -> new TreeSet<>(admin.describeTopics(List.of(topic), new DescribeTopicsOptions().includeAuthorizedOperations(true)).allTopicNames().get().get(topic).authorizedOperations()));
        at.ask("topic", () -> admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).authorizedOperations());
        admin.alterConsumerGroupOffsets(topic, Map.of(new TopicPartition(topic, 0), new org.apache.kafka.clients.consumer.OffsetAndMetadata(0))).all().get();
        at.ask("group, authorized", () -> new TreeSet<>(admin.describeConsumerGroups(List.of(topic), new DescribeConsumerGroupsOptions().includeAuthorizedOperations(true)).all().get().get(topic).authorizedOperations()));
        at.ask("client instance", () -> admin.clientInstanceId(java.time.Duration.ofSeconds(2)));
        try (var producer = producer()) {
            at.ask("producer instance", () -> producer.clientInstanceId(java.time.Duration.ofSeconds(2)));
        }
    }

    static void logDirs(Case at) throws Exception {
        String topic = at.topic(2);
        ComparedGroups.fill(topic, 2, 10);
        at.ask("node 1", () -> {
            var all = admin.describeLogDirs(List.of(1)).allDescriptions().get().get(1);
            var one = all.values().iterator().next();
            return all.size() + " " + one.error() + " " + one.totalBytes().isPresent() + " " + one.usableBytes().isPresent() + " " + one.isCordoned() + " "
                + one.replicaInfos().entrySet().stream().filter(e -> e.getKey().topic().equals(topic))
                    .map(e -> e.getKey().partition() + " " + (e.getValue().size() > 0) + " " + e.getValue().offsetLag() + " " + e.getValue().isFuture()).sorted().toList();
        });
        at.ask("node 7", () -> admin.describeLogDirs(List.of(7), new DescribeLogDirsOptions().timeoutMs(2000)).allDescriptions().get());
        at.ask("replicas", () -> admin.describeReplicaLogDirs(List.of(new TopicPartitionReplica(topic, 0, 1))).all().get().values().iterator().next().getCurrentReplicaLogDir() != null);
        at.ask("replicas of nothing", () -> admin.describeReplicaLogDirs(List.of(new TopicPartitionReplica("compared-nowhere", 0, 1))).all().get().values().iterator().next().getCurrentReplicaLogDir());
    }

    /** What this log does not have should fail quickly, and with a word that says so. */
    static void notThere(Case at) throws Exception {
        String topic = at.topic(1);
        at.ask("acls", () -> admin.describeAcls(org.apache.kafka.common.acl.AclBindingFilter.ANY).values().get());
        at.ask("reassignments", () -> admin.listPartitionReassignments().reassignments().get());
        at.ask("elect leaders", () -> admin.electLeaders(ElectionType.PREFERRED, Set.of(new TopicPartition(topic, 0))).partitions().get().values().stream()
            .map(e -> e.map(Compared::fault)).toList());
        at.ask("features", () -> admin.describeFeatures().featureMetadata().get() != null);
        at.ask("quorum", () -> admin.describeMetadataQuorum().quorumInfo().get().leaderId());
        at.ask("quotas", () -> admin.describeClientQuotas(org.apache.kafka.common.quota.ClientQuotaFilter.all()).entities().get());
        at.ask("scram users", () -> admin.describeUserScramCredentials().all().get());
        at.ask("tokens", () -> admin.describeDelegationToken().delegationTokens().get());
        at.ask("client metrics", () -> admin.listConfigResources(Set.of(ConfigResource.Type.CLIENT_METRICS), new ListConfigResourcesOptions()).all().get());
        at.ask("topics as resources", () -> admin.listConfigResources(Set.of(ConfigResource.Type.TOPIC), new ListConfigResourcesOptions()).all().get().size() > 0);
    }

    static void newProtocol(Case at) throws Exception {
        String topic = at.topic(1);
        ComparedGroups.fill(topic, 1, 3);
        try (var consumer = consumer("group.id", topic, "group.protocol", "consumer")) {
            consumer.subscribe(List.of(topic));
            at.ask("read", () -> values(read(consumer, 3)));
        }
        at.ask("described", () -> ComparedGroups.described(topic).groupState());
    }
}
