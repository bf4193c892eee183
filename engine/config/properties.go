package config

import (
	"errors"
	"slices"
	"strings"
)

// removedKeys are keys of older Kafka versions that Kafka 4 passes over.
var removedKeys = []string{
	"advertised.host.name", "advertised.port", "broker.id.generation.enable", "control.plane.listener.name",
	"controlled.shutdown.max.retries", "controlled.shutdown.retry.backoff.ms", "delegation.token.master.key", "host.name",
	"inter.broker.protocol.version", "leader.imbalance.per.broker.percentage", "log.message.downconversion.enable",
	"log.message.format.version", "log.message.timestamp.difference.max.ms", "offsets.commit.required.acks",
	"password.encoder.cipher.algorithm", "password.encoder.iterations", "password.encoder.key.length",
	"password.encoder.keyfactory.algorithm", "password.encoder.old.secret", "password.encoder.secret", "port",
	"quota.consumer.default", "quota.producer.default", "reserved.broker.max.id", "zookeeper.connect",
	"zookeeper.connection.timeout.ms", "zookeeper.max.in.flight.requests", "zookeeper.metadata.migration.enable",
	"zookeeper.session.timeout.ms", "zookeeper.set.acl", "zookeeper.sync.time.ms",
}

// securityKeys belong to plugins, so Kafka's tables do not have them; passing
// over them would leave open what they are to close.
var securityKeys = []string{"super.users", "allow.everyone.if.no.acl.found"}

// inertPrefixes are families of keys that are read by plugins, none of which is here.
var inertPrefixes = []string{"rsm.config.", "rlmm.config.", "remote.log.metadata.", "metrics.", "kafka.metrics."}

// notBuilt is the reason in most refusals.
const notBuilt = "millrace does not have this, and starting without it would not be what was asked for"

// checkProperties judges names, and values of keys that must keep their default.
func checkProperties(props map[string]string) ([]Warning, error) {
	names := make([]string, 0, len(props))
	for name := range props {
		names = append(names, name)
	}
	slices.Sort(names)
	var warnings []Warning
	var errs []error
	for _, name := range names {
		w, err := checkProperty(name, props[name])
		if err != nil {
			errs = append(errs, err)
		}
		if w != "" {
			warnings = append(warnings, Warning{Key: name, Text: w})
		}
	}
	return warnings, errors.Join(errs...)
}

func checkProperty(name, text string) (warning string, err error) {
	k := brokerSet.find(name)
	if k == nil {
		return checkForeign(name, text)
	}
	if reason := refusal(name, text); reason != "" {
		return "", &RefusedError{Key: name, Value: text, Reason: reason}
	}
	if k.Has(Refused) {
		v, err := k.parse(text)
		if err != nil {
			return "", err
		}
		if !isDefault(k, v) {
			if k.sensitive() {
				text = "[hidden]"
			}
			return "", &RefusedError{Key: name, Value: text, Reason: notBuilt}
		}
		return "", nil
	}
	switch {
	case k.Has(Stored):
		return "is kept and described, but has no effect: " + k.Doc, nil
	case !k.Has(Honoured):
		return "has no meaning here and is kept only to be described", nil
	}
	return "", nil
}

// checkForeign judges a key that is in none of Kafka's tables.
func checkForeign(name, text string) (warning string, err error) {
	switch {
	case slices.Contains(removedKeys, name):
		return "was removed from Kafka and has no effect", nil
	case slices.Contains(securityKeys, name) || strings.HasPrefix(name, listenerKeys):
		return "", &RefusedError{Key: name, Value: text, Reason: notBuilt}
	}
	for _, prefix := range inertPrefixes {
		if strings.HasPrefix(name, prefix) {
			return "belongs to a plugin that is not here and has no effect", nil
		}
	}
	return "", &UnknownKeyError{Key: name, Nearest: brokerSet.nearest(name)}
}

// RackAwareSelector is the one replica.selector.class there is besides none.
const RackAwareSelector = "org.apache.kafka.common.replica.RackAwareReplicaSelector"

// refusal finds values that ask for what is not here, where that depends on more than the default.
func refusal(name, text string) string {
	list := trimAll(splitList(text))
	switch name {
	case "process.roles":
		if len(list) > 0 && !slices.Contains(list, "broker") {
			return "a node without the broker role would serve nothing"
		}
	case "controller.quorum.voters", "controller.quorum.bootstrap.servers":
		if len(list) > 1 {
			return "this node stands alone and would not be part of that quorum"
		}
	case "log.dirs", "log.dir":
		for i, dir := range list {
			if slices.Contains(list[:i], dir) {
				return "it names a directory twice"
			}
		}
	case "replica.selector.class":
		if text = strings.TrimSpace(text); text != "" && text != RackAwareSelector {
			return "there is no other class than " + RackAwareSelector
		}
	}
	return ""
}

// nearest is the key with the most similar name, "" when none is close.
func (s *keySet) nearest(name string) string {
	best, bestDistance := "", len(name)/3+2
	for i := range s.keys {
		k := &s.keys[i]
		if k.Has(Internal) && !k.Has(Honoured) {
			continue
		}
		if d := distance(name, k.Name, bestDistance); d < bestDistance {
			best, bestDistance = k.Name, d
		}
	}
	return best
}

// distance is the number of letters to insert, drop or change to turn a into b
// (Levenshtein), or limit when it is not less than that.
func distance(a, b string, limit int) int {
	if d := len(a) - len(b); d >= limit || -d >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return min(row[len(b)], limit)
}
