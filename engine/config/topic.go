package config

import (
	"fmt"
	"slices"
	"strings"
)

// Topic is the effective configuration of one topic. Times are Kafka's
// milliseconds, where -1 means without end.
type Topic struct {
	CleanupDelete          bool   // cleanup.policy has delete
	CleanupCompact         bool   // cleanup.policy has compact
	CompressionType        string // compression.type: producer, uncompressed, gzip, snappy, lz4, zstd
	CompressionGzipLevel   int    // compression.gzip.level; -1 is the codec's default
	CompressionLz4Level    int    // compression.lz4.level
	CompressionZstdLevel   int    // compression.zstd.level
	FileDeleteDelayMs      int64  // file.delete.delay.ms
	FlushMessages          int64  // flush.messages; the largest value when not set
	FlushMs                int64  // flush.ms; the largest value when not set
	IndexIntervalBytes     int    // index.interval.bytes
	MaxMessageBytes        int    // max.message.bytes
	MessageTimestampType   string // message.timestamp.type: CreateTime, LogAppendTime
	TimestampBeforeMaxMs   int64  // message.timestamp.before.max.ms
	TimestampAfterMaxMs    int64  // message.timestamp.after.max.ms
	MinInsyncReplicas      int    // min.insync.replicas
	RetentionBytes         int64  // retention.bytes
	RetentionMs            int64  // retention.ms
	SegmentBytes           int    // segment.bytes, or internal.segment.bytes
	SegmentIndexBytes      int    // segment.index.bytes
	SegmentJitterMs        int64  // segment.jitter.ms
	SegmentMs              int64  // segment.ms
	Preallocate            bool   // preallocate
	UncleanLeaderElection  bool   // unclean.leader.election.enable
	MinCompactionLagMs     int64  // min.compaction.lag.ms
	MaxCompactionLagMs     int64  // max.compaction.lag.ms
	DeleteRetentionMs      int64  // delete.retention.ms
	MinCleanableDirtyRatio float64
}

// synonym is a broker key that stands for a topic key, and the factor between
// their units.
type synonym struct {
	name  string
	times int64
}

const (
	minuteMs = 60 * 1000
	hourMs   = 60 * minuteMs
)

// brokerKeysOf maps a topic key to the broker keys that stand for it, the
// strongest first.
var brokerKeysOf = map[string][]synonym{
	"cleanup.policy":                  {{"log.cleanup.policy", 1}},
	"compression.gzip.level":          {{"compression.gzip.level", 1}},
	"compression.lz4.level":           {{"compression.lz4.level", 1}},
	"compression.type":                {{"compression.type", 1}},
	"compression.zstd.level":          {{"compression.zstd.level", 1}},
	"delete.retention.ms":             {{"log.cleaner.delete.retention.ms", 1}},
	"file.delete.delay.ms":            {{"log.segment.delete.delay.ms", 1}},
	"flush.messages":                  {{"log.flush.interval.messages", 1}},
	"flush.ms":                        {{"log.flush.interval.ms", 1}, {"log.flush.scheduler.interval.ms", 1}},
	"index.interval.bytes":            {{"log.index.interval.bytes", 1}},
	"local.retention.bytes":           {{"log.local.retention.bytes", 1}},
	"local.retention.ms":              {{"log.local.retention.ms", 1}},
	"max.compaction.lag.ms":           {{"log.cleaner.max.compaction.lag.ms", 1}},
	"max.message.bytes":               {{"message.max.bytes", 1}},
	"message.timestamp.after.max.ms":  {{"log.message.timestamp.after.max.ms", 1}},
	"message.timestamp.before.max.ms": {{"log.message.timestamp.before.max.ms", 1}},
	"message.timestamp.type":          {{"log.message.timestamp.type", 1}},
	"min.cleanable.dirty.ratio":       {{"log.cleaner.min.cleanable.ratio", 1}},
	"min.compaction.lag.ms":           {{"log.cleaner.min.compaction.lag.ms", 1}},
	"min.insync.replicas":             {{"min.insync.replicas", 1}},
	"preallocate":                     {{"log.preallocate", 1}},
	"retention.bytes":                 {{"log.retention.bytes", 1}},
	"retention.ms":                    {{"log.retention.ms", 1}, {"log.retention.minutes", minuteMs}, {"log.retention.hours", hourMs}},
	"segment.bytes":                   {{"log.segment.bytes", 1}},
	"segment.index.bytes":             {{"log.index.size.max.bytes", 1}},
	"segment.jitter.ms":               {{"log.roll.jitter.ms", 1}, {"log.roll.jitter.hours", hourMs}},
	"segment.ms":                      {{"log.roll.ms", 1}, {"log.roll.hours", hourMs}},
	"unclean.leader.election.enable":  {{"unclean.leader.election.enable", 1}},
}

