package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// fixedHere are keys that Kafka can change while it runs and this broker cannot.
// To store a new limit without keeping to it would be worse than to refuse it.
var fixedHere = []string{
	"listeners", "listener.security.protocol.map", "max.connection.creation.rate", "max.connections.per.ip.overrides",
}

// listenerKeys is the prefix of keys that belong to one listener.
const listenerKeys = "listener.name."

// ValidateDynamic judges the dynamic configs of one broker, or of all brokers, with
// Kafka's rules and words. Names that Kafka does not know are let through, as there.
func (b *Broker) ValidateDynamic(configs map[string]string, perBroker bool) error {
	names := slices.Sorted(maps.Keys(configs))
	var fixed, security, single []string
	for _, name := range names {
		k := brokerSet.find(name)
		switch {
		case strings.HasPrefix(name, listenerKeys):
			return &RefusedError{Key: name, Value: "…", Reason: "listeners have no settings of their own here"}
		case k == nil:
		case k.readOnly() || slices.Contains(fixedHere, name) && (perBroker || !k.Has(PerBroker)):
			fixed = append(fixed, name)
		case strings.HasPrefix(name, "ssl.") && k.Has(PerBroker) && slices.Contains(reloadableSSL, name):
			security = append(security, name)
		case k.Has(PerBroker) && !perBroker:
			single = append(single, name)
		}
	}
	switch {
	case len(fixed) > 0:
		return &ConflictError{"Cannot update these configs dynamically: " + set(fixed)}
	case len(security) > 0:
		return &ConflictError{"These security configs can be dynamically updated only per-listener using the listener prefix: " + set(security)}
	}
	for _, name := range names {
		k := brokerSet.find(name)
		if k == nil {
			continue
		}
		v, err := k.parse(configs[name])
		if err != nil {
			return err
		}
		if k.Has(Refused) && !isDefault(k, v) {
			return &RefusedError{Key: name, Value: "…", Reason: notBuilt}
		}
		if reason := shutsEverybodyOut[name]; reason != "" && format(v) == "0" {
			return &ConflictError{reason}
		}
	}
	if len(single) > 0 {
		return &ConflictError{"Cannot update these configs at default cluster level, broker id must be specified: " + set(single)}
	}
	return nil
}

// shutsEverybodyOut are limits that Kafka does not let become zero while it runs: nobody could take that back.
var shutsEverybodyOut = map[string]string{
	"max.connections":        "Invalid max.connections 0",
	"max.connections.per.ip": "requirement failed: max.connections.per.ip can be set to zero only if max.connections.per.ip.overrides property is set.",
}

// reloadableSSL are the keys that Kafka changes per listener only.
var reloadableSSL = []string{
	"ssl.key.password", "ssl.keystore.certificate.chain", "ssl.keystore.key", "ssl.keystore.location", "ssl.keystore.password",
	"ssl.keystore.type", "ssl.truststore.certificates", "ssl.truststore.location", "ssl.truststore.password", "ssl.truststore.type",
}

// isDefault reports whether a value asks for nothing that is not so anyway.
func isDefault(k *Key, v value) bool {
	if k.noDefault() {
		return format(v) == ""
	}
	return format(v) == k.Default
}

func set(names []string) string { return fmt.Sprintf("[%s]", strings.Join(names, ", ")) }

// DescribeNewTopic lists every key of a topic as the answer to CreateTopics does, by
// name: overrides as they were given, and each default with the source of its value.
func (b *Broker) DescribeNewTopic(overrides map[string]string) []Entry {
	entries := make([]Entry, 0, len(topicKeys))
	for i := range topicKeys {
		k := &topicKeys[i]
		text, overridden := overrides[k.Name]
		if k.Has(Internal) && !overridden {
			continue
		}
		e := Entry{Name: k.Name, Source: SourceTopic, Value: &text, Sensitive: k.sensitive(), Type: k.Type, Doc: k.Doc}
		if !overridden {
			e.Source = b.sourceOf(k)
			e.Value = shown(k, b.topicDefaults)
		}
		entries = append(entries, e)
	}
	return entries
}

// sourceOf says where the default of a topic key comes from.
func (b *Broker) sourceOf(k *Key) Source {
	sources := []Source{SourceBroker, SourceBrokerDefaults, SourceStatic}
	for i, layer := range b.layers() {
		for _, s := range brokerKeysOf[k.Name] {
			if _, found := layer[s.name]; found {
				return sources[i]
			}
		}
	}
	return SourceDefault
}
