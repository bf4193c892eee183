package config

import (
	"slices"
	"strings"
)

// Source says where a value comes from, numbered as in DescribeConfigs.
type Source int8

// The sources of values.
const (
	SourceUnknown        Source = 0
	SourceTopic          Source = 1 // DYNAMIC_TOPIC_CONFIG
	SourceBroker         Source = 2 // DYNAMIC_BROKER_CONFIG
	SourceBrokerDefaults Source = 3 // DYNAMIC_DEFAULT_BROKER_CONFIG
	SourceStatic         Source = 4 // STATIC_BROKER_CONFIG
	SourceDefault        Source = 5 // DEFAULT_CONFIG
	SourceGroup          Source = 8 // GROUP_CONFIG
)

// Entry is one key as DescribeConfigs shows it.
type Entry struct {
	Name      string
	Value     *string // nil when there is none, or it is sensitive
	Source    Source
	ReadOnly  bool
	Sensitive bool
	Type      Type
	Doc       string
	Synonyms  []Synonym // the strongest first
}

// Synonym is one place that the value of an entry could come from.
type Synonym struct {
	Name   string
	Value  *string
	Source Source
}

// DescribeTopic lists every key of a topic with the given overrides, by name.
func (b *Broker) DescribeTopic(overrides map[string]string) ([]Entry, error) {
	values, err := b.topicValues(overrides)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(topicKeys))
	for i := range topicKeys {
		k := &topicKeys[i]
		_, overridden := overrides[k.Name]
		if k.Has(Internal) && !overridden {
			continue
		}
		e := Entry{Name: k.Name, Value: shown(k, values), Source: SourceDefault, Sensitive: k.sensitive(), Type: k.Type, Doc: k.Doc}
		if overridden {
			e.Synonyms = append(e.Synonyms, Synonym{Name: k.Name, Value: e.Value, Source: SourceTopic})
		}
		if synonyms := brokerKeysOf[k.Name]; len(synonyms) > 0 {
			e.Synonyms = append(e.Synonyms, b.synonyms(synonyms[0].name)...)
		}
		if len(e.Synonyms) > 0 {
			e.Source = e.Synonyms[0].Source
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// DescribeBroker lists every key of this broker, by name.
func (b *Broker) DescribeBroker() []Entry {
	entries := make([]Entry, 0, len(brokerKeys))
	for i := range brokerKeys {
		k := &brokerKeys[i]
		if k.Has(Internal) && !b.IsSet(k.Name) {
			continue
		}
		e := Entry{Name: k.Name, Value: shown(k, b.values), Source: SourceDefault, ReadOnly: k.readOnly(), Sensitive: k.sensitive(), Type: k.Type, Doc: k.Doc}
		e.Synonyms = b.synonyms(k.Name)
		if len(e.Synonyms) > 0 {
			e.Source = e.Synonyms[0].Source
		}
		entries = append(entries, e)
	}
	return entries
}

// DescribeBrokerDefaults lists the dynamic configs of all brokers, by name.
func (b *Broker) DescribeBrokerDefaults() []Entry {
	var entries []Entry
	for i := range brokerKeys {
		k := &brokerKeys[i]
		text, found := b.defaults[k.Name]
		if !found {
			continue
		}
		e := Entry{Name: k.Name, Value: hide(k, text), Source: SourceBrokerDefaults, ReadOnly: k.readOnly(), Sensitive: k.sensitive(), Type: k.Type, Doc: k.Doc}
		e.Synonyms = []Synonym{{Name: k.Name, Value: e.Value, Source: SourceBrokerDefaults}}
		entries = append(entries, e)
	}
	return entries
}

// DescribeGroup lists every key of a group with the given configs, by name.
func (b *Broker) DescribeGroup(overrides map[string]string) ([]Entry, error) {
	entries := make([]Entry, 0, len(groupKeys))
	for i := range groupKeys {
		k := &groupKeys[i]
		e := Entry{Name: k.Name, Type: k.Type, Source: SourceDefault, Sensitive: k.sensitive(), Doc: k.Doc}
		brokerKey := "group." + k.Name
		v, hasBrokerKey := b.values[brokerKey]
		if !hasBrokerKey {
			v, _ = k.parse(k.Default)
		}
		text, overridden := overrides[k.Name]
		if overridden {
			var err error
			if v, err = k.parse(text); err != nil {
				return nil, err
			}
		}
		e.Value = ptr(format(v))
		if overridden {
			e.Synonyms = append(e.Synonyms, Synonym{Name: k.Name, Value: e.Value, Source: SourceGroup})
		}
		if hasBrokerKey {
			e.Synonyms = append(e.Synonyms, b.synonyms(brokerKey)...)
		} else if !overridden {
			e.Synonyms = append(e.Synonyms, Synonym{Name: k.Name, Value: e.Value, Source: SourceDefault})
		}
		if len(e.Synonyms) > 0 {
			e.Source = e.Synonyms[0].Source
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// synonymNames are the broker keys that mean the same thing, the strongest first.
func synonymNames(name string) []string {
	switch name {
	case "log.roll.ms", "log.roll.hours":
		return []string{"log.roll.ms", "log.roll.hours"}
	case "log.roll.jitter.ms", "log.roll.jitter.hours":
		return []string{"log.roll.jitter.ms", "log.roll.jitter.hours"}
	case "log.flush.interval.ms":
		return []string{"log.flush.interval.ms", "log.flush.scheduler.interval.ms"}
	case "log.retention.ms", "log.retention.minutes", "log.retention.hours":
		return []string{"log.retention.ms", "log.retention.minutes", "log.retention.hours"}
	}
	return []string{name}
}

// synonyms lists the places that a broker key's value could come from. As in
// Kafka the list begins at the key's own name: a value that only comes from
// another key of the family is not shown.
func (b *Broker) synonyms(name string) []Synonym {
	names := synonymNames(name)
	var all []Synonym
	sources := []Source{SourceBroker, SourceBrokerDefaults, SourceStatic}
	for i, layer := range b.layers() {
		for _, n := range names {
			if text, found := layer[n]; found {
				all = append(all, Synonym{Name: n, Value: hide(brokerSet.find(n), text), Source: sources[i]})
			}
		}
	}
	for _, n := range names {
		if k := brokerSet.find(n); !k.noDefault() {
			all = append(all, Synonym{Name: n, Value: hide(k, k.Default), Source: SourceDefault})
		}
	}
	first := slices.IndexFunc(all, func(s Synonym) bool { return s.Name == name })
	if first < 0 {
		return nil
	}
	return all[first:]
}

func shown(k *Key, values map[string]value) *string {
	v, found := values[k.Name]
	if !found || k.sensitive() {
		return nil
	}
	return ptr(format(v))
}

func hide(k *Key, text string) *string {
	if k.sensitive() {
		return nil
	}
	return ptr(strings.Clone(text))
}

func ptr(s string) *string { return &s }
