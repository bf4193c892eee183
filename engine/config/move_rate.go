package config

import (
	"math"
	"strconv"
)

// moveRate is one of the keys that exist only as dynamic settings of a broker: Kafka
// neither describes them nor takes them from a file.
const moveRate = "replica.alter.log.dirs.io.max.bytes.per.second"

// MoveBytesPerSecond is how many bytes a second partitions may be moved between log directories,
// math.MaxInt64 when there is no limit. What is no such number limits nothing.
func (b *Broker) MoveBytesPerSecond() int64 { return b.dynamicRate(moveRate) }

// LeaderBytesPerSecond is how many bytes a second this broker may send to followers that are far behind
// (leader.replication.throttled.rate), as MoveBytesPerSecond.
func (b *Broker) LeaderBytesPerSecond() int64 {
	return b.dynamicRate("leader.replication.throttled.rate")
}

func (b *Broker) dynamicRate(key string) int64 { return RateIn(key, b.perBroker, b.defaults) }

// RateIn is a rate as the first of some dynamic configs that has one says.
func RateIn(key string, layers ...map[string]string) int64 {
	for _, layer := range layers {
		if text, found := layer[key]; found {
			if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 {
				return n
			}
			break
		}
	}
	return math.MaxInt64
}
