"""Runs the interop scenarios (see the README) with kafka-python."""

import threading
import time

import kafka
from kafka.admin import AlterConfigOp, ConfigResource, ConfigResourceType
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import InvalidTopicError, TopicAlreadyExistsError
from kafka.structs import OffsetAndMetadata, TopicPartition

import kit

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
NULL = object()  # send takes no null value without a key, but a serializer may give one


def admin():
    return kafka.KafkaAdminClient(bootstrap_servers=kit.BOOTSTRAP)


def producer(**more):
    return kafka.KafkaProducer(bootstrap_servers=kit.BOOTSTRAP, value_serializer=lambda v: None if v is NULL else v, **more)


def consumer(group=None, **more):
    return kafka.KafkaConsumer(**{"bootstrap_servers": kit.BOOTSTRAP, "group_id": group, "enable_auto_commit": False,
                                  "auto_offset_reset": "earliest", "session_timeout_ms": kit.SESSION_MS,
                                  "heartbeat_interval_ms": 300, "fetch_max_wait_ms": 100, **more})


def refused(call, error):
    try:
        call()
    except error:
        return
    raise AssertionError(f"taken, want {error.__name__}")


def create(name, partitions):
    admin().create_topics({name: {"num_partitions": partitions}}, wait_for_metadata=True)
    return name


def acknowledged(futures):
    """The metadata of all records sent."""
    return [f.get(timeout=kit.remaining()) for f in futures]


def fill(name, n, partitions=1, base=None):
    """Produces numbered records, a second apart, round robin over the partitions."""
    base = base or kit.now_ms()
    p = producer()
    acknowledged([p.send(name, kit.numbered(i), partition=i % partitions, timestamp_ms=base + 1000 * i) for i in range(n)])
    p.close()


def poll(c, n):
    messages = []
    while len(messages) < n:
        kit.remaining(f"{len(messages)} messages of {n}")
        for some in c.poll(timeout_ms=200, max_records=n - len(messages)).values():
            messages += some
    return messages


def read_from(name, offset, n):
    """Reads n messages of partition 0; from the start when offset is None."""
    c, tp = consumer(), TopicPartition(name, 0)
    c.assign([tp])
    c.seek_to_beginning(tp) if offset is None else c.seek(tp, offset)
    messages = poll(c, n)
    c.close()
    return messages


def admin_topics():
    adm, name = admin(), kit.topic("admin")
    new = {name: {"num_partitions": 3, "replication_factor": kit.NODES, "configs": {"retention.ms": "3600000"}}}
    adm.create_topics(new, validate_only=True)
    adm.create_topics(new)
    refused(lambda: adm.create_topics(new), TopicAlreadyExistsError)
    refused(lambda: adm.create_topics({"not/allowed": {}}), InvalidTopicError)

    def partitions():
        return len(adm.describe_topics([name])[0]["partitions"])
    kit.eventually("three partitions", lambda: partitions() == 3)
    adm.create_partitions({name: 5})
    kit.eventually("five partitions", lambda: partitions() == 5)
    kit.check(len(adm.describe_cluster()["brokers"]) == kit.NODES, "all brokers")
    adm.delete_topics([name])
    kit.eventually("topic gone", lambda: name not in adm.list_topics())


def admin_configs():
    adm, name = admin(), create(kit.topic("configs"), 1)

    def value():
        described = adm.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)], config_filter="all")
        return described["topic"][name]["max.message.bytes"]["value"]

    def alter(op, to):
        changes = {"max.message.bytes": (op, to)}
        return adm.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=changes)])
    kit.check(value() == "1048588", f"default {value()}")
    alter(AlterConfigOp.SET, "2000000")
    kit.eventually("altered", lambda: value() == "2000000")
    refusal = str(alter(AlterConfigOp.SET, "many"))  # this client reports it instead of raising
    kit.check("Invalid value many" in refusal, refusal)
    alter(AlterConfigOp.DELETE, None)
    kit.eventually("default again", lambda: value() == "1048588")


