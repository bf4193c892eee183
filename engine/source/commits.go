package source

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace/millrace/engine/group"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/inspect"
	"github.com/millrace/millrace/segment/vfs"
)

// commitKey is what a group commits an offset for.
type commitKey struct {
	group string
	at    group.TopicPartition
}

// committed is the state of the offsets in one partition of __consumer_offsets.
type committed struct {
	offsets map[commitKey]*group.Offset
	open    map[int64][]group.Record // of transactions, by producer
}

// readCommits reads the offsets of groups from __consumer_offsets. Members and generations are no use to another server:
// groups come back as ones that nobody is in.
func readCommits(below map[*inspect.Place]vfs.FS, places []*inspect.Place) ([]Commit, error) {
	var commits []Commit
	best := map[int32]*Partition{}
	for _, place := range places {
		for i := range place.Partitions {
			found := &place.Partitions[i]
			if found.Topic != "__consumer_offsets" || found.State != inspect.Live {
				continue
			}
			p := &Partition{Topic: found.Topic, Number: found.Number, fs: below[place], part: found, clean: place.Clean.There()}
			if other := best[found.Number]; other == nil || p.ahead(other) {
				best[found.Number] = p
			}
		}
	}
	for _, p := range best {
		state := committed{map[commitKey]*group.Offset{}, map[int64][]group.Record{}}
		for i := range p.part.Segments {
			if !p.part.Segments[i].Log.There() {
				continue
			}
			if err := state.replay(p.fs, p.part.Segments[i].Log.Path); err != nil {
				return nil, err
			}
		}
		for key, o := range state.offsets {
			commits = append(commits, Commit{
				Group: key.group, Topic: key.at.Topic, TopicID: o.TopicID, Partition: key.at.Partition,
				Offset: o.Offset, LeaderEpoch: o.LeaderEpoch, Metadata: o.Metadata,
			})
		}
	}
	slices.SortFunc(commits, func(a, b Commit) int {
		return cmp.Or(strings.Compare(a.Group, b.Group), strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return commits, nil
}

func (c *committed) replay(fsys vfs.FS, name string) error {
	b, err := inspect.OpenBatches(fsys, name, inspect.Options{})
	if err != nil {
		return err
	}
	defer b.Close()
	for b.Next() {
		whole, err := b.Bytes()
		if err == nil {
			err = c.batch(b.Header(), whole)
		}
		if err != nil {
			return fmt.Errorf("%s: batch at byte %d: %w", name, b.Position(), err)
		}
	}
	var damage *inspect.Damage
	if errors.As(b.Err(), &damage) && damage.Torn {
		return nil
	}
	return b.Err()
}

func (c *committed) batch(h batch.Header, whole []byte) error {
	if h.IsControl() {
		done, ends, err := marker(whole)
		if err != nil || !ends {
			return err
		}
		if done {
			for _, r := range c.open[h.ProducerID] {
				c.apply(r)
			}
		}
		delete(c.open, h.ProducerID)
		return nil
	}
	for r, err := range batch.Records(whole, 0) {
		if err != nil {
			return err
		}
		record, err := group.DecodeRecord(r.Key, r.Value)
		switch {
		case errors.Is(err, group.ErrUnknownRecord):
		case err != nil:
			return err
		case !record.IsOffset():
		case h.IsTransactional():
			c.open[h.ProducerID] = append(c.open[h.ProducerID], record)
		default:
			c.apply(record)
		}
	}
	return nil
}

func (c *committed) apply(r group.Record) {
	key := commitKey{r.Group, group.TopicPartition{Topic: r.Topic, Partition: r.Partition}}
	if r.Offset == nil {
		delete(c.offsets, key)
		return
	}
	c.offsets[key] = r.Offset
}
