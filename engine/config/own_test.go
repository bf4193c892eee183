package config

import (
	"testing"
	"time"
)

// A key of our own is taken, judged and shown like one of Kafka's, but only shown when it is set: tools that
// compare a broker's keys with Kafka's find no other.
func TestOwnKey(t *testing.T) {
	const key = "log.dir.stall.timeout.ms"
	shown := func(b *Broker) bool {
		for _, e := range b.DescribeBroker() {
			if e.Name == key {
				return true
			}
		}
		return false
	}
	if b := mustParse(t, nil); b.LogDirStallTimeout != 10*time.Second || shown(b) {
		t.Errorf("unset: %s, shown %v", b.LogDirStallTimeout, shown(b))
	}
	b, warnings, err := ParseBroker(map[string]string{key: "5000"})
	if err != nil || len(warnings) != 0 || b.LogDirStallTimeout != 5*time.Second || !shown(b) {
		t.Errorf("set: %v, %v, %s", err, warnings, b.LogDirStallTimeout)
	}
	for _, wrong := range []string{"0", "999", "-1", "300001", "10s", ""} {
		if _, _, err := ParseBroker(map[string]string{key: wrong}); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
	if got := brokerSet.nearest("log.dir.stal.timeout.ms"); got != key {
		t.Errorf("nearest to a misspelt one: %s", got)
	}
}
