package source

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/inspect"
	"github.com/millrace/millrace/segment/vfs"
)

// ErrHeld says that a running server holds a directory, so that it changes while it is read.
var ErrHeld = errors.New("a running server holds it: stop that first")

// Source is what there is to be taken over.
type Source struct {
	Topics []*Topic // by name
	// Commits are the offsets of consumer groups, as far as the directories hold them.
	Commits []Commit
	// NextProducerID is above all producer ids that were given out, as far as that is known without reading the records.
	NextProducerID int64
	// Notes say what is left out, and why.
	Notes []string
}

// Topic is one topic.
type Topic struct {
	Name       string
	ID         [16]byte
	Configs    map[string]string
	Partitions []*Partition // the index is the number; nil where no directory holds that partition
	Lazy       bool         // a partition that no directory holds is an empty one
}

// Commit is a position that a group has committed.
type Commit struct {
	Group       string
	Topic       string
	TopicID     [16]byte // zero when unknown
	Partition   int32
	Offset      int64
	LeaderEpoch int32
	Metadata    string
}

// Catalogue reads the catalogue of a millrace directory without writing to it.
type Catalogue func(folder string) (*catalog.Image, error)

// Find looks at directories without reading records: log directories of one or several of Kafka's brokers, of
// millrace's, or folders of partitions. A partition that is in several is taken from the one whose last segment begins
// latest. Errors: ErrHeld, inspect.ErrNothing, those of the file system.
func Find(fsys vfs.FS, paths []string, catalogue Catalogue) (*Source, error) {
	s := &Source{}
	topics := map[string]*Topic{}
	var places []*inspect.Place
	below := map[*inspect.Place]vfs.FS{} // with what the journal of each alone has
	for _, path := range paths {
		place, err := inspect.Find(fsys, path)
		if err != nil {
			return nil, err
		}
		if place.Held {
			return nil, fmt.Errorf("%s: %w", path, ErrHeld)
		}
		if place.Kind == inspect.OneFile {
			return nil, fmt.Errorf("%s: %w", path, errors.New("a single file is no partition: give its folder"))
		}
		overlay, err := inspect.NewOverlay(fsys, place)
		if err != nil {
			return nil, err
		}
		if overlay != nil {
			for _, f := range overlay.Said {
				if f.What != segment.SaidJournalTorn { // which was not acknowledged
					s.Notes = append(s.Notes, f.String())
				}
			}
		}
		below[place] = overlay.FS(fsys)
		places = append(places, place)
	}
	var meta metadata
	ours := 0
	for _, place := range places {
		if err := meta.read(fsys, place, catalogue); err != nil {
			return nil, fmt.Errorf("%s: %w", place.Path, err)
		}
		if place.Layout == inspect.Millrace && place.Kind == inspect.WholeDirectory {
			ours++
		}
	}
	if meta.dirs > ours {
		return nil, fmt.Errorf("the topics of this catalogue lie in %d log directories: give them all", meta.dirs)
	}
	for _, place := range places {
		if err := s.add(below[place], place, topics, &meta); err != nil {
			return nil, fmt.Errorf("%s: %w", place.Path, err)
		}
	}
	s.complete(topics, &meta)
	var err error
	s.Commits, err = readCommits(below, places)
	return s, err
}

func (s *Source) note(format string, args ...any) {
	if n := fmt.Sprintf(format, args...); !slices.Contains(s.Notes, n) {
		s.Notes = append(s.Notes, n)
	}
}

// internalTopics are those whose records mean something to their server alone.
var internalTopics = map[string]string{
	"__consumer_offsets":    "", // read, not copied
	"__cluster_metadata":    "", // the same
	"__transaction_state":   "transactional ids are not taken over, as there are no transactions here yet: a transactional producer gets an error",
	"__share_group_state":   "share groups are not taken over, as there are none here yet",
	"__remote_log_metadata": "records that were moved to a remote storage are not taken over",
}

