package source

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/inspect"
	"github.com/millrace/millrace/segment/vfs"
)

const kafkaDir = "../../testdata/kafka-4.3.1"

func noCatalogue(string) (*catalog.Image, error) { return nil, errors.New("no catalogue") }

func find(t *testing.T, paths ...string) *Source {
	t.Helper()
	s, err := Find(vfs.OS(), paths, noCatalogue)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What a real Kafka has left: topics with their ids and settings, offsets of groups, what is not taken over.
func TestFindKafka(t *testing.T) {
	s := find(t, kafkaDir)
	var story strings.Builder
	for _, topic := range s.Topics {
		fmt.Fprintf(&story, "%s %d %v\n", topic.Name, len(topic.Partitions), topic.Configs)
		for _, p := range topic.Partitions {
			if p.Topic != topic.Name || p.Epoch < 0 || topic.ID != p.part.TopicID {
				t.Errorf("%+v", p)
			}
		}
	}
	for _, c := range s.Commits {
		fmt.Fprintf(&story, "%s %s-%d %d %d %q\n", c.Group, c.Topic, c.Partition, c.Offset, c.LeaderEpoch, c.Metadata)
	}
	want := `appended 1 map[message.timestamp.type:LogAppendTime min.insync.replicas:1]
codec-gzip 2 map[message.timestamp.type:CreateTime retention.ms:-1]
codec-lz4 2 map[message.timestamp.type:CreateTime retention.ms:-1]
codec-none 2 map[message.timestamp.type:CreateTime retention.ms:-1]
codec-snappy 2 map[message.timestamp.type:CreateTime retention.ms:-1]
codec-zstd 2 map[message.timestamp.type:CreateTime retention.ms:-1]
compacted 1 map[cleanup.policy:compact delete.retention.ms:0 max.compaction.lag.ms:1000 min.cleanable.dirty.ratio:0.001 segment.ms:500]
empty 3 map[cleanup.policy:compact]
gone 1 map[]
orders 2 map[cleanup.policy:delete retention.ms:-1]
transactions 2 map[retention.bytes:1000000000]
others codec-none-0 5 0 ""
readers codec-zstd-1 17 -1 ""
readers large-0 26 0 "half way"
`
	if story.String() != want {
		t.Errorf("%s\nwant:\n%s", story.String(), want)
	}
	if s.NextProducerID < 12 {
		t.Errorf("next producer id %d", s.NextProducerID)
	}
}

// Two replicas, a topic that was deleted, folders that wait for something.
func TestFindOthers(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for _, d := range []string{a, b} {
		if err := os.CopyFS(d, os.DirFS(kafkaDir)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Find(vfs.OS(), []string{a, b}, noCatalogue); !errors.Is(err, errTwice) {
		t.Errorf("two controllers: %v", err)
	}
	for old, name := range map[string]string{
		"__cluster_metadata-0": "", "__consumer_offsets-25": "", "__consumer_offsets-28": "", "gone-0": "gone-0.00000000000000000000000000000000-delete", "codec-lz4-1": "removed-1",
	} {
		if name == "" {
			if err := os.RemoveAll(filepath.Join(b, old)); err != nil {
				t.Fatal(err)
			}
		} else if err := os.Rename(filepath.Join(b, old), filepath.Join(b, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(filepath.Join(a, "orders-1", "00000000000000000000.log"), 10); err != nil {
		t.Fatal(err)
	}
	s := find(t, a, b)
	notes := strings.Join(s.Notes, "\n")
	for _, want := range []string{
		"-delete is left out: it waits for its removal", "removed-1 is left out: there is no such topic any more", "orders-1 is in two directories: that of " + b,
	} {
		if !strings.Contains(notes, want) {
			t.Errorf("%q is not said:\n%s", want, notes)
		}
	}
	for _, topic := range s.Topics {
		if topic.Name == "orders" && topic.Partitions[1].Path != filepath.Join(b, "orders-1") {
			t.Errorf("orders-1 is that of %s", topic.Partitions[1].Path)
		}
	}
	if _, err := Find(vfs.OS(), []string{filepath.Join(a, "orders-1", "00000000000000000000.log")}, noCatalogue); err == nil {
		t.Error("a single file is taken")
	}
	lock, err := vfs.OS().Lock(filepath.Join(a, ".lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, err := Find(vfs.OS(), []string{a}, noCatalogue); !errors.Is(err, ErrHeld) {
		t.Errorf("held: %v", err)
	}
}

// txLog writes batches of transactions: "1a" is a record of producer 1, "1C" and "1A" end its transaction.
func txLog(t *testing.T, script string) *Partition {
	t.Helper()
	fsys := vfs.NewMem()
	const folder = "/d/tx-0"
	if err := fsys.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	var log []byte
	for offset, word := range strings.Fields(script) {
		o := batch.BuilderOptions{BaseOffset: int64(offset), Idempotent: true, ProducerID: int64(word[0] - '0'), Transactional: word[0] != '0', BaseSequence: int32(offset)}
		key := []byte(nil)
		if word[1] == 'C' || word[1] == 'A' {
			o.Control, o.BaseSequence = true, -1
			key = []byte{0, 0, 0, 0}
			if word[1] == 'C' {
				key[3] = 1
			}
		}
		b := batch.NewBuilder(o)
		b.Append(1000, key, make([]byte, 6), nil)
		built, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		log = append(log, built...)
	}
	f, err := fsys.OpenFile(folder+"/"+segment.FileName(0, "log"), vfs.Create|vfs.ReadWrite, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(log, 0); err != nil {
		t.Fatal(err)
	}
	place, err := inspect.Find(fsys, folder)
	if err != nil {
		t.Fatal(err)
	}
	return NewPartition(fsys, &place.Partitions[0], 0)
}

// TestTransactions: which batches are taken over, and that Check has counted just those that Open gives.
func TestTransactions(t *testing.T) {
	for _, test := range []struct {
		name, script  string
		rules         Rules
		taken         string // offsets; a marker that was put there is in brackets
		aborted, open int64  // records
	}{
		{"committed", "0a 1a 1b 0b 1C", Rules{}, "0 1 2 3 4", 0, 0},
		{"aborted", "0a 1a 1b 0b 1A 1c 1C", Rules{}, "0 3 4 5 6", 2, 0},
		{"side by side", "1a 2a 1b 2b 1A 2c 2C", Rules{}, "1 3 4 5 6", 2, 0},
		{"twice", "1a 1A 1b 1C 1c 1A", Rules{}, "1 2 3 5", 2, 0},
		{"kept", "1a 1A 1b 1C", Rules{KeepAborted: true}, "0 1 2 3", 1, 0},
		{"open", "0a 1a 0b", Rules{}, "0 2", 0, 1},
		{"open at the end", "0a 1a 0b 1b", Rules{}, "0 2 [3]", 0, 2},
		{"open and kept", "0a 1a 0b 1b", Rules{KeepUnfinished: true}, "0 1 2 3", 0, 2},
		{"open alone", "1a", Rules{}, "[0]", 0, 1},
		{"marker without records", "1A 0a 2C", Rules{}, "0 1 2", 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := txLog(t, test.script)
			if err := p.Check(context.Background(), test.rules, func(int64) {}); err != nil {
				t.Fatal(err)
			}
			if p.Aborted.Records != test.aborted || p.Unfinished.Records != test.open || p.End != int64(len(strings.Fields(test.script))) {
				t.Errorf("aborted %+v, unfinished %+v, ends at %d", p.Aborted, p.Unfinished, p.End)
			}
			r := p.Open(func(int64) {})
			defer r.Close()
			var got []string
			records, batches, bytes, first := int64(0), int64(0), int64(0), p.End
			for {
				buf, err := r.NextBatches(make([]byte, 0, 200))
				if err != nil {
					if !errors.Is(err, io.EOF) {
						t.Fatal(err)
					}
					break
				}
				for b := range batch.All(buf) {
					h, err := batch.Check(b)
					if err != nil {
						t.Fatal(err)
					}
					name := fmt.Sprint(h.BaseOffset)
					if word := strings.Fields(test.script)[h.BaseOffset]; h.IsControl() != (word[1] == 'A' || word[1] == 'C') {
						name = "[" + name + "]"
					}
					got = append(got, name)
					batches, bytes, first = batches+1, bytes+int64(len(b)), min(first, h.BaseOffset)
					if !h.IsControl() {
						records++
					}
				}
			}
			if strings.Join(got, " ") != test.taken {
				t.Errorf("taken %v, want %s", got, test.taken)
			}
			if p.Records != records || p.Batches != batches || p.Bytes != bytes || p.First != first {
				t.Errorf("counted %d records, %d batches, %d bytes from %d; given %d, %d, %d from %d", p.Records, p.Batches, p.Bytes, p.First, records, batches, bytes, first)
			}
		})
	}
}

// FuzzMetadata: no record of __cluster_metadata makes it panic, or hold more than what it was given.
func FuzzMetadata(f *testing.F) {
	topic := append([]byte{1, 2, 0, 4}, "abc"...)
	topic = append(append(topic, make([]byte, 16)...), 0)
	f.Add(topic)
	config := append([]byte{1, 4, 0, 2, 4}, "abc"...)
	f.Add(append(append(append(config, 2), 'k', 3), "vw"...))
	f.Add(binary.AppendUvarint([]byte{1, 3, 0, 0, 0, 0, 0}, 1<<40))
	f.Fuzz(func(t *testing.T, value []byte) {
		m := &metadata{topics: map[[16]byte]*knownTopic{}, configs: map[string]map[string]string{}, left: map[string]int{}}
		m.topics[[16]byte{}] = &knownTopic{}
		if err := m.apply(value); err == nil {
			_ = m.apply(value)
		}
	})
}