def produce_codecs():
    name, first = create(kit.topic("codecs"), 1), kit.now_ms() - 3_600_000
    for codec in CODECS:
        p = producer(compression_type=None if codec == "none" else codec, linger_ms=100, batch_size=1 << 20)
        acknowledged([p.send(name, NULL if value is None else value, key, headers, 0, timestamp)
                      for key, value, headers, timestamp in kit.records(first, null_headers=False)])
        p.close()
    kit.write_manifest(name, CODECS, first, null_headers=False)


def read_all():
    kit.read_all(lambda name, n: [(m.key, m.value, list(m.headers), m.timestamp) for m in read_from(name, 0, n)])


def consume_positions():
    name, base = create(kit.topic("positions"), 1), kit.now_ms() - 3_600_000
    fill(name, 20, base=base)
    kit.in_order([m.value for m in read_from(name, None, 20)], 20)
    kit.check(read_from(name, 7, 1)[0].offset == 7, "from offset 7")
    c, tp = consumer(), TopicPartition(name, 0)
    found = c.offsets_for_times({tp: base + 5500})[tp]
    kit.check(found.offset == 6 and found.timestamp == base + 6000, f"by time: {found}")
    kit.check(c.offsets_for_times({tp: base + 99_000})[tp] is None, "a time past the end")
    kit.check((c.beginning_offsets([tp])[tp], c.end_offsets([tp])[tp]) == (0, 20), "begin and end")
    c.close()


def commit_resume():
    name, group = create(kit.topic("commit"), 1), kit.topic("commit")
    tp = TopicPartition(name, 0)
    fill(name, 20)
    c = consumer(group)
    c.subscribe([name])
    kit.check(poll(c, 10)[9].offset == 9, "the first ten")
    c.commit({tp: OffsetAndMetadata(10, "half way", -1)})
    c.close()
    c = consumer(group)
    c.subscribe([name])
    kit.check(poll(c, 10)[0].offset == 10, "resumed at the commit")
    got = c.committed(tp, metadata=True)
    kit.check(got.offset == 10 and got.metadata == "half way", f"committed {got}")
    c.close()


def admin_groups():
    adm, name, group = admin(), create(kit.topic("groups"), 2), kit.topic("groups")
    fill(name, 2, 2)
    c = consumer(group, client_id="the-member")
    c.subscribe([name])
    poll(c, 2)
    c.commit()

    def state():
        return adm.describe_groups([group])[group]
    kit.check(state()["group_state"] == "Stable" and state()["members"][0]["client_id"] == "the-member", str(state()))
    kit.check(group in [g["group_id"] for g in adm.list_groups(states_filter=["Stable"])], "not listed")
    kit.check(adm.delete_groups([group])[group] == "NonEmptyGroupError", "delete of a live group")
    c.close()
    kit.eventually("group empty", lambda: state()["group_state"] == "Empty")
    offsets = adm.list_group_offsets(group)[group]
    kit.check({tp.partition: o.offset for tp, o in offsets.items()} == {0: 1, 1: 1}, f"offsets {offsets}")
    kit.check(adm.delete_groups([group])[group] == "OK", "delete of an empty group")
    kit.check(group not in [g["group_id"] for g in adm.list_groups()], "still listed")


def delete_records():
    name = create(kit.topic("delete-records"), 1)
    tp = TopicPartition(name, 0)
    fill(name, 20)
    deleted = admin().delete_records({tp: 12})
    kit.check(deleted[tp]["low_watermark"] == 12, f"deleted {deleted}")
    kit.check(read_from(name, None, 8)[0].offset == 12, "first readable record")
    kit.check(read_from(name, 3, 1)[0].offset == 12, "an offset out of range resets to the start")


