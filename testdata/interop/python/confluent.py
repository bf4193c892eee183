"""Runs the interop scenarios (see the README) with confluent-kafka, that is librdkafka."""

import functools
import time

from confluent_kafka import (OFFSET_BEGINNING, OFFSET_END, Consumer, ConsumerGroupState, ConsumerGroupTopicPartitions,
                             IsolationLevel, KafkaError, KafkaException, Producer, TopicCollection, TopicPartition)
from confluent_kafka.admin import (AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic,
                                   OffsetSpec, ResourceType)

import kit

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


@functools.cache  # a client that is collected ends its calls
def admin():
    return AdminClient({"bootstrap.servers": kit.BOOTSTRAP})


def result(futures):
    """The single result of an admin call."""
    return next(iter(futures.values())).result(kit.remaining())


def refused(call, code):
    try:
        call()
    except KafkaException as e:
        kit.check(e.args[0].code() == code, f"refused with {e}")
        return
    raise AssertionError(f"taken, want error {code}")


def create(name, partitions):
    result(admin().create_topics([NewTopic(name, partitions, kit.NODES)]))
    kit.eventually(f"{name} is there", lambda: name in admin().list_topics(timeout=10).topics)
    return name


def flush(producer):
    kit.check(producer.flush(kit.remaining()) == 0, "unsent messages before the deadline")


def fill(name, n, partitions=1, base=None):
    """Produces numbered records, a second apart, round robin over the partitions."""
    base = base or kit.now_ms()
    p = Producer({"bootstrap.servers": kit.BOOTSTRAP})
    for i in range(n):
        p.produce(name, kit.numbered(i), partition=i % partitions, timestamp=base + 1000 * i, on_delivery=delivered)
    flush(p)


def delivered(err, _):
    kit.check(err is None, f"delivery failed: {err}")


def consumer(group, **more):
    return Consumer({"bootstrap.servers": kit.BOOTSTRAP, "group.id": group, "enable.auto.commit": False,
                     "auto.offset.reset": "earliest", "session.timeout.ms": kit.SESSION_MS,
                     "heartbeat.interval.ms": 300, "fetch.wait.max.ms": 100, **more})


def poll(c, n):
    messages = []
    while len(messages) < n:
        m = c.poll(min(1, kit.remaining(f"{len(messages)} messages of {n}")))
        if m is not None:
            kit.check(m.error() is None, m.error())
            messages.append(m)
    return messages


def read_from(name, offset, n):
    c = consumer("unused")
    c.assign([TopicPartition(name, 0, offset)])
    messages = poll(c, n)
    c.close()
    return messages


def admin_topics():
    adm, name = admin(), kit.topic("admin")
    new = NewTopic(name, 3, kit.NODES, config={"retention.ms": "3600000"})
    result(adm.create_topics([new], validate_only=True))
    result(adm.create_topics([new]))
    refused(lambda: result(adm.create_topics([new])), KafkaError.TOPIC_ALREADY_EXISTS)
    refused(lambda: result(adm.create_topics([NewTopic("not/allowed", 1, 1)])), KafkaError.TOPIC_EXCEPTION)

    def partitions():
        found = adm.list_topics(timeout=10).topics.get(name)
        return len(found.partitions) if found else 0
    kit.eventually("three partitions", lambda: partitions() == 3)
    result(adm.create_partitions([NewPartitions(name, 5)]))
    kit.eventually("five partitions", lambda: partitions() == 5)
    cluster = adm.describe_cluster().result(kit.remaining())
    kit.check(cluster.cluster_id and cluster.controller and len(cluster.nodes) == kit.NODES, f"cluster {cluster}")
    described = result(adm.describe_topics(TopicCollection([name])))
    kit.check(len(described.partitions) == 5 and described.partitions[4].leader.id in [n.id for n in cluster.nodes], "described")
    result(adm.delete_topics([name]))
    kit.eventually("topic gone", lambda: partitions() == 0)


def admin_configs():
    adm, name = admin(), create(kit.topic("configs"), 1)

    def entry():
        return result(adm.describe_configs([ConfigResource(ResourceType.TOPIC, name)]))["max.message.bytes"]

    def alter(op, value):
        change = ConfigEntry("max.message.bytes", value, incremental_operation=op)
        return result(adm.incremental_alter_configs(
            [ConfigResource(ResourceType.TOPIC, name, incremental_configs=[change])]))
    kit.check(entry().value == "1048588" and entry().is_default, f"default {entry()}")
    alter(AlterConfigOpType.SET, "2000000")
    kit.eventually("altered", lambda: entry().value == "2000000" and not entry().is_default)
    refused(lambda: alter(AlterConfigOpType.SET, "many"), KafkaError.INVALID_CONFIG)
    alter(AlterConfigOpType.DELETE, None)
    kit.eventually("default again", lambda: entry().value == "1048588")
    broker = str(adm.list_topics(timeout=10).controller_id)
    kit.check(len(result(adm.describe_configs([ConfigResource(ResourceType.BROKER, broker)]))) > 50, "broker configs")