// Topic works out the effective configuration of a topic with the given
// overrides. Overrides that ValidateTopic accepted never make an error; a stored
// one that no longer parses does.
func (b *Broker) Topic(overrides map[string]string) (Topic, error) {
	values, err := b.topicValues(overrides)
	if err != nil {
		return Topic{}, err
	}
	number := func(key string) int64 { n, _ := values[key].(int64); return n }
	text := func(key string) string { s, _ := values[key].(string); return s }
	flag := func(key string) bool { f, _ := values[key].(bool); return f }
	policies := trimAll(values["cleanup.policy"].([]string))
	ratio, _ := values["min.cleanable.dirty.ratio"].(float64)
	t := Topic{
		CleanupDelete:          slices.Contains(policies, "delete"),
		CleanupCompact:         slices.Contains(policies, "compact"),
		CompressionType:        text("compression.type"),
		CompressionGzipLevel:   int(number("compression.gzip.level")),
		CompressionLz4Level:    int(number("compression.lz4.level")),
		CompressionZstdLevel:   int(number("compression.zstd.level")),
		FileDeleteDelayMs:      number("file.delete.delay.ms"),
		FlushMessages:          number("flush.messages"),
		FlushMs:                number("flush.ms"),
		IndexIntervalBytes:     int(number("index.interval.bytes")),
		MaxMessageBytes:        int(number("max.message.bytes")),
		MessageTimestampType:   text("message.timestamp.type"),
		TimestampBeforeMaxMs:   number("message.timestamp.before.max.ms"),
		TimestampAfterMaxMs:    number("message.timestamp.after.max.ms"),
		MinInsyncReplicas:      int(number("min.insync.replicas")),
		RetentionBytes:         number("retention.bytes"),
		RetentionMs:            number("retention.ms"),
		SegmentBytes:           int(number("segment.bytes")),
		SegmentIndexBytes:      int(number("segment.index.bytes")),
		SegmentJitterMs:        number("segment.jitter.ms"),
		SegmentMs:              number("segment.ms"),
		Preallocate:            flag("preallocate"),
		UncleanLeaderElection:  flag("unclean.leader.election.enable"),
		MinCompactionLagMs:     number("min.compaction.lag.ms"),
		MaxCompactionLagMs:     number("max.compaction.lag.ms"),
		DeleteRetentionMs:      number("delete.retention.ms"),
		MinCleanableDirtyRatio: ratio,
	}
	if n, found := values["internal.segment.bytes"]; found {
		t.SegmentBytes = int(n.(int64))
	}
	return t, nil
}

// topicValues lays overrides over the broker's defaults.
func (b *Broker) topicValues(overrides map[string]string) (map[string]value, error) {
	values := make(map[string]value, len(topicKeys))
	for i := range topicKeys {
		k := &topicKeys[i]
		text, found := overrides[k.Name]
		if !found {
			if v, has := b.topicDefaults[k.Name]; has {
				values[k.Name] = v
			}
			continue
		}
		v, err := k.parse(text)
		if err != nil {
			return nil, err
		}
		values[k.Name] = v
	}
	return values, nil
}

// ValidateTopic judges the overrides of a topic with Kafka's rules and words: names
// first, then values, then what does not go together.
func (b *Broker) ValidateTopic(overrides map[string]string) error {
	names := make([]string, 0, len(overrides))
	for name := range overrides {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if topicSet.find(name) == nil {
			return &UnknownKeyError{Kind: "topic", Key: name, Nearest: topicSet.nearest(name)}
		}
	}
	values, err := b.topicValues(overrides)
	if err != nil {
		return err
	}
	low, high := values["min.compaction.lag.ms"].(int64), values["max.compaction.lag.ms"].(int64)
	if low > high {
		return &ConflictError{fmt.Sprintf("conflict topic config setting min.compaction.lag.ms (%d) > max.compaction.lag.ms (%d)", low, high)}
	}
	if values["remote.storage.enable"].(bool) {
		return &ConflictError{"Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."}
	}
	return nil
}

// ValidateGroup judges the configs of a group with Kafka's rules and words.
func (b *Broker) ValidateGroup(overrides map[string]string) error {
	names := make([]string, 0, len(overrides))
	for name := range overrides {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if groupSet.find(name) == nil {
			return &UnknownKeyError{Kind: "group", Key: name, Nearest: groupSet.nearest(name)}
		}
	}
	for _, name := range names {
		v, err := groupSet.find(name).parse(overrides[name])
		if err != nil {
			return err
		}
		if err := b.withinGroupBounds(name, v); err != nil {
			return err
		}
	}
	return nil
}

// withinGroupBounds compares a group config with the broker's least and most:
// consumer.session.timeout.ms with group.consumer.min.session.timeout.ms and so on.
func (b *Broker) withinGroupBounds(name string, v value) error {
	n, isInt := v.(int64)
	protocol, rest, _ := strings.Cut(name, ".")
	if !isInt {
		return nil
	}
	rest = strings.TrimPrefix(rest, "num.") // streams.num.standby.replicas is bounded by group.streams.max.standby.replicas
	low, high := "group."+protocol+".min."+rest, "group."+protocol+".max."+rest
	if least, found := b.values[low].(int64); found && n < least {
		return &ConflictError{name + " must be greater than or equal to " + low}
	}
	if most, found := b.values[high].(int64); found && n > most {
		return &ConflictError{name + " must be less than or equal to " + high}
	}
	return nil
}
