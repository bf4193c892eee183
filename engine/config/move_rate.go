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
func (b *Broker) MoveBytesPerSecond() int64 {
	for _, layer := range []map[string]string{b.perBroker, b.defaults} {
		if text, found := layer[moveRate]; found {
			if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 {
				return n
			}
			break
		}
	}
	return math.MaxInt64
}