def produce_codecs():
    name, first = create(kit.topic("codecs"), 1), kit.now_ms() - 3_600_000
    for codec in CODECS:
        p = Producer({"bootstrap.servers": kit.BOOTSTRAP, "compression.type": codec, "linger.ms": 100})
        for key, value, headers, timestamp in kit.records(first):
            p.produce(name, value, key, timestamp=timestamp, headers=headers, on_delivery=delivered)
        flush(p)
    kit.write_manifest(name, CODECS, first)


def read_all():
    kit.read_all(lambda name, n: [(m.key(), m.value(), m.headers() or [], m.timestamp()[1])
                                  for m in read_from(name, OFFSET_BEGINNING, n)])


def auto_create():
    name = kit.topic("auto-create")
    p = Producer({"bootstrap.servers": kit.BOOTSTRAP, "acks": "all"})
    p.produce(name, b"first", on_delivery=delivered)
    flush(p)
    kit.check(read_from(name, OFFSET_BEGINNING, 1)[0].value() == b"first", "read back")


def refusals():
    name = create(kit.topic("refusals"), 1)
    errors = []
    p = Producer({"bootstrap.servers": kit.BOOTSTRAP, "message.max.bytes": 3 << 20})
    p.produce(name, bytes(2 << 20), on_delivery=lambda e, _: errors.append(e))
    flush(p)
    kit.check(errors[0].code() == KafkaError.MSG_SIZE_TOO_LARGE, f"two megabytes: {errors}")
    p.produce(name, b"good", on_delivery=delivered)
    flush(p)


def consume_positions():
    name, base = create(kit.topic("positions"), 1), kit.now_ms() - 3_600_000
    fill(name, 20, base=base)
    kit.in_order([m.value() for m in read_from(name, OFFSET_BEGINNING, 20)], 20)
    kit.check(read_from(name, 7, 1)[0].offset() == 7, "from offset 7")
    c = consumer("unused")
    found = c.offsets_for_times([TopicPartition(name, 0, base + 5500)], timeout=10)[0]
    late = c.offsets_for_times([TopicPartition(name, 0, base + 99_000)], timeout=10)[0]
    kit.check(found.offset == 6 and late.offset == OFFSET_END, f"by time: {found} {late}")
    kit.check(read_from(name, found.offset, 1)[0].timestamp()[1] == base + 6000, "from a time")
    kit.check(c.get_watermark_offsets(TopicPartition(name, 0), timeout=10) == (0, 20), "watermarks")
    c.close()
    for spec, want in ((OffsetSpec.earliest(), 0), (OffsetSpec.latest(), 20), (OffsetSpec.max_timestamp(), 19)):
        got = result(admin().list_offsets({TopicPartition(name, 0): spec}, isolation_level=IsolationLevel.READ_COMMITTED))
        kit.check(got.offset == want, f"list offsets: {got.offset}, want {want}")


def commit_resume():
    name, group = create(kit.topic("commit"), 1), kit.topic("commit")
    fill(name, 20)
    c = consumer(group)
    c.subscribe([name])
    kit.check(poll(c, 10)[9].offset() == 9, "the first ten")
    c.commit(offsets=[TopicPartition(name, 0, 10, "half way")], asynchronous=False)
    c.close()
    c = consumer(group)
    c.subscribe([name])
    kit.check(poll(c, 10)[0].offset() == 10, "resumed at the commit")
    got = c.committed([TopicPartition(name, 0)], timeout=10)[0]
    kit.check(got.offset == 10 and got.metadata == "half way", f"committed {got}")
    c.close()


def admin_groups():
    adm, name, group = admin(), create(kit.topic("groups"), 2), kit.topic("groups")
    fill(name, 2, 2)
    c = consumer(group, **{"client.id": "the-member"})
    c.subscribe([name])
    poll(c, 2)
    c.commit(asynchronous=False)

    def describe():
        return result(adm.describe_consumer_groups([group]))
    live = describe()
    kit.check(live.state == ConsumerGroupState.STABLE and live.members[0].client_id == "the-member", f"{live.state}")
    kit.check(len(live.members[0].assignment.topic_partitions) == 2, "two partitions assigned")
    listed = adm.list_consumer_groups(states={ConsumerGroupState.STABLE}).result(kit.remaining())
    kit.check(group in [g.group_id for g in listed.valid], "not listed")
    refused(lambda: result(adm.delete_consumer_groups([group])), KafkaError.NON_EMPTY_GROUP)
    c.close()
    kit.eventually("group empty", lambda: describe().state == ConsumerGroupState.EMPTY)
    moved = ConsumerGroupTopicPartitions(group, [TopicPartition(name, 0, 0), TopicPartition(name, 1, 0)])
    result(adm.alter_consumer_group_offsets([moved]))
    offsets = result(adm.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])).topic_partitions
    kit.check(sorted((p.partition, p.offset) for p in offsets) == [(0, 0), (1, 0)], f"offsets {offsets}")
    result(adm.delete_consumer_groups([group]))
    listed = adm.list_consumer_groups().result(kit.remaining())
    kit.check(group not in [g.group_id for g in listed.valid], "still listed")


