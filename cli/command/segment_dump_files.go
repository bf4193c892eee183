package command

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/inspect"
	"github.com/millrace/millrace/segment/vfs"
)

// smallFile shows any file but a log and the journal's; base is the offset that it is called by.
func (d *dumper) smallFile(f inspect.File, base int64) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	err := d.smallFileOf(f, base)
	if d.gone(err) {
		return nil
	}
	return err
}

func (d *dumper) smallFileOf(f inspect.File, base int64) error {
	name := filepath.Base(f.Path)
	switch filepath.Ext(name) {
	case ".index":
		return d.entries(f, "index", segment.OffsetEntrySize, func(b []byte) {
			e := segment.DecodeOffsetEntry(base, b)
			d.sink.entry("index", field{"offset", e.Offset}, field{"position", e.Position})
		})
	case ".timeindex":
		return d.entries(f, "time index", segment.TimeEntrySize, func(b []byte) {
			e := segment.DecodeTimeEntry(base, b)
			d.sink.entry("timeindex", field{"timestamp", millis(e.Timestamp)}, field{"offset", e.Offset})
		})
	case ".txnindex":
		return d.entries(f, "transaction index", inspect.TxnEntrySize, func(b []byte) {
			e := inspect.DecodeTxnEntry(b)
			d.sink.entry("txnindex", field{"version", e.Version}, field{"producer_id", e.ProducerID}, field{"first_offset", e.FirstOffset},
				field{"last_offset", e.LastOffset}, field{"last_stable_offset", e.LastStableOffset})
		})
	}
	text, err := vfs.ReadFile(d.fsys, f.Path)
	if err != nil {
		return err
	}
	switch {
	case strings.HasSuffix(name, ".snapshot"):
		d.sink.otherFile(f.Path, "producer snapshot")
		return d.snapshot(f.Path, text)
	case name == segment.EpochsFile:
		d.sink.otherFile(f.Path, "leader epochs")
		list, err := segment.DecodeEpochs(text)
		for _, e := range list {
			d.sink.entry("epoch", field{"epoch", e.Epoch}, field{"start_offset", e.Start})
		}
		return d.bad(f.Path, err)
	case name == segment.LogStartFile:
		d.sink.otherFile(f.Path, "log start offset")
		offset, err := segment.DecodeLogStart(text)
		if err == nil {
			d.sink.entry("start", field{"log_start_offset", offset})
		}
		return d.bad(f.Path, err)
	case strings.HasSuffix(name, segment.SealedSuffix):
		d.sink.otherFile(f.Path, "note of a sealed segment")
		x, err := segment.DecodeSealed(text)
		if err == nil {
			d.sink.entry("sealed", field{"bytes", x.Length}, field{"next_offset", x.Next}, field{"crc", x.Sum})
		}
		return d.bad(f.Path, err)
	case strings.HasSuffix(name, segment.CheckpointSuffix):
		d.sink.otherFile(f.Path, "checkpoint")
		return d.checkpoint(f.Path, text)
	}
	return d.textOf(f, text)
}

// entries shows an index file.
func (d *dumper) entries(f inspect.File, kind string, size int, show func(b []byte)) error {
	d.sink.otherFile(f.Path, kind)
	n := 0
	left, err := inspect.Entries(d.fsys, f, size, func(b []byte) error {
		show(b)
		n++
		return d.ctx.Err()
	})
	if err != nil {
		return err
	}
	if n == 0 && d.o.output == "plain" && kind == "index" {
		d.sink.note(f.Path + " is empty.")
	}
	if left > 0 {
		return d.bad(f.Path, fmt.Errorf("%d bytes at the end are no entry", left))
	}
	return nil
}

// bad says that a file is not what it should be, and goes on.
func (d *dumper) bad(path string, err error) error {
	if err != nil {
		d.damage++
		d.sink.damage(&inspect.Damage{File: path, Offset: -1, What: err.Error(), Cause: err})
	}
	return nil
}

