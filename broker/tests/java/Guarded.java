import java.time.Duration;
import java.util.*;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.serialization.*;

/** The listener that asks who one is: Guarded ADDRESS CERTIFICATE, or "-" where it has none. User ann may use the topic t, and no other. */
public class Guarded {
    static String address, certificate;

    static Properties properties(String mechanism, String password, String... pairs) {
        Properties all = new Properties();
        all.put("bootstrap.servers", address);
        all.put("security.protocol", certificate.equals("-") ? "SASL_PLAINTEXT" : "SASL_SSL");
        if (!certificate.equals("-")) {
            all.put("ssl.truststore.type", "PEM");
            all.put("ssl.truststore.location", certificate);
        }
        all.put("sasl.mechanism", mechanism);
        String module = mechanism.equals("PLAIN") ? "plain.PlainLoginModule" : "scram.ScramLoginModule";
        all.put("sasl.jaas.config", "org.apache.kafka.common.security." + module + " required username=\"ann\" password=\"" + password + "\";");
        for (int i = 0; i < pairs.length; i += 2) all.put(pairs[i], pairs[i + 1]);
        return all;
    }

    static String fault(Throwable fault) {
        while (fault instanceof ExecutionException) fault = fault.getCause();
        return fault.getClass().getSimpleName();
    }

    static void same(Object wanted, Object found) {
        if (!Objects.equals(wanted, found)) throw new AssertionError("wanted " + wanted + ", found " + found);
    }

    static void works(String mechanism) throws Exception {
        String value = certificate + mechanism;
        try (var producer = new KafkaProducer<>(properties(mechanism, "a secret", "transactional.id", "ann-1"), new StringSerializer(), new StringSerializer())) {
            producer.initTransactions();
            producer.beginTransaction();
            producer.send(new ProducerRecord<>("t", value));
            producer.commitTransaction();
            producer.beginTransaction();
            try {
                producer.send(new ProducerRecord<>("other", value)).get();
                throw new AssertionError("ann wrote to a topic that is not hers");
            } catch (ExecutionException wanted) {
                same("TopicAuthorizationException", fault(wanted));
            }
        }
        Properties own = properties(mechanism, "a secret", "group.id", "ann-" + mechanism, "auto.offset.reset", "earliest", "isolation.level", "read_committed");
        try (var consumer = new KafkaConsumer<>(own, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of("t"));
            boolean found = false;
            for (long end = System.nanoTime() + Duration.ofSeconds(60).toNanos(); !found && System.nanoTime() < end; ) {
                for (var record : consumer.poll(Duration.ofMillis(100))) found |= record.value().equals(value);
            }
            same(true, found);
            consumer.commitSync();
        }
        own.put("group.id", "bobs");
        try (var consumer = new KafkaConsumer<>(own, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of("t"));
            for (long end = System.nanoTime() + Duration.ofSeconds(60).toNanos(); System.nanoTime() < end; ) consumer.poll(Duration.ofMillis(100));
            throw new AssertionError("ann is in a group that is not hers");
        } catch (KafkaException wanted) {
            same("GroupAuthorizationException", fault(wanted));
        }
        try (var admin = Admin.create(properties(mechanism, "a secret"))) {
            same(Set.of("t"), admin.listTopics().names().get());
            try {
                admin.deleteTopics(List.of("t")).all().get();
                throw new AssertionError("ann deleted a topic");
            } catch (ExecutionException wanted) {
                same("TopicAuthorizationException", fault(wanted));
            }
        }
        try (var admin = Admin.create(properties(mechanism, "a guess"))) {
            admin.listTopics().names().get();
            throw new AssertionError("a guess was good enough");
        } catch (ExecutionException wanted) {
            same("SaslAuthenticationException", fault(wanted));
        }
    }

    public static void main(String[] arguments) throws Exception {
        address = arguments[0];
        certificate = arguments[1];
        for (String mechanism : List.of("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")) works(mechanism);
        System.out.println("all checks hold");
    }
}
