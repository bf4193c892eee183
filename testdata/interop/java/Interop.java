import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.*;

/** Runs the interop scenarios (see the README) with Kafka's own Java client. */
public final class Interop {
    private static final byte[] NONE = null;
    private static final Admin ADMIN = Admin.create(Map.of("bootstrap.servers", Kit.BOOTSTRAP));

    interface Scenario { void run() throws Exception; }

    public static void main(String[] args) throws Exception {
        Map<String, Scenario> scenarios = new LinkedHashMap<>();
        scenarios.put("admin-topics", Interop::adminTopics);
        scenarios.put("admin-configs", Interop::adminConfigs);
        scenarios.put("produce-codecs", Interop::produceCodecs);
        scenarios.put("auto-create", Interop::autoCreate);
        scenarios.put("refusals", Interop::refusals);
        scenarios.put("consume-positions", Interop::consumePositions);
        scenarios.put("commit-resume", Interop::commitResume);
        scenarios.put("admin-groups", Interop::adminGroups);
        scenarios.put("delete-records", Interop::deleteRecords);
        scenarios.put("group-rebalance", Interop::groupRebalance);
        scenarios.put("group-cooperative", Interop::groupCooperative);
        scenarios.put("group-static", Interop::groupStatic);
        scenarios.put("read-all", Interop::readAll);
        scenarios.put("restart-idempotent", Interop::restart);
        switch (args[0]) {
            case "list" -> scenarios.keySet().forEach(System.out::println);
            case "member" -> {
                Member m = new Member(args[1], args[2], Map.of());
                Kit.eventually("the end", () -> false, m::step);
            }
            default -> scenarios.get(args[0]).run();
        }
        ADMIN.close(Duration.ZERO);
        System.exit(0);
    }

    private static String create(String topic, int partitions) throws Exception {
        ADMIN.createTopics(List.of(new NewTopic(topic, Optional.of(partitions), Optional.empty()))).all().get();
        Kit.eventually(topic + " is there", () -> ADMIN.listTopics().names().get().contains(topic));
        return topic;
    }

    private static void refused(Future<?> call, Class<? extends Exception> with) throws Exception {
        try {
            call.get();
        } catch (ExecutionException e) {
            Kit.check(with.isInstance(e.getCause()), "refused with " + e.getCause() + ", want " + with.getSimpleName());
            return;
        }
        throw new AssertionError("taken, want " + with.getSimpleName());
    }