func (d *dumper) snapshot(path string, b []byte) error {
	list, err := inspect.DecodeSnapshot(b)
	for _, p := range list {
		fields := []field{{"producer_id", p.ProducerID}, {"producer_epoch", p.ProducerEpoch}, {"coordinator_epoch", p.CoordinatorEpoch},
			{"current_txn_first_offset", optional(p.TxnFirstOffset)}, {"last_timestamp", millis(p.Timestamp)}}
		if p.LastOffset >= 0 {
			fields = append(fields, field{"first_sequence", batch.SubtractSequence(p.LastSequence, p.OffsetDelta)}, field{"last_sequence", p.LastSequence},
				field{"last_offset", p.LastOffset}, field{"offset_delta", p.OffsetDelta}, field{"timestamp", millis(p.Timestamp)})
		}
		d.sink.entry("producer", fields...)
	}
	return d.bad(path, err)
}

func (d *dumper) checkpoint(path string, b []byte) error {
	cp, err := segment.DecodeCheckpoint(b)
	if err != nil {
		return d.bad(path, err)
	}
	fields := []field{{"base_offset", cp.Base}, {"position", cp.Position}, {"next_offset", cp.Next}}
	if cp.Summed {
		fields = append(fields, field{"crc", cp.Sum})
	}
	fields = append(fields, field{"first_timestamp", millis(cp.FirstTimestamp)}, field{"max_timestamp", millis(cp.Largest.Timestamp)},
		field{"max_timestamp_offset", optional(cp.Largest.Offset)}, field{"index_entries", len(cp.Offsets)}, field{"time_index_entries", len(cp.Times)})
	d.sink.entry("checkpoint", fields...)
	for _, e := range cp.Epochs {
		d.sink.entry("epoch", field{"epoch", e.Epoch}, field{"start_offset", e.Start})
	}
	return d.snapshot(path, cp.Producers)
}

// text shows a file that is text, line by line.
func (d *dumper) text(f inspect.File) error {
	b, err := vfs.ReadFile(d.fsys, f.Path)
	if d.gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return d.textOf(f, b)
}

// mostText is more than any file of text holds that a server makes.
const mostText = 64 << 20

func (d *dumper) textOf(f inspect.File, b []byte) error {
	if filepath.Base(f.Path) == "bootstrap.checkpoint" { // Kafka's first metadata, as batches
		return d.log(&inspect.Partition{Topic: "bootstrap", Number: -1}, &inspect.Segment{Log: f})
	}
	if len(b) > mostText || slices.Contains(b, 0) {
		return usagef("millrace segment dump", "%s is no file that a log consists of", f.Path)
	}
	d.sink.otherFile(f.Path, "text")
	for line := range strings.Lines(string(b)) {
		d.sink.entry("line", field{"text", strings.TrimRight(line, "\r\n")})
	}
	return nil
}

// journal shows a file of the journal: its rounds, and what each has for which log.
func (d *dumper) journal(path string) error {
	d.sink.otherFile(path, "journal")
	takes := func(e segment.JournalEntry) bool {
		return d.o.takes(&inspect.Partition{Topic: e.Log.Topic, Number: e.Log.Partition})
	}
	generation, end, err := segment.Journal(d.fsys, path, func(r segment.JournalRound) error {
		if !slices.ContainsFunc(r.Entries, takes) {
			return d.ctx.Err()
		}
		d.sink.entry("round", field{"generation", r.Generation}, field{"sequence", r.Sequence}, field{"oldest_generation", r.Oldest},
			field{"position", r.Position}, field{"bytes", r.Length}, field{"entries", len(r.Entries)})
		for _, e := range r.Entries {
			if takes(e) {
				d.journalEntry(&e)
			}
		}
		return d.ctx.Err()
	})
	if d.gone(err) {
		return nil
	}
	if errors.Is(err, segment.ErrDamaged) || errors.Is(err, segment.ErrFormat) {
		return d.bad(path, err)
	}
	if err == nil {
		d.sink.entry("journal", field{"generation", generation}, field{"end", end})
	}
	return err
}

func (d *dumper) journalEntry(e *segment.JournalEntry) {
	id := catalog.TopicID(e.Log.TopicID).String()
	if e.Position == segment.DeletedLog {
		d.sink.entry("deleted", field{"partition", e.Log.String()}, field{"topic_id", id})
		return
	}
	first, last, batches := int64(-1), int64(-1), 0
	for b, err := range batch.All(e.Bytes) {
		if err != nil {
			break
		}
		h, _ := batch.ReadHeader(b) // All has read it
		if batches == 0 {
			first = h.BaseOffset
		}
		last = h.LastOffset()
		batches++
	}
	d.sink.entry("append", field{"partition", e.Log.String()}, field{"topic_id", id}, field{"segment", e.Base}, field{"position", e.Position},
		field{"bytes", len(e.Bytes)}, field{"batches", batches}, field{"first_offset", optional(first)}, field{"last_offset", optional(last)})
}