class Member(kafka.ConsumerRebalanceListener):
    """A group member that remembers what it holds. It polls in a thread of its own and for long: this client loses its
    assignment when a poll happens to time out as the answer to SyncGroup arrives."""

    def __init__(self, name, group, **more):
        self.held, self.values, self.assignments, self.revoked, self.leaving = set(), set(), 0, 0, False
        self.c = consumer(group, **{"partition_assignment_strategy": (RangePartitionAssignor,), **more})
        self.c.subscribe([name], listener=self)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.leaving:
            for messages in self.c.poll(timeout_ms=1000).values():
                self.values |= {m.value for m in messages}
        self.c.close()

    def leave(self):
        self.leaving = True
        self.thread.join(kit.remaining())

    def on_partitions_assigned(self, assigned):
        self.held |= {p.partition for p in assigned}
        self.assignments += 1
        print("holds", sorted(self.held), flush=True)

    def on_partitions_revoked(self, revoked):
        self.held -= {p.partition for p in revoked}
        self.revoked += len(revoked)


def run_member(name, group):
    Member(name, group).thread.join(kit.remaining())


def group_rebalance():
    name, group = create(kit.topic("rebalance"), 4), kit.topic("rebalance")
    fill(name, 40, 4)
    m = Member(name, group)
    kit.eventually("alone with four partitions", lambda: len(m.held) == 4)
    other = kit.start_member(name, group)
    kit.eventually("two of four after the second joined", lambda: len(m.held) == 2)
    adm = admin()

    def both():
        g = adm.describe_groups([group])[group]
        return g["group_state"] == "Stable" and len(g["members"]) == 2
    kit.eventually("stable with two members", both)
    kit.kill(other)
    fill(name, 80, 4)
    kit.eventually("four again after the second was killed", lambda: len(m.held) == 4)
    kit.eventually("every value read", lambda: len(m.values) == 80)
    m.leave()


def group_cooperative():
    name, group = create(kit.topic("cooperative"), 4), kit.topic("cooperative")
    sticky = {"partition_assignment_strategy": (CooperativeStickyAssignor,)}
    one = Member(name, group, **sticky)
    kit.eventually("alone with four partitions", lambda: len(one.held) == 4)
    two = Member(name, group, **sticky)
    kit.eventually("two each", lambda: len(one.held) == 2 and len(two.held) == 2)
    kit.check(one.revoked == 2, f"the first gave up {one.revoked} partitions to hand over 2")
    two.leave()
    kit.eventually("four again after the second left", lambda: len(one.held) == 4)
    one.leave()


def group_static():
    name, group = create(kit.topic("static"), 4), kit.topic("static")
    one = Member(name, group, group_instance_id="one")
    two = Member(name, group, group_instance_id="two")
    kit.eventually("two each", lambda: len(one.held) == 2 and len(two.held) == 2)
    before, assignments = set(two.held), one.assignments
    two.leave()  # a static member closes without leaving
    two = Member(name, group, group_instance_id="two")
    kit.eventually("two for the second, back again", lambda: len(two.held) == 2)
    kit.check(two.held == before, f"held {before} before, {two.held} after")
    kit.check(one.assignments == assignments, "the first was rebalanced")
    one.leave()
    two.leave()


def restart_idempotent():
    n, name = 1500, create(kit.topic("restart"), 1)
    p = producer(enable_idempotence=True, linger_ms=1, reconnect_backoff_max_ms=500)
    sent = []
    for i in range(n):
        if i == n // 3:
            restart = kit.start_restart()
        sent.append(p.send(name, kit.numbered(i)))
        time.sleep(0.001)
    kit.check(restart.wait(kit.remaining()) == 0, "the restart failed")
    offsets = [m.offset for m in acknowledged(sent)]
    kit.check(offsets == list(range(n)), "acknowledged offsets are out of order")
    kit.in_order([m.value for m in read_from(name, 0, n)], n)


kit.main("kafka-python", {f.__name__.replace("_", "-"): f for f in (
    admin_topics, admin_configs, produce_codecs, consume_positions, commit_resume, admin_groups,
    delete_records, group_rebalance, group_cooperative, group_static, read_all, restart_idempotent)}, run_member)
