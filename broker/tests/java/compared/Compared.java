import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.function.BooleanSupplier;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.serialization.*;

/**
 * What Apache Kafka's client sees of a broker, as lines `check | what = answer` that are the same on every run and on every broker that
 * behaves like Kafka. Whoever runs it on two brokers compares the lines. What differs between runs (ids, times, addresses, the wording of
 * errors) is left out.
 */
public class Compared {
    interface Check { void run(Case at) throws Exception; }
    interface Act { Object run() throws Exception; }

    static String servers;
    static Admin admin;
    static final Map<String, Check> CHECKS = new LinkedHashMap<>();

    /** One check while it runs: names of its own, and what it has to say. */
    static class Case {
        final String name;
        final List<String> lines = new ArrayList<>();
        private int settled;

        Case(String name) { this.name = name; }

        void say(String what, Object answer) { lines.add(name + " | " + what + " = " + answer); }

        /** The answer, or the name of the error that came in its place. */
        void ask(String what, Act act) {
            Object answer;
            try {
                answer = act.run();
            } catch (Exception fault) {
                answer = fault(fault);
            }
            say(what, answer);
        }

        /** Waits until the broker has taken up what was changed before: a cluster does that in its own time, one change after the other. */
        void settled() throws Exception {
            String topic = "settled-" + name + "-" + settled++;
            admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all().get();
            until("the changes", () -> {
                try {
                    return !admin.describeTopics(List.of(topic)).allTopicNames().get().isEmpty();
                } catch (Exception fault) {
                    return false;
                }
            }, () -> { });
        }

        String topic(int partitions, String... configs) throws Exception {
            String topic = "compared-" + name + (configs.length > 0 ? "-" + Integer.toHexString(Arrays.hashCode(configs)) : "");
            Map<String, String> given = pairs(configs);
            // Many records here are as old as 1970.
            given.putIfAbsent("retention.ms", "-1");
            admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1).configs(given))).all().get();
            settled();
            return topic;
        }
    }

    static String fault(Throwable fault) {
        while (fault instanceof ExecutionException && fault.getCause() != null) fault = fault.getCause();
        return "error " + fault.getClass().getSimpleName();
    }

    static Map<String, String> pairs(String... pairs) {
        Map<String, String> all = new TreeMap<>();
        for (int i = 0; i < pairs.length; i += 2) all.put(pairs[i], pairs[i + 1]);
        return all;
    }

    static Properties properties(String... pairs) {
        Properties all = new Properties();
        all.put("bootstrap.servers", servers);
        all.putAll(pairs(pairs));
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

    /** Waits until something holds, doing `step` on the way. */
    static void until(String what, BooleanSupplier holds, Runnable step) {
        long deadline = System.nanoTime() + Duration.ofSeconds(60).toNanos();
        while (!holds.getAsBoolean()) {
            if (System.nanoTime() > deadline) throw new IllegalStateException("waited in vain: " + what);
            step.run();
        }
    }

    static List<ConsumerRecord<String, String>> read(KafkaConsumer<String, String> consumer, int count) {
        List<ConsumerRecord<String, String>> found = new ArrayList<>();
        until(count + " records", () -> found.size() >= count, () -> consumer.poll(Duration.ofMillis(100)).forEach(found::add));
        return found;
    }

    /** All records up to the end that this consumer may see. */
    static List<ConsumerRecord<String, String>> readAll(KafkaConsumer<String, String> consumer, TopicPartition partition) {
        List<ConsumerRecord<String, String>> found = new ArrayList<>();
        consumer.assign(List.of(partition));
        consumer.seekToBeginning(List.of(partition));
        long end = consumer.endOffsets(List.of(partition)).get(partition);
        until("the end", () -> consumer.position(partition) >= end, () -> consumer.poll(Duration.ofMillis(100)).forEach(found::add));
        return found;
    }

    static List<String> values(List<ConsumerRecord<String, String>> records) {
        return records.stream().map(r -> r.offset() + ":" + r.value()).toList();
    }

    public static void main(String[] arguments) throws Exception {
        servers = arguments[0];
        admin = Admin.create(properties("request.timeout.ms", "30000"));
        ComparedRecords.checks();
        ComparedOffsets.checks();
        ComparedGroups.checks();
        ComparedTransactions.checks();
        ComparedAdministration.checks();
        List<String> wanted = List.of(arguments).subList(1, arguments.length);
        // Most of the time is waiting for timeouts of sessions and transactions.
        ExecutorService pool = Executors.newFixedThreadPool(8);
        Map<String, Future<List<String>>> running = new LinkedHashMap<>();
        CHECKS.forEach((name, check) -> {
            if (wanted.isEmpty() || wanted.stream().anyMatch(name::startsWith)) running.put(name, pool.submit(() -> run(name, check)));
        });
        for (var one : running.values()) one.get().forEach(System.out::println);
        System.out.println(running.size() + " checks");
        pool.shutdown();
        admin.close();
    }

    static List<String> run(String name, Check check) {
        Case at = new Case(name);
        try {
            check.run(at);
        } catch (Throwable fault) {
            StackTraceElement where = Arrays.stream(fault.getStackTrace()).filter(e -> e.getClassName().startsWith("Compared"))
                .skip(fault instanceof IllegalStateException ? 1 : 0).findFirst().orElse(null);
            at.say("ended with", fault(fault) + " " + fault.getMessage() + " at " + where);
        }
        return at.lines;
    }
}
