package inspect

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/vfs"
)

// VerifyOptions say how thoroughly to look, and whom to tell.
type VerifyOptions struct {
	// Fast leaves out the CRC of batches: structure alone.
	Fast bool
	// Records decompresses every batch and reads every record of it.
	Records bool
	// Held tells that a running server may be writing: what is unfinished is no damage then.
	Held bool
	// Topic tells how many partitions a topic has, as the catalogue knows it. Nil: nobody knows.
	Topic func(id [16]byte) (partitions int, known bool)
	// Only picks partitions by name. Nil: all.
	Only func(p *Partition) bool
	// Workers is how many partitions are looked at side by side. 0: twice as many as there are processors.
	Workers int
	// Found is told each finding, in the order of partitions, on one goroutine at a time. May be nil.
	Found func(Finding)
	// Progress is counted up meanwhile. May be nil.
	Progress *Progress

	ctx context.Context
}

func (o *VerifyOptions) stopped() bool { return o.ctx.Err() != nil }

// Progress is how far something has come; it may be read at any time.
type Progress struct{ Done, Total atomic.Int64 } // bytes

func (p *Progress) add(n int64) {
	if p != nil {
		p.Done.Add(n)
	}
}

// Counts is what was seen: of batches, those that are whole and where they belong.
type Counts struct {
	Partitions, Segments    int64
	Batches, Records, Bytes int64
	Damage, Notes, Untold   int64 // findings
	Lost                    int64 // offsets that are missing or not readable
}

func (c *Counts) add(o Counts) {
	c.Partitions += o.Partitions
	c.Segments += o.Segments
	c.Batches += o.Batches
	c.Records += o.Records
	c.Bytes += o.Bytes
}

func (c *Counts) note(f Finding) {
	switch f.Severity {
	case Note:
		c.Notes++
	case Harm:
		c.Damage++
	default:
		c.Untold++
	}
	if f.What != SaidOffsetWrong && f.What != SaidEpochWrong {
		c.Lost += f.Lost()
	}
}

// Verify compares everything at a place with everything else there: batches with their CRCs, offsets, epochs and sequence
// numbers in their order, indexes, snapshots and notes with the log, the journal with the segments, the catalogue with the
// folders. It writes nothing, and holds little: a few MiB for each partition that is being looked at, and the journal. Several
// partitions are looked at side by side; it blocks until all are done, or ctx ends. The error is ctx's, or that of a
// place that is not there any more; all else is a Finding.
func Verify(ctx context.Context, fsys vfs.FS, place *Place, o VerifyOptions) (Counts, error) {
	v, err := examine(ctx, fsys, place, o, false)
	if err != nil {
		return Counts{}, err
	}
	return v.counts, nil
}

// examined is what Verify has seen, kept for those who mend it.
type examined struct {
	place  *Place
	fs     vfs.FS // with the journal in the segments
	counts Counts
	parts  []*judge // kept ones only: with something to mend
	replay bool     // the journal has something that is not in the segments
	found  []Finding
}

// examine is Verify; keep tells to keep the judges.
func examine(ctx context.Context, fsys vfs.FS, place *Place, o VerifyOptions, keep bool) (*examined, error) {
	v := &examined{place: place, fs: fsys}
	o.ctx = ctx
	tell := func(f Finding) {
		v.counts.note(f)
		if keep {
			v.found = append(v.found, f)
		}
		if o.Found != nil {
			o.Found(f)
		}
	}
	known, err := v.overlay(&o, tell)
	if err != nil {
		return nil, err
	}
	if o.Only == nil {
		for _, f := range v.strangers() {
			tell(f)
		}
	}
	if v.place.Kind == OneFile {
		v.neighbours()
	}
	parts := v.chosen(&o, tell)
	if o.Progress != nil {
		for _, p := range parts {
			o.Progress.Total.Add(p.Bytes())
		}
	}
	workers := o.Workers
	if workers <= 0 {
		workers = 2 * runtime.GOMAXPROCS(0)
	}
	order := newOrder(len(parts), func(j *judge) {
		j.counts.Partitions = 1
		v.counts.add(j.counts)
		harm := slices.ContainsFunc(j.part.Leftovers, temporary)
		for _, f := range j.finish() {
			harm = harm || f.Severity == Harm
			tell(f)
		}
		if keep && harm {
			v.parts = append(v.parts, j)
		}
	})
	var group sync.WaitGroup
	next := atomic.Int64{}
	for range min(workers, len(parts)) {
		group.Go(func() { // ends with the partitions, or soon after ctx
			for i := int(next.Add(1)) - 1; i < len(parts) && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				order.done(i, v.judge(&o, parts[i], known))
			}
		})
	}
	group.Wait()
	return v, ctx.Err()
}

// looks is how often a partition that a running server writes to is looked at, when there seems to be damage: what its
// files are at one moment need not fit what others are at the next.
const looks = 4

// judge looks at one partition.
func (v *examined) judge(o *VerifyOptions, part *Partition, known map[string]int64) *judge {
	for look := 1; ; look++ {
		j := &judge{fs: v.fs, opts: o, part: part, known: known, clean: v.place.Clean.There()}
		if v.place.Kind == OneFile {
			j.one = v.place.Path
		}
		j.run()
		harm := slices.ContainsFunc(j.findings, func(f Finding) bool { return f.Severity != Note })
		if !harm || !o.Held || look == looks || v.place.Kind == OneFile || o.stopped() {
			return j
		}
		again := namePartition(part.Path)
		if again.find(v.fs) != nil {
			return j
		}
		part = &again
	}
}