    private static KafkaProducer<byte[], byte[]> producer(Map<String, Object> more) {
        Map<String, Object> config = new LinkedHashMap<>(Map.of("bootstrap.servers", Kit.BOOTSTRAP));
        config.putAll(more);
        return new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer());
    }

    private static KafkaConsumer<byte[], byte[]> consumer(String group, Map<String, Object> more) {
        Map<String, Object> config = new LinkedHashMap<>(Map.of("bootstrap.servers", Kit.BOOTSTRAP, "group.id", group, "enable.auto.commit", false,
            "auto.offset.reset", "earliest", "session.timeout.ms", Kit.SESSION_MS, "heartbeat.interval.ms", 300, "fetch.max.wait.ms", 100));
        config.putAll(more);
        return new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    /** Produces numbered records, a second apart from the base on, round robin over the partitions. */
    private static void fill(String topic, int n, int partitions, long base) throws Exception {
        try (var p = producer(Map.of())) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int i = 0; i < n; i++) {
                sent.add(p.send(new ProducerRecord<>(topic, i % partitions, base + 1000L * i, NONE, Kit.numbered(i).getBytes())));
            }
            for (var s : sent) s.get();
        }
    }

    private static List<ConsumerRecord<byte[], byte[]>> poll(KafkaConsumer<byte[], byte[]> c, int n) {
        List<ConsumerRecord<byte[], byte[]>> out = new ArrayList<>();
        while (out.size() < n) {
            Kit.checkDeadline(out.size() + " records of " + n);
            c.poll(Duration.ofMillis(200)).forEach(out::add);
        }
        return out;
    }

    /** Reads n records of partition 0 from an offset; below 0 from the start. */
    private static List<ConsumerRecord<byte[], byte[]>> readFrom(String topic, long offset, int n) {
        var tp = new TopicPartition(topic, 0);
        try (var c = consumer("unused", Map.of())) {
            c.assign(List.of(tp));
            if (offset < 0) c.seekToBeginning(List.of(tp));
            else c.seek(tp, offset);
            return poll(c, n);
        }
    }

    private static List<String> values(List<ConsumerRecord<byte[], byte[]>> records) {
        return records.stream().map(r -> new String(r.value(), StandardCharsets.UTF_8)).toList();
    }

    private static void adminTopics() throws Exception {
        String topic = Kit.topic("admin");
        var spec = List.of(new NewTopic(topic, 3, Kit.NODES).configs(Map.of("retention.ms", "3600000")));
        ADMIN.createTopics(spec, new CreateTopicsOptions().validateOnly(true)).all().get();
        var created = ADMIN.createTopics(spec);
        Kit.check(created.numPartitions(topic).get() == 3 && created.config(topic).get().get("retention.ms").value().equals("3600000"), "created");
        refused(ADMIN.createTopics(spec).all(), TopicExistsException.class);
        refused(ADMIN.createTopics(List.of(new NewTopic("not/allowed", 1, (short) 1))).all(), InvalidTopicException.class);
        refused(ADMIN.createTopics(List.of(new NewTopic(topic + "-wide", 1, (short) 9))).all(), InvalidReplicationFactorException.class);
        Kit.check(ADMIN.listTopics().names().get().contains(topic), "not listed");
        ADMIN.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all().get();
        Kit.eventually("five partitions", () -> describe(topic).partitions().size() == 5);
        var byId = ADMIN.describeTopics(TopicCollection.ofTopicIds(List.of(describe(topic).topicId()))).allTopicIds().get();
        Kit.check(byId.values().iterator().next().name().equals(topic), "described by id");
        var cluster = ADMIN.describeCluster();
        Kit.check(cluster.nodes().get().size() == Kit.NODES && cluster.clusterId().get() != null && cluster.controller().get() != null, "cluster");
        var dirs = ADMIN.describeLogDirs(List.of(cluster.nodes().get().iterator().next().id())).allDescriptions().get();
        Kit.check(dirs.values().iterator().next().values().iterator().next().replicaInfos().containsKey(new TopicPartition(topic, 4)), "log dirs");
        ADMIN.deleteTopics(TopicCollection.ofTopicIds(List.of(describe(topic).topicId()))).all().get();
        Kit.eventually("topic gone", () -> !ADMIN.listTopics().names().get().contains(topic));
        refused(ADMIN.deleteTopics(List.of(topic)).all(), UnknownTopicOrPartitionException.class);
    }

    private static TopicDescription describe(String topic) throws Exception {
        return ADMIN.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
    }

    private static void adminConfigs() throws Exception {
        var topic = new ConfigResource(ConfigResource.Type.TOPIC, create(Kit.topic("configs"), 1));
        Scenario isDefault = () -> Kit.eventually("default", () -> entry(topic).value().equals("1048588") && entry(topic).isDefault());
        isDefault.run();
        alter(topic, AlterConfigOp.OpType.SET, "2000000").get();
        Kit.eventually("altered", () -> entry(topic).value().equals("2000000") && entry(topic).source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
        refused(alter(topic, AlterConfigOp.OpType.SET, "many"), InvalidConfigurationException.class);
        alter(topic, AlterConfigOp.OpType.DELETE, "").get();
        isDefault.run();
        var broker = new ConfigResource(ConfigResource.Type.BROKER, ADMIN.describeCluster().nodes().get().iterator().next().idString());
        var options = new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true);
        var entries = ADMIN.describeConfigs(List.of(broker), options).all().get().get(broker).entries();
        Kit.check(entries.size() > 50 && entries.stream().anyMatch(e -> e.documentation() != null && !e.documentation().isEmpty()), "broker configs");
    }

    private static ConfigEntry entry(ConfigResource topic) throws Exception {
        return ADMIN.describeConfigs(List.of(topic)).all().get().get(topic).get("max.message.bytes");
    }

    private static Future<?> alter(ConfigResource topic, AlterConfigOp.OpType op, String value) {
        return ADMIN.incrementalAlterConfigs(Map.of(topic, List.of(new AlterConfigOp(new ConfigEntry("max.message.bytes", value), op)))).all();
    }

    private static void produceCodecs() throws Exception {
        String topic = create(Kit.topic("codecs"), 1);
        long first = System.currentTimeMillis() - 3_600_000;
        var codecs = List.of("none", "gzip", "snappy", "lz4", "zstd");
        long offset = 0;
        for (String codec : codecs) {
            try (var p = producer(Map.of("compression.type", codec, "linger.ms", 100, "batch.size", 1 << 20))) {
                List<Future<RecordMetadata>> sent = new ArrayList<>();
                for (var r : Kit.records(first, true)) {
                    var out = new ProducerRecord<>(topic, 0, r.timestamp(), r.key(), r.value());
                    r.headers().forEach(h -> out.headers().add(new RecordHeader(h.key(), h.value())));
                    sent.add(p.send(out));
                }
                for (var s : sent) Kit.check(s.get().offset() == offset++, "acknowledged offset of " + codec);
            }
        }
        Kit.writeManifest(topic, codecs, first);
    }

    private static void readAll() throws Exception {
        Kit.readAll((topic, n) -> readFrom(topic, 0, n).stream().map(r -> {
            List<Kit.Header> headers = new ArrayList<>();
            r.headers().forEach(h -> headers.add(new Kit.Header(h.key(), h.value())));
            return new Kit.Rec(r.key(), r.value(), headers, r.timestamp());
        }).toList());
    }

    private static void autoCreate() throws Exception {
        String topic = Kit.topic("auto-create");
        fill(topic, 1, 1, System.currentTimeMillis());
        Kit.inOrder(values(readFrom(topic, -1, 1)), 1);
    }

    private static void refusals() throws Exception {
        String topic = create(Kit.topic("refusals"), 1);
        try (var p = producer(Map.of("max.request.size", 3 << 20))) {
            refused(p.send(new ProducerRecord<>(topic, new byte[2 << 20])), RecordTooLargeException.class);
            long late = System.currentTimeMillis() + 48 * 3_600_000L;
            refused(p.send(new ProducerRecord<>(topic, 0, late, NONE, new byte[1])), InvalidTimestampException.class);
            p.send(new ProducerRecord<>(topic, new byte[1])).get();
        }
    }

    private static void consumePositions() throws Exception {
        String topic = create(Kit.topic("positions"), 1);
        var tp = new TopicPartition(topic, 0);
        long base = System.currentTimeMillis() - 3_600_000;
        fill(topic, 20, 1, base);
        Kit.inOrder(values(readFrom(topic, -1, 20)), 20);
        Kit.check(readFrom(topic, 7, 1).get(0).offset() == 7, "from offset 7");
        try (var c = consumer("unused", Map.of())) {
            long found = c.offsetsForTimes(Map.of(tp, base + 5500)).get(tp).offset();
            Kit.check(found == 6 && readFrom(topic, found, 1).get(0).timestamp() == base + 6000, "from a time: " + found);
            Kit.check(c.offsetsForTimes(Map.of(tp, base + 99_000)).get(tp) == null, "a time past the end");
            Kit.check(c.beginningOffsets(List.of(tp)).get(tp) == 0 && c.endOffsets(List.of(tp)).get(tp) == 20, "begin and end");
        }
        var latest = ADMIN.listOffsets(Map.of(tp, OffsetSpec.maxTimestamp())).partitionResult(tp).get();
        Kit.check(latest.offset() == 19 && latest.timestamp() == base + 19_000, "highest timestamp: " + latest);
    }

    private static void commitResume() throws Exception {
        String topic = create(Kit.topic("commit"), 1), group = Kit.topic("commit");
        var tp = new TopicPartition(topic, 0);
        fill(topic, 20, 1, System.currentTimeMillis());
        try (var c = consumer(group, Map.of("max.poll.records", 10))) {
            c.subscribe(List.of(topic));
            Kit.check(poll(c, 10).get(9).offset() == 9, "the first ten");
            c.commitSync(Map.of(tp, new OffsetAndMetadata(10, "half way")));
        }
        try (var c = consumer(group, Map.of())) {
            c.subscribe(List.of(topic));
            Kit.check(poll(c, 10).get(0).offset() == 10, "resumed at the commit");
            var committed = c.committed(Set.of(tp)).get(tp);
            Kit.check(committed.offset() == 10 && committed.metadata().equals("half way"), "committed " + committed);
        }
    }

    private static void adminGroups() throws Exception {
        String topic = create(Kit.topic("groups"), 2), group = Kit.topic("groups");
        fill(topic, 2, 2, System.currentTimeMillis());
        try (var c = consumer(group, Map.of("client.id", "the-member"))) {
            c.subscribe(List.of(topic));
            poll(c, 2);
            c.commitSync();
            var live = group(group);
            Kit.check(live.groupState() == GroupState.STABLE && live.type() == GroupType.CLASSIC, "group " + live);
            var member = live.members().iterator().next();
            Kit.check(member.clientId().equals("the-member") && member.assignment().topicPartitions().size() == 2, "member " + member);
            var listed = ADMIN.listGroups(new ListGroupsOptions().inGroupStates(Set.of(GroupState.STABLE))).all().get();
            Kit.check(listed.stream().anyMatch(g -> g.groupId().equals(group)), "not listed");
            refused(ADMIN.deleteConsumerGroups(List.of(group)).all(), GroupNotEmptyException.class);
        }
        Kit.eventually("group empty", () -> group(group).groupState() == GroupState.EMPTY);
        ADMIN.alterConsumerGroupOffsets(group, Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(0))).all().get();
        ADMIN.deleteConsumerGroupOffsets(group, Set.of(new TopicPartition(topic, 1))).all().get();
        var left = ADMIN.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
        Kit.check(left.size() == 1 && left.get(new TopicPartition(topic, 0)).offset() == 0, "offsets left " + left);
        ADMIN.deleteConsumerGroups(List.of(group)).all().get();
        Kit.check(ADMIN.listGroups().all().get().stream().noneMatch(g -> g.groupId().equals(group)), "still listed");
    }

    private static ConsumerGroupDescription group(String group) throws Exception {
        return ADMIN.describeConsumerGroups(List.of(group)).all().get().get(group);
    }

    private static void deleteRecords() throws Exception {
        String topic = create(Kit.topic("delete-records"), 1);
        var tp = new TopicPartition(topic, 0);
        fill(topic, 20, 1, System.currentTimeMillis());
        var deleted = ADMIN.deleteRecords(Map.of(tp, RecordsToDelete.beforeOffset(12))).lowWatermarks().get(tp).get();
        Kit.check(deleted.lowWatermark() == 12, "low watermark " + deleted.lowWatermark());
        Kit.check(readFrom(topic, -1, 8).get(0).offset() == 12, "first readable record");
        Kit.check(readFrom(topic, 3, 1).get(0).offset() == 12, "an offset out of range resets to the start");
        refused(ADMIN.deleteRecords(Map.of(tp, RecordsToDelete.beforeOffset(99))).all(), org.apache.kafka.common.errors.OffsetOutOfRangeException.class);
    }

    /** A group member that remembers what it holds; step polls it once. */
    private static final class Member implements ConsumerRebalanceListener {
        final KafkaConsumer<byte[], byte[]> consumer;
        final Set<Integer> held = new TreeSet<>();
        final Set<String> values = new HashSet<>();
        int assignments, revoked;

        Member(String topic, String group, Map<String, Object> more) {
            consumer = consumer(group, more);
            consumer.subscribe(List.of(topic), this);
        }

        public void onPartitionsAssigned(Collection<TopicPartition> given) {
            given.forEach(p -> held.add(p.partition()));
            assignments++;
            System.out.println("holds " + held);
        }

        public void onPartitionsRevoked(Collection<TopicPartition> lost) {
            lost.forEach(p -> held.remove(p.partition()));
            revoked += lost.size();
        }

        void step() { consumer.poll(Duration.ofMillis(20)).forEach(r -> values.add(new String(r.value(), StandardCharsets.UTF_8))); }
    }

    private static void groupRebalance() throws Exception {
        String topic = create(Kit.topic("rebalance"), 4), group = Kit.topic("rebalance");
        fill(topic, 40, 4, System.currentTimeMillis());
        Member m = new Member(topic, group, Map.of("partition.assignment.strategy", RangeAssignor.class.getName()));
        Kit.eventually("alone with four partitions", () -> m.held.size() == 4, m::step);
        Process other = Kit.startMember(topic, group);
        Kit.eventually("two of four after the second joined", () -> m.held.size() == 2, m::step);
        Kit.eventually("stable with two members", () -> group(group).groupState() == GroupState.STABLE && group(group).members().size() == 2, m::step);
        Kit.kill(other);
        fill(topic, 80, 4, System.currentTimeMillis());
        Kit.eventually("four again after the second was killed", () -> m.held.size() == 4, m::step);
        Kit.eventually("every value read", () -> m.values.size() == 80, m::step);
        m.consumer.close();
    }

    private static void groupCooperative() throws Exception {
        String topic = create(Kit.topic("cooperative"), 4), group = Kit.topic("cooperative");
        Map<String, Object> sticky = Map.of("partition.assignment.strategy", CooperativeStickyAssignor.class.getName());
        Member one = new Member(topic, group, sticky);
        Kit.eventually("alone with four partitions", () -> one.held.size() == 4, one::step);
        Member two = new Member(topic, group, sticky);
        Runnable both = () -> { one.step(); two.step(); };
        Kit.eventually("two each", () -> one.held.size() == 2 && two.held.size() == 2, both);
        Kit.check(one.revoked == 2, "the first gave up " + one.revoked + " partitions to hand over 2");
        two.consumer.close();
        Kit.eventually("four again after the second left", () -> one.held.size() == 4, one::step);
        one.consumer.close();
    }

    private static void groupStatic() throws Exception {
        String topic = create(Kit.topic("static"), 4), group = Kit.topic("static");
        Member one = new Member(topic, group, Map.of("group.instance.id", "one"));
        Member two = new Member(topic, group, Map.of("group.instance.id", "two"));
        Kit.eventually("two each", () -> one.held.size() == 2 && two.held.size() == 2, () -> { one.step(); two.step(); });
        Set<Integer> before = Set.copyOf(two.held);
        int assignments = one.assignments;
        two.consumer.close(); // a static member closes without leaving
        Member again = new Member(topic, group, Map.of("group.instance.id", "two"));
        Kit.eventually("two for the second, back again", () -> again.held.size() == 2, () -> { one.step(); again.step(); });
        Kit.check(again.held.equals(before), "held " + before + " before, " + again.held + " after");
        Kit.check(one.assignments == assignments, "the first was rebalanced");
        one.consumer.close();
        again.consumer.close();
    }

    private static void restart() throws Exception {
        int n = 3000;
        String topic = create(Kit.topic("restart"), 1), group = Kit.topic("restart");
        var tp = new TopicPartition(topic, 0);
        ADMIN.alterConsumerGroupOffsets(group, Map.of(tp, new OffsetAndMetadata(7, "before the restart"))).all().get();
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        Process restart = null;
        try (var p = producer(Map.of("enable.idempotence", true, "linger.ms", 1, "reconnect.backoff.max.ms", 500))) {
            for (int i = 0; i < n; i++) {
                if (i == n / 3) restart = Kit.startRestart();
                sent.add(p.send(new ProducerRecord<>(topic, Kit.numbered(i).getBytes())));
                if (i % 2 == 0) Kit.sleep(1);
            }
            Kit.check(restart.waitFor() == 0, "the restart failed");
            for (int i = 0; i < n; i++) Kit.check(sent.get(i).get().offset() == i, "record " + i + " acknowledged at " + sent.get(i).get().offset());
        }
        Kit.inOrder(values(readFrom(topic, 0, n)), n);
        var kept = ADMIN.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(tp);
        Kit.check(kept.offset() == 7 && kept.metadata().equals("before the restart"), "commit after the restart: " + kept);
    }
}