// catalog shows what exists, from a copy: Badger writes to what it opens.
func (d *dumper) catalog(folder string) (err error) {
	temp, err := os.MkdirTemp("", "millrace-catalog-")
	if err != nil {
		return fmt.Errorf("the catalogue is read from a copy: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	img, err := d.readCatalog(folder, temp)
	if err != nil {
		return fmt.Errorf("%s: %w", folder, err)
	}
	d.sink.otherFile(folder, "catalogue")
	d.sink.entry("catalog", field{"cluster_id", img.ClusterID()}, field{"version", img.Version()}, field{"next_producer_id", img.NextProducerID()},
		field{"topics", img.TopicCount()}, field{"partitions", img.PartitionCount()})
	for _, b := range img.Brokers() {
		d.sink.entry("broker", field{"id", b.ID}, field{"epoch", b.Epoch}, field{"endpoints", endpoints(b.Endpoints)})
	}
	for kind, name := range map[catalog.ResourceType]string{catalog.ResourceBroker: "broker", catalog.ResourceGroup: "group", catalog.ResourceClientMetrics: "client-metrics"} {
		for _, of := range img.ConfigNames(kind) {
			d.sink.entry("settings", field{"of", name}, field{"name", of}, field{"settings", configsOf(img.Config(kind, of))})
		}
	}
	for _, t := range img.Topics() {
		if !d.o.takes(&inspect.Partition{Topic: t.Name, Number: 0}) && len(d.o.partitions) == 0 {
			continue
		}
		d.sink.entry("topic", field{"name", t.Name}, field{"id", t.ID.String()}, field{"partitions", len(t.Partitions)}, field{"settings", configsOf(t.Configs)})
		for i := range t.Partitions {
			p := &t.Partitions[i]
			if !d.o.takes(&inspect.Partition{Topic: t.Name, Number: int32(i)}) {
				continue
			}
			fields := []field{{"name", fmt.Sprintf("%s-%d", t.Name, i)}, {"leader", p.Leader}, {"leader_epoch", p.LeaderEpoch}, {"partition_epoch", p.PartitionEpoch},
				{"replicas", p.Replicas}, {"isr", p.ISR}}
			if len(p.Dirs) > 0 {
				fields = append(fields, field{"dirs", texts(p.Dirs)})
			}
			if len(p.Futures) > 0 {
				fields = append(fields, field{"futures", texts(p.Futures)})
			}
			d.sink.entry("partition", fields...)
		}
	}
	return nil
}

func texts[T fmt.Stringer](list []T) []string {
	out := make([]string, len(list))
	for i, x := range list {
		out[i] = x.String()
	}
	return out
}

func endpoints(list []catalog.Endpoint) []string {
	out := make([]string, len(list))
	for i, e := range list {
		out[i] = fmt.Sprintf("%s://%s:%d", e.Listener, e.Host, e.Port)
	}
	return out
}

// configsOf gives settings in the order of their keys, none as an empty map.
func configsOf(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// readCatalog copies the files and opens them; a running server may have changed some between two, so it tries again.
func (d *dumper) readCatalog(folder, temp string) (img *catalog.Image, err error) {
	for attempt := range 5 {
		into := filepath.Join(temp, fmt.Sprint(attempt))
		if err = d.copyFolder(folder, into); err == nil {
			img, err = catalog.ReadCopy(into)
		}
		if err == nil || !d.held {
			return img, err
		}
	}
	return nil, err
}

func (d *dumper) copyFolder(from, into string) error {
	if err := os.Mkdir(into, 0o755); err != nil {
		return err
	}
	entries, err := d.fsys.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() || e.Name() == "LOCK" {
			continue
		}
		b, err := vfs.ReadFile(d.fsys, filepath.Join(from, e.Name()))
		if d.gone(err) {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(into, e.Name()), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}
