package group

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// inFlightCommit counts the commits of a partition on their way to the log.
type inFlightCommit struct {
	n       int
	topicID [16]byte // of the newest
}

// commit stores offsets. It answers when they are durable; partitions that are refused do not hold up others.
func (g *Group) commit(now time.Time, ev Commit, e *Effects) {
	if err := g.validateCommit(ev); err != nil {
		e.reply(ev.Token, CommitResponse{Err: err})
		return
	}
	if m := g.members[ev.MemberID]; m != nil && (g.state == Stable || g.state == PreparingRebalance) {
		g.expectHeartbeat(now, m)
	}
	resp := CommitResponse{Topics: make([]CommitTopicResult, 0, len(ev.Topics))}
	var records []Record
	for _, t := range ev.Topics {
		result := CommitTopicResult{Topic: t.Topic, TopicID: t.TopicID, Partitions: make([]PartitionResult, 0, len(t.Partitions))}
		for _, p := range t.Partitions {
			pr := PartitionResult{Partition: p.Partition}
			if utf16Length(p.Metadata) > g.cfg.OffsetMetadataMaxBytes {
				pr.Err = ErrOffsetMetadataTooLarge
			} else {
				offset := &Offset{
					Offset: p.Offset, LeaderEpoch: p.LeaderEpoch, Metadata: p.Metadata,
					CommitTimestampMs: now.UnixMilli(), ExpireTimestampMs: NoTimestamp, TopicID: t.TopicID,
				}
				if ev.RetentionMs != -1 {
					offset.ExpireTimestampMs = now.UnixMilli() + ev.RetentionMs
				}
				records = append(records, offsetRecord(g.id, TopicPartition{t.Topic, p.Partition}, offset))
			}
			result.Partitions = append(result.Partitions, pr)
		}
		resp.Topics = append(resp.Topics, result)
	}
	if len(records) == 0 {
		e.reply(ev.Token, resp)
		return
	}
	g.write(e, records, committed{token: ev.Token, resp: resp})
}

func (g *Group) validateCommit(ev Commit) error {
	if ev.Generation < 0 && g.state == Empty {
		return nil // a consumer that assigns its partitions itself, or an admin
	}
	if ev.Generation >= 0 || ev.MemberID != "" || ev.InstanceID != nil {
		if err := g.validate(ev.MemberID, ev.InstanceID); err != nil {
			return err
		}
		if ev.Generation != g.generation {
			return ErrIllegalGeneration
		}
	} else if g.state != Empty {
		return ErrUnknownMemberID
	}
	if g.state == CompletingRebalance {
		// The member knows the generation, but what it has read was assigned in the one before.
		return ErrRebalanceInProgress
	}
	return nil
}

// utf16Length is the length that Java sees.
func utf16Length(s string) int {
	n := 0
	for _, r := range s {
		n++
		if r > 0xffff {
			n++
		}
	}
	return n
}

// committed are offsets on their way to the log.
type committed struct {
	token Token
	resp  CommitResponse
}

func (c committed) written(_ *Group, _ time.Time, err error, e *Effects) {
	if err != nil {
		c.resp = CommitResponse{Err: err}
	}
	e.reply(c.token, c.resp)
}

// setOffset keeps an offset and tells whether it is the first for its partition.
func (g *Group) setOffset(tp TopicPartition, o Offset) (first bool) {
	partitions := g.offsets[tp.Topic]
	if partitions == nil {
		partitions = map[int32]Offset{}
		g.offsets[tp.Topic] = partitions
	}
	old, existed := partitions[tp.Partition]
	if existed {
		g.liveBytes -= offsetRecord(g.id, tp, &old).Size()
	}
	partitions[tp.Partition] = o
	g.liveBytes += offsetRecord(g.id, tp, &o).Size()
	return !existed
}

func (g *Group) removeOffset(tp TopicPartition) {
	old, ok := g.offsets[tp.Topic][tp.Partition]
	if !ok {
		return
	}
	g.liveBytes -= offsetRecord(g.id, tp, &old).Size()
	delete(g.offsets[tp.Topic], tp.Partition)
	if len(g.offsets[tp.Topic]) == 0 {
		delete(g.offsets, tp.Topic)
	}
}

// Offset is what the group has durably committed for a partition.
func (g *Group) Offset(topic string, partition int32) (Offset, bool) {
	o, ok := g.offsets[topic][partition]
	return o, ok
}

// Offsets calls yield for all that the group has durably committed, by topic and partition.
func (g *Group) Offsets(yield func(TopicPartition, Offset) bool) {
	for _, topic := range slices.Sorted(maps.Keys(g.offsets)) {
		partitions := g.offsets[topic]
		for _, p := range slices.Sorted(maps.Keys(partitions)) {
			if !yield(TopicPartition{topic, p}, partitions[p]) {
				return
			}
		}
	}
}