def delete_records():
    name = create(kit.topic("delete-records"), 1)
    fill(name, 20)
    deleted = result(admin().delete_records([TopicPartition(name, 0, 12)]))
    kit.check(deleted.low_watermark == 12, f"low watermark {deleted.low_watermark}")
    kit.check(read_from(name, OFFSET_BEGINNING, 8)[0].offset() == 12, "first readable record")
    kit.check(read_from(name, 3, 1)[0].offset() == 12, "an offset out of range resets to the start")


class Member:
    """A group member that remembers what it holds; step polls it once."""

    def __init__(self, name, group, **more):
        self.held, self.values, self.assignments, self.revoked = set(), set(), 0, 0
        self.incremental = more.get("partition.assignment.strategy") == "cooperative-sticky"
        self.c = consumer(group, **more)
        self.c.subscribe([name], on_assign=self.assign, on_revoke=self.lose, on_lost=self.lose)

    def assign(self, c, partitions):
        (c.incremental_assign if self.incremental else c.assign)(partitions)
        self.held |= {p.partition for p in partitions}
        self.assignments += 1
        print("assigned", sorted(self.held), flush=True)

    def lose(self, c, partitions):
        (c.incremental_unassign(partitions) if self.incremental else c.unassign())
        self.held -= {p.partition for p in partitions}
        self.revoked += len(partitions)

    def step(self):
        m = self.c.poll(0.02)
        if m is not None and not m.error():
            self.values.add(m.value())


def wait(what, ok, *members):
    kit.eventually(what, ok, lambda: [m.step() for m in members])


def run_member(name, group):
    m = Member(name, group)
    wait("the end", lambda: False, m)


def group_rebalance():
    name, group = create(kit.topic("rebalance"), 4), kit.topic("rebalance")
    fill(name, 40, 4)
    m = Member(name, group)
    wait("alone with four partitions", lambda: len(m.held) == 4, m)
    other = kit.start_member(name, group)
    wait("two of four after the second joined", lambda: len(m.held) == 2, m)
    adm = admin()

    def both():
        g = result(adm.describe_consumer_groups([group]))
        return g.state == ConsumerGroupState.STABLE and len(g.members) == 2
    wait("stable with two members", both, m)
    kit.kill(other)
    fill(name, 80, 4)
    wait("four again after the second was killed", lambda: len(m.held) == 4, m)
    wait("every value read", lambda: len(m.values) == 80, m)
    m.c.close()


def group_cooperative():
    name, group = create(kit.topic("cooperative"), 4), kit.topic("cooperative")
    sticky = {"partition.assignment.strategy": "cooperative-sticky"}
    one = Member(name, group, **sticky)
    wait("alone with four partitions", lambda: len(one.held) == 4, one)
    two = Member(name, group, **sticky)
    wait("two each", lambda: len(one.held) == 2 and len(two.held) == 2, one, two)
    kit.check(one.revoked == 2, f"the first gave up {one.revoked} partitions to hand over 2")
    two.c.close()
    wait("four again after the second left", lambda: len(one.held) == 4, one)
    one.c.close()


def group_static():
    name, group = create(kit.topic("static"), 4), kit.topic("static")
    one = Member(name, group, **{"group.instance.id": "one"})
    two = Member(name, group, **{"group.instance.id": "two"})
    wait("two each", lambda: len(one.held) == 2 and len(two.held) == 2, one, two)
    before, assignments = set(two.held), one.assignments
    two.c.close()  # a static member closes without leaving
    two = Member(name, group, **{"group.instance.id": "two"})
    wait("two for the second, back again", lambda: len(two.held) == 2, one, two)
    kit.check(two.held == before, f"held {before} before, {two.held} after")
    kit.check(one.assignments == assignments, "the first was rebalanced")
    one.c.close()
    two.c.close()


def restart_idempotent():
    n, name = 3000, create(kit.topic("restart"), 1)
    p = Producer({"bootstrap.servers": kit.BOOTSTRAP, "enable.idempotence": True, "linger.ms": 1,
                  "reconnect.backoff.max.ms": 500})
    acked = []

    def ack(err, m):
        delivered(err, m)
        acked.append(m.offset())
    for i in range(n):
        if i == n // 3:
            restart = kit.start_restart()
        p.produce(name, kit.numbered(i), on_delivery=ack)
        p.poll(0)
        time.sleep(0.0005)
    kit.check(restart.wait(kit.remaining()) == 0, "the restart failed")
    flush(p)
    kit.check(acked == list(range(n)), "acknowledged offsets are out of order")
    kit.in_order([m.value() for m in read_from(name, OFFSET_BEGINNING, n)], n)


kit.main("confluent-kafka", {f.__name__.replace("_", "-"): f for f in (
    admin_topics, admin_configs, produce_codecs, auto_create, refusals, consume_positions, commit_resume, admin_groups,
    delete_records, group_rebalance, group_cooperative, group_static, read_all, restart_idempotent)}, run_member)