// neighbours finds what lies beside a segment's file, which says what it has to be; other files are looked at alone.
func (v *examined) neighbours() {
	_, suffix, ok := segment.ParseFile(filepath.Base(v.place.Path))
	if !ok || suffix == "snapshot" || len(v.place.Partitions) == 0 {
		return
	}
	part := namePartition(filepath.Dir(v.place.Path))
	if part.find(v.fs) == nil {
		place := *v.place
		place.Partitions = []Partition{part}
		v.place = &place
	}
}

// temporary tells of files that a step which was cut short has left.
func temporary(f File) bool { return strings.HasSuffix(f.Path, tempSuffix) }

// order hands on what is done in the order in which it was begun.
type order struct {
	mu    sync.Mutex // guards the rest, and that hand is called by one at a time
	ready []*judge
	next  int
	hand  func(*judge)
}

func newOrder(n int, hand func(*judge)) *order { return &order{ready: make([]*judge, n), hand: hand} }

func (o *order) done(i int, j *judge) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.ready[i] = j; o.next < len(o.ready) && o.ready[o.next] != nil; o.next++ {
		o.hand(o.ready[o.next])
		o.ready[o.next] = nil
	}
}

// chosen lists the partitions to look at.
func (v *examined) chosen(o *VerifyOptions, tell func(Finding)) []*Partition {
	var parts []*Partition
	for i := range v.place.Partitions {
		p := &v.place.Partitions[i]
		if o.Only != nil && !o.Only(p) {
			continue
		}
		switch p.State {
		case Deleted:
			if !o.Held {
				f := about(Note, p.Path, SaidLeftover, "")
				f.Partition = p.Name()
				tell(f)
			}
			continue
		case Stray:
			f := about(Note, p.Path, SaidStray, "")
			f.Partition = p.Name()
			tell(f)
		case Live:
			if o.Topic == nil || p.Layout != Millrace {
				break
			}
			if n, ok := o.Topic(p.TopicID); !ok || int(p.Number) >= n {
				f := about(Harm, p.Path, segment.SaidSetAside+segment.SaidNoTopic, "")
				f.Partition = p.Name()
				tell(f)
			}
		}
		parts = append(parts, p)
	}
	return parts
}

// strangers are the files outside of partitions that no server makes.
func (v *examined) strangers() (list []Finding) {
	severity := func(path string) Severity {
		if v.place.Layout == Millrace && filepath.Dir(path) == v.place.Path {
			return Note // a data directory is often the root of a disk
		}
		return Harm
	}
	for _, f := range v.place.Foreign {
		list = append(list, about(severity(f.Path), f.Path, segment.SaidForeign, ""))
	}
	for _, path := range v.place.Folders {
		list = append(list, about(severity(path), path, segment.SaidForeign, "a folder"))
	}
	return list
}

// overlay shows the place as it will be when a server has replayed the journal; known is how far that has filled the files.
func (v *examined) overlay(o *VerifyOptions, tell func(Finding)) (known map[string]int64, err error) {
	over, known, err := replay(v.fs, v.place, func(f Finding) {
		if (v.place.Kind == WholeDirectory || f.File == v.place.Path) && !o.Held { // who writes to it meanwhile leaves all kinds of things
			tell(f)
		}
	})
	switch {
	case err != nil && o.Held && !errors.Is(err, segment.ErrFormat):
		return nil, nil
	case err != nil:
		tell(about(Untold, filepath.Join(filepath.Dir(v.place.Lock), segment.JournalFolder), SaidUnreadable, err.Error()))
		return nil, nil
	case len(known) == 0:
		return known, nil
	}
	v.replay, v.fs = true, over
	if v.place.Kind == OneFile {
		held := v.place.Held
		if v.place, err = Find(over, v.place.Path); err == nil {
			v.place.Held = held
		}
		return known, err
	}
	place := *v.place
	place.Partitions = slices.Clone(place.Partitions)
	v.place = &place
	return known, place.apply(over)
}

// listener makes findings of what a server would say in its log.
type listener struct{ tell func(Finding) }

// Enabled leaves out what is not worth a warning.
func (*listener) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// Handle makes a finding of one line.
func (l *listener) Handle(_ context.Context, r slog.Record) error {
	f := about(Harm, "", r.Message, "")
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "file":
			f.File = a.Value.String()
		case "position":
			f.Position = a.Value.Int64()
		case "bytes":
			f.Bytes = a.Value.Int64()
		case "partition":
			f.Partition = a.Value.String()
		case "error":
			f.Found = strings.TrimSpace(a.Value.String())
		}
		return true
	})
	l.tell(f)
	return nil
}

// WithAttrs leaves them out.
func (l *listener) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup leaves it out.
func (l *listener) WithGroup(string) slog.Handler { return l }

// QuarantineFolder is where a repair keeps what it removes, in the directory that it mends.
const QuarantineFolder = "quarantine"
