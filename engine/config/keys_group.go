package config

// groupKeys are the keys that Kafka 4.3.1 knows for groups, in the order of their
// names. They belong to the newer group protocols; the classic one has none.
var groupKeys = []Key{
	{"consumer.assignment.interval.ms", Int, "1000", atLeast(0), 0, ""},
	{"consumer.heartbeat.interval.ms", Int, "5000", atLeast(1), 0, ""},
	{"consumer.session.timeout.ms", Int, "45000", atLeast(1), 0, ""},
	{"share.assignment.interval.ms", Int, "1000", atLeast(0), 0, ""},
	{"share.auto.offset.reset", String, "latest", shareOffsetReset, 0, ""},
	{"share.delivery.count.limit", Int, "5", atLeast(2), 0, ""},
	{"share.heartbeat.interval.ms", Int, "5000", atLeast(1), 0, ""},
	{"share.isolation.level", String, "read_uncommitted", oneOf("read_committed", "read_uncommitted"), 0, ""},
	{"share.partition.max.record.locks", Int, "2000", atLeast(100), 0, ""},
	{"share.record.lock.duration.ms", Int, "30000", atLeast(1000), 0, ""},
	{"share.renew.acknowledge.enable", Boolean, "true", nil, 0, ""},
	{"share.session.timeout.ms", Int, "45000", atLeast(1), 0, ""},
	{"streams.assignment.interval.ms", Int, "1000", atLeast(0), 0, ""},
	{"streams.heartbeat.interval.ms", Int, "5000", atLeast(1), 0, ""},
	{"streams.initial.rebalance.delay.ms", Int, "3000", atLeast(0), 0, ""},
	{"streams.num.standby.replicas", Int, "0", atLeast(0), 0, ""},
	{"streams.session.timeout.ms", Int, "45000", atLeast(1), 0, ""},
}