// add takes up what one directory holds.
func (s *Source) add(fsys vfs.FS, place *inspect.Place, topics map[string]*Topic, meta *metadata) error {
	starts, err := inspect.KafkaStarts(fsys, place)
	if err != nil {
		return err
	}
	for i := range place.Partitions {
		found := &place.Partitions[i]
		switch why, internal := internalTopics[found.Topic]; {
		case internal && found.State == inspect.Live:
			if why != "" {
				s.note("%s: %s", found.Topic, why)
			}
			continue
		case found.State != inspect.Live:
			s.note("%s is left out: %s", found.Path, map[inspect.State]string{
				inspect.Deleted: "it waits for its removal", inspect.Stray: "it was set aside, as it belongs to no topic", inspect.Future: "it is the copy of a move that was not finished",
			}[found.State])
			continue
		case found.Number < 0:
			return fmt.Errorf("%s: the folder's name does not say which partition it is (TOPIC-NUMBER)", found.Path)
		case meta.known && !meta.has(found.Topic, found.TopicID):
			s.note("%s is left out: %s", found.Path, meta.why(found.Topic))
			continue
		}
		t := topics[found.Topic]
		if t == nil {
			t = &Topic{Name: found.Topic, ID: found.TopicID}
			topics[found.Topic] = t
		}
		if t.ID == ([16]byte{}) {
			t.ID = found.TopicID
		}
		if found.TopicID != ([16]byte{}) && found.TopicID != t.ID {
			return fmt.Errorf("%s: the partitions of topic %s do not have the same topic id", found.Path, found.Topic)
		}
		p := &Partition{Topic: found.Topic, Number: found.Number, Path: found.Path, fs: fsys, part: found, starts: starts, clean: place.Clean.There(), Epoch: -1}
		t.put(s, p)
	}
	return nil
}

// put notes a partition, the longer of two replicas.
func (t *Topic) put(s *Source, p *Partition) {
	for int(p.Number) >= len(t.Partitions) {
		if len(t.Partitions) > maxPartitions {
			return // of no topic that could be made; Find would need memory for nothing
		}
		t.Partitions = append(t.Partitions, nil)
	}
	if other := t.Partitions[p.Number]; other != nil {
		if !p.ahead(other) {
			p, other = other, p
		}
		s.note("%s-%d is in two directories: that of %s is taken, which reaches as far or farther", p.Topic, p.Number, p.Path)
	}
	t.Partitions[p.Number] = p
}

// maxPartitions bounds what a folder's name can announce.
const maxPartitions = 100_000

// complete gives topics what Kafka's metadata knows of them, and an id where there is none.
func (s *Source) complete(topics map[string]*Topic, meta *metadata) {
	for _, t := range topics {
		if known := meta.byName(t.Name); known != nil {
			t.ID, t.Configs, t.Lazy = known.id, known.configs, known.lazy
			for len(t.Partitions) < len(known.epochs) {
				t.Partitions = append(t.Partitions, nil)
			}
			for i, p := range t.Partitions {
				if p != nil && i < len(known.epochs) {
					p.Epoch = max(p.Epoch, known.epochs[i])
				}
			}
		}
		if t.ID == ([16]byte{}) {
			t.ID = IDFor(t.Name)
		}
		s.Topics = append(s.Topics, t)
	}
	s.NextProducerID = meta.nextProducerID
	s.Notes = append(s.Notes, meta.notes()...)
	for _, known := range meta.topics {
		switch {
		case topics[known.name] != nil || strings.HasPrefix(known.name, "__"):
		case known.lazy:
			s.Topics = append(s.Topics, &Topic{Name: known.name, ID: known.id, Configs: known.configs, Partitions: make([]*Partition, len(known.epochs)), Lazy: true})
		default:
			s.note("topic %s is in none of the directories, only in the metadata", known.name)
		}
	}
	slices.SortFunc(s.Topics, func(a, b *Topic) int { return cmp.Compare(a.Name, b.Name) })
}

// IDFor is the id of a topic that has none: always the same, so that an import that is run again finds what
// it has left.
func IDFor(topic string) (id [16]byte) {
	sum := sha256.Sum256([]byte("millrace import of " + topic))
	copy(id[:], sum[:])
	id[0] &= 0x7f // its text begins with no dash
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id
}