// known lists every partition with an offset that is durable or on its way, by topic and partition.
func (g *Group) known() []TopicPartition {
	var all []TopicPartition
	for tp := range g.Offsets {
		all = append(all, tp)
	}
	for tp := range g.pending {
		if _, ok := g.Offset(tp.Topic, tp.Partition); !ok {
			all = append(all, tp)
		}
	}
	slices.SortFunc(all, func(a, b TopicPartition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return all
}

func (g *Group) knows(tp TopicPartition) bool {
	_, durable := g.Offset(tp.Topic, tp.Partition)
	_, onItsWay := g.pending[tp]
	return durable || onItsWay
}

func (g *Group) tombstone(tp TopicPartition) Record { return offsetRecord(g.id, tp, nil) }

// deleteOffsets forgets offsets of topics that no member reads.
func (g *Group) deleteOffsets(ev DeleteOffsets, e *Effects) {
	if g.state != Empty && !g.usesConsumerProtocol() {
		e.reply(ev.Token, DeleteOffsetsResponse{Err: ErrNonEmptyGroup})
		return
	}
	var resp DeleteOffsetsResponse
	var records []Record
	for _, t := range ev.Topics {
		result := DeleteTopicResult{Topic: t.Topic}
		for _, p := range t.Partitions {
			pr := PartitionResult{Partition: p}
			tp := TopicPartition{t.Topic, p}
			if g.subscribes(t.Topic) {
				pr.Err = ErrSubscribedToTopic
			} else if g.knows(tp) {
				records = append(records, g.tombstone(tp))
			}
			result.Partitions = append(result.Partitions, pr)
		}
		resp.Topics = append(resp.Topics, result)
	}
	if len(records) == 0 {
		e.reply(ev.Token, resp)
		return
	}
	g.write(e, records, forgotten{token: ev.Token, resp: resp})
}

// forgotten are tombstones of offsets that were asked for.
type forgotten struct {
	token Token
	resp  DeleteOffsetsResponse
}

func (f forgotten) written(_ *Group, _ time.Time, err error, e *Effects) {
	if err != nil {
		f.resp = DeleteOffsetsResponse{Err: err}
	}
	e.reply(f.token, f.resp)
}

// delete ends a group without members.
func (g *Group) delete(ev Delete, e *Effects) {
	if g.state != Empty {
		e.reply(ev.Token, DeleteResponse{Err: ErrNonEmptyGroup})
		return
	}
	var records []Record
	for _, tp := range g.known() {
		records = append(records, g.tombstone(tp))
	}
	g.writeParts(e, append(records, Record{Group: g.id}), deletion{token: ev.Token})
}

// deletion is the tombstone of a group, after those of its offsets.
type deletion struct{ token Token }

func (d deletion) written(g *Group, _ time.Time, err error, e *Effects) {
	if err == nil && g.state != Dead {
		err = ErrPartlyDeleted
	}
	e.reply(d.token, DeleteResponse{Err: err})
}

// topicsDeleted drops the offsets of topics that are gone.
func (g *Group) topicsDeleted(ev TopicsDeleted, e *Effects) {
	var records []Record
	for _, topic := range ev.Topics {
		for _, tp := range g.known() {
			if tp.Topic != topic.Name {
				continue
			}
			id := g.pending[tp].topicID
			if o, ok := g.Offset(tp.Topic, tp.Partition); ok && g.pending[tp].n == 0 {
				id = o.TopicID
			}
			if id == topic.ID || id == [16]byte{} {
				records = append(records, g.tombstone(tp))
			}
		}
	}
	g.writeParts(e, records, unasked{})
}

// writePart is about how many bytes of tombstones make one write: few enough for any log to take.
const writePart = 128 << 10

// writeParts hands any number of tombstones to the log. The last part ends with the last record, and with then.
func (g *Group) writeParts(e *Effects, records []Record, then continuation) {
	for len(records) > 0 {
		var size int64
		n := 0
		for n < len(records) && size < writePart {
			size += records[n].Size()
			n++
		}
		part := records[:n:n]
		records = records[n:]
		if len(records) == 0 {
			g.write(e, part, then)
		} else {
			g.write(e, part, unasked{})
		}
	}
}

// unasked are tombstones that nobody waits for.
type unasked struct{}

func (unasked) written(g *Group, now time.Time, err error, e *Effects) {
	if err != nil {
		e.warn("could not store that offsets are gone", "group", g.id, "error", err)
		g.armExpiry(now)
	}
}
