package inspect

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/vfs"
)

// RepairOptions say what to mend, and how.
type RepairOptions struct {
	// Salvage keeps the intact batches behind damage. Without it the log ends before the first damage, as it does
	// after a crash, and all that lies behind is kept aside.
	Salvage bool
	// Only picks partitions by name. Nil: all.
	Only func(p *Partition) bool
	// Stamp names the folder in the quarantine for what this repair removes: no other may have had it.
	Stamp string
	// IndexInterval gives index.interval.bytes of a partition's topic, for indexes that are built anew. Nil: 4096.
	IndexInterval func(p *Partition) int
	// Topic, Workers and Progress are Verify's.
	Topic    func(id [16]byte) (partitions int, known bool)
	Workers  int
	Progress *Progress
}

// Step is one thing that a repair does.
type Step struct {
	Partition string
	Do        string // "cut", "rewrite", "set aside", "rebuild", "write", "replay"
	File      string
	Position  int64         // where it is cut, -1
	Bytes     int64         // that leave the log
	Offsets   []OffsetRange // that are lost with it
	Records   int64         // intact records among them
	Why       string

	apply func(m *mender) error
}

// Lost is how many offsets the log has no longer when the step is done.
func (s Step) Lost() (n int64) {
	for _, r := range s.Offsets {
		n += r.Last - r.First + 1
	}
	return n
}

// OffsetRange is offsets, both included.
type OffsetRange struct{ First, Last int64 }

// offsetRange is one range, or none when there is nothing in it.
func offsetRange(first, last int64) []OffsetRange {
	if first < 0 || last < first {
		return nil
	}
	return []OffsetRange{{first, last}}
}

// Plan is what a repair comes to. Nothing is done before Apply.
type Plan struct {
	Place      *Place
	Quarantine string // where what is removed goes
	Findings   []Finding
	Steps      []Step
	Left       []Finding // what it does not mend
	Counts     Counts

	fs       vfs.FS
	interval func(p *Partition) int
}

// Lost is how many offsets are lost when all steps are done, and how many intact records are among them.
func (p *Plan) Lost() (offsets, records int64) {
	for _, s := range p.Steps {
		offsets, records = offsets+s.Lost(), records+s.Records
	}
	return offsets, records
}

// PlanRepair looks at a place as Verify does, and says what to do about what it finds. It writes nothing.
//
// Each step is durable and whole by itself, and leads from a directory that a server can open to another. A repair that was cut short is
// planned anew from what it has left, and comes to the same end.
func PlanRepair(ctx context.Context, fsys vfs.FS, place *Place, o RepairOptions) (*Plan, error) {
	v, err := examine(ctx, fsys, place, VerifyOptions{Only: o.Only, Topic: o.Topic, Workers: o.Workers, Progress: o.Progress}, true)
	if err != nil {
		return nil, err
	}
	if o.IndexInterval == nil {
		o.IndexInterval = func(*Partition) int { return 4096 }
	}
	plan := &Plan{Place: place, Findings: v.found, Counts: v.counts, fs: fsys, interval: o.IndexInterval, Quarantine: filepath.Join(quarantine(place), o.Stamp)}
	journal := false
	for _, f := range v.found {
		switch {
		case f.Severity == Note:
		case notMended(f):
			plan.Left = append(plan.Left, f)
		case f.What == segment.SaidForeign && f.Partition == "":
			plan.add(plan.setAside("", f.File, f.What))
		case f.What == segment.SaidJournalTorn || f.What == segment.SaidJournalDamaged || f.What == segment.SaidJournalHole:
			journal = true
		}
	}
	for _, j := range v.parts {
		if j.untold {
			continue // who knows what it would come to
		}
		plan.partition(j, o.Salvage)
	}
	if place.Layout == Kafka {
		plan.unclean(place)
	}
	if v.replay && (journal || len(plan.Steps) > 0) {
		plan.Steps = append(plan.replay(place), plan.Steps...)
	}
	return plan, nil
}

// notMended tells of what a repair lets be.
func notMended(f Finding) bool {
	if f.Severity == Untold {
		return true
	}
	switch f.What {
	case SaidRecords, SaidSequence, SaidMoreFindings:
		return true
	}
	return strings.HasPrefix(f.What, segment.SaidSetAside)
}

// quarantine is where what a repair removes is kept: on the same disk, and where no server looks for logs.
func quarantine(place *Place) string {
	if place.Layout == Millrace && place.Lock != "" {
		return filepath.Join(filepath.Dir(place.Lock), QuarantineFolder)
	}
	dir := place.Path
	switch {
	case place.Kind == OneFile:
		dir = filepath.Dir(dir)
	case place.Kind == WholePartition && place.Lock != "":
		dir = filepath.Dir(place.Lock)
	}
	return dir + "." + QuarantineFolder
}

func (p *Plan) add(s ...Step) { p.Steps = append(p.Steps, s...) }

// replay brings the journal into the segments.
func (p *Plan) replay(place *Place) []Step {
	dir := filepath.Dir(place.Lock)
	folder := filepath.Join(dir, segment.JournalFolder)
	return []Step{{
		Do: "replay", File: folder, Position: -1, Why: "its records belong into the segments before those are changed",
		apply: func(m *mender) error { return m.replay(dir, folder) },
	}}
}

// unclean takes the mark of a clean close away, first of all, when something is done that Kafka's broker would not look at with it: it
// then reads the ends of its logs, and what it knew of producers, from the records.
func (p *Plan) unclean(place *Place) {
	mark := filepath.Join(filepath.Dir(place.Lock), kafkaClean)
	if _, err := p.fs.Stat(mark); place.Lock == "" || err != nil {
		return // there is none
	}
	if slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Partition != "" && s.Why != segment.SaidForeign && s.Why != SaidLeftover }) {
		p.Steps = append([]Step{p.setAside("", mark, "the broker has to read again what it knew of these logs")}, p.Steps...)
	}
}

// setAside moves a file or folder into the quarantine.
func (p *Plan) setAside(partition, file, why string) Step {
	return Step{Partition: partition, Do: "set aside", File: file, Position: -1, Why: why,
		apply: func(m *mender) error { return m.move(file) }}
}

// write puts contents in the place of a small file, which is kept.
func (p *Plan) write(partition, file, why string, contents func(m *mender) ([]byte, error)) Step {
	return Step{Partition: partition, Do: "write", File: file, Position: -1, Why: why,
		apply: func(m *mender) error { return m.replace(file, contents) }}
}

// partition plans what is to be done in one partition. The order of steps is such that what a cut short repair leaves leads
// to the same ones that are missing: what says how a segment was goes before the segment changes, what is
// derived from it comes behind.
func (p *Plan) partition(j *judge, salvage bool) {
	name := j.part.Name()
	for _, f := range j.findings {
		if f.What == segment.SaidForeign {
			p.add(p.setAside(name, f.File, f.What))
		}
	}
	for _, f := range j.part.Leftovers {
		if temporary(f) {
			p.add(p.setAside(name, f.Path, SaidLeftover))
		}
	}
	var kept []*judged
	for _, s := range j.segments {
		if s.duplicate {
			p.segmentAside(name, s.seg, segment.SaidDuplicate, Step{})
		} else if len(s.bad) > 0 && s.records == 0 && s.end == 0 && (salvage || len(kept) > 0) {
			p.segmentAside(name, s.seg, "it has no intact batch", Step{Offsets: offsetRange(s.bad[0].first, s.bad[len(s.bad)-1].last)})
		} else {
			kept = append(kept, s)
		}
	}
	for _, s := range j.part.Segments {
		for _, f := range []File{s.Index, s.TimeIndex, s.TxnIndex, s.Sealed, s.Checkpoint} {
			if f.There() && j.odd[f.Path] != "" {
				p.add(p.setAside(name, f.Path, j.odd[f.Path]))
			}
		}
	}
	if path := j.part.LogStart.Path; j.odd[path] != "" {
		p.add(p.setAside(name, path, j.odd[path]))
	}
	end := j.next
	if !salvage {
		kept, end = p.cutAll(j, kept)
	}
	for i, s := range kept {
		next := int64(-1)
		if i+1 < len(kept) {
			next = kept[i+1].seg.Base
		}
		p.segment(j, s, next, end)
	}
	if len(kept) > 0 {
		if f := frontGap(j); f != nil {
			p.add(p.write(name, filepath.Join(j.part.Path, segment.LogStartFile), f.What, always(segment.EncodeLogStart(kept[0].seg.Base))))
		}
	}
	p.snapshots(j, end)
	p.epochs(j, end)
}

func frontGap(j *judge) *Finding {
	for i := range j.findings {
		if j.findings[i].What == SaidFrontGone {
			return &j.findings[i]
		}
	}
	return nil
}

func always(b []byte) func(*mender) ([]byte, error) {
	return func(*mender) ([]byte, error) { return b, nil }
}

// segmentAside moves all files of a segment into the quarantine, the log first.
func (p *Plan) segmentAside(name string, s *Segment, why string, log Step) {
	step := p.setAside(name, s.Log.Path, why)
	step.Bytes, step.Offsets, step.Records = s.Log.Size, log.Offsets, log.Records
	files := there(s.Log, s.Index, s.TimeIndex, s.TxnIndex, s.Sealed, s.Checkpoint)
	step.apply = func(m *mender) error { return m.moveAll(files) }
	p.add(step)
}

// there are those files that there are.
func there(files ...File) []File {
	return slices.DeleteFunc(files, func(f File) bool { return !f.There() })
}

// cutAll makes the log end before its first damage: segments behind it go as a whole, from the last one on.
func (p *Plan) cutAll(j *judge, kept []*judged) (left []*judged, end int64) {
	name := j.part.Name()
	for k, s := range kept {
		i := slices.IndexFunc(s.bad, func(b badRange) bool { return !b.stranger })
		if i < 0 {
			continue
		}
		for _, later := range slices.Backward(kept[k+1:]) {
			p.segmentAside(name, later.seg, "it lies behind damage in "+filepath.Base(s.seg.Log.Path),
				Step{Offsets: offsetRange(later.seg.Base, later.next-1), Records: later.records})
		}
		s.cutAt(i)
		return kept[:k+1], s.bad[i].first
	}
	return kept, j.next
}

// cutAt makes one bad range of a segment reach to its end.
func (s *judged) cutAt(i int) {
	bad := &s.bad[i]
	bad.records = s.records - bad.before
	bad.to, bad.last = max(s.size, s.seg.Log.Size), max(bad.last, s.next-1)
	s.bad = s.bad[:i+1]
	s.last = true
	s.cut = true
	s.fixes = slices.DeleteFunc(s.fixes, func(f fix) bool { return f.position >= bad.from })
	s.gaps = slices.DeleteFunc(s.gaps, func(f Finding) bool { return f.Position >= bad.from })
}

// segment plans what is to be done with one that stays; next is the base offset of the one behind it, -1 for the last.
func (p *Plan) segment(j *judge, s *judged, next, end int64) {
	name, seg := j.part.Name(), s.seg
	kafka, longer := j.part.Layout == Kafka, false
	if s.seal != nil && next >= 0 && seg.Log.Size > s.seal.Length {
		longer = len(s.bad) == 0
		s.bad = append(s.bad, badRange{from: s.seal.Length, to: seg.Log.Size, first: s.next, last: s.next - 1})
		if n := len(s.bad); n > 1 && s.bad[n-2].to >= s.bad[n-1].from { // they are one
			s.bad[n-2].to = seg.Log.Size
			s.bad = s.bad[:n-1]
		}
	}
	changed := len(s.bad) > 0 || len(s.fixes) > 0
	whole := len(s.bad) == 1 && len(s.fixes) == 0 && s.bad[0].to >= seg.Log.Size
	if changed {
		stale := derived(s, next)
		step := Step{Partition: name, Do: "rewrite", File: seg.Log.Path, Position: -1, Why: segment.SaidDamaged,
			apply: func(m *mender) error {
				if err := m.moveAll(stale); err != nil {
					return err
				}
				return m.rewrite(seg.Log.Path, s.bad, s.fixes)
			}}
		if len(s.bad) == 0 {
			step.Why = SaidOffsetWrong
			if s.fixes[0].offset < 0 {
				step.Why = SaidEpochWrong
			}
		}
		if whole {
			step.Do, step.Position = "cut", s.bad[0].from
			step.apply = func(m *mender) error {
				if err := m.moveAll(stale); err != nil {
					return err
				}
				return m.cut(seg.Log.Path, s.bad[0].from)
			}
			switch {
			case longer:
				step.Why = segment.SaidSealLonger
			case s.bad[0].tornEnd:
				step.Why = segment.SaidTornEnd
			}
		}
		for _, b := range s.bad {
			step.Bytes += min(b.to, seg.Log.Size) - b.from
			step.Records += b.records
			if b.last >= b.first && (!b.tornEnd || b.records > 0) {
				step.Offsets = append(step.Offsets, OffsetRange{b.first, b.last})
			}
		}
		p.add(step)
	}
	if (changed && next >= 0) || s.index.wrong != "" && !s.index.none && !s.cut {
		p.rebuild(j.part, s)
	}
	if kafka {
		p.txnIndex(j, s, changed)
		return
	}
	holes := len(s.gaps) > 0 || slices.ContainsFunc(s.bad, func(b badRange) bool { return b.to < seg.Log.Size && b.last >= b.first })
	if next < 0 {
		p.checkpoint(j, s, holes, changed, end)
		return
	}
	odd := s.sealOdd != "" || s.seal != nil && (s.seal.Next != next || changed || seg.Log.Size != s.seal.Length)
	if odd || s.seal == nil && (holes || s.next != next) {
		why := s.sealOdd
		if why == "" {
			why = "what it notes has changed"
		}
		p.add(p.write(name, sidePath(seg, segment.SealedSuffix), why, func(m *mender) ([]byte, error) { return m.seal(seg, next) }))
	}
}

// sidePath is the name of a file beside a segment.
func sidePath(s *Segment, suffix string) string {
	return strings.TrimSuffix(s.Log.Path, ".log") + suffix
}

// derived are the files that say how a segment is, and must go before it changes. The note of one that was left stays
// until there is another: that it does not fit any more is how a repair that was cut short is found.
func derived(s *judged, next int64) []File {
	if next < 0 {
		return there(s.seg.Index, s.seg.TimeIndex, s.seg.Checkpoint, s.seg.Sealed)
	}
	return there(s.seg.Index, s.seg.TimeIndex, s.seg.Checkpoint)
}

// rebuild writes both indexes anew.
func (p *Plan) rebuild(part *Partition, s *judged) {
	why := s.index.wrong
	if why == "" {
		why = "the segment has changed"
	}
	p.add(Step{Partition: part.Name(), Do: "rebuild", File: sidePath(s.seg, ".index"), Position: -1, Why: why,
		apply: func(m *mender) error { return m.rebuild(s.seg, p.interval(part)) }})
}

// checkpoint sets that of the last segment aside, when it is no good, and writes one where a checksum has to say that holes in the
// offsets are known.
func (p *Plan) checkpoint(j *judge, s *judged, holes, changed bool, end int64) {
	name, path := j.part.Name(), sidePath(s.seg, segment.CheckpointSuffix)
	if s.cpOdd != "" && !changed {
		p.add(p.setAside(name, path, s.cpOdd))
	}
	if holes {
		p.add(p.write(name, path, SaidOffsetsGone, func(m *mender) ([]byte, error) {
			return m.checkpoint(s.seg, p.interval(j.part), before(j.allEpochs(), end), j.producers.EncodeAll())
		}))
	}
}

// snapshots sets those of producers aside that are no good or lie behind the end, and writes the ones anew that can be.
func (p *Plan) snapshots(j *judge, end int64) {
	name := j.part.Name()
	for _, s := range j.part.Snapshots {
		why := j.odd[s.Path]
		if s.Offset > end {
			if why == "" {
				why = "it lies behind the end of the log"
			}
			p.add(p.setAside(name, s.Path, why))
		} else if b := j.rebuilt[s.Path]; b != nil && j.part.Layout != Kafka { // whose broker knows of transactions, too
			step := p.write(name, s.Path, why, always(b))
			step.Do = "rebuild"
			p.add(step)
		} else if why != "" {
			p.add(p.setAside(name, s.Path, why))
		}
	}
}

// epochs writes the leader epoch checkpoint anew, when it is no good.
func (p *Plan) epochs(j *judge, end int64) {
	path := j.part.Epochs.Path
	if path == "" {
		return
	}
	why := j.odd[path]
	for _, e := range j.epochs {
		begun := e.Start == end && j.part.Layout == Kafka // a leader of Kafka's notes its epoch before it writes
		if e.Start >= end && !begun && why == "" {
			why = fmt.Sprintf("epoch %d begins at offset %d, the log ends at %d", e.Epoch, e.Start, end)
		}
	}
	if why != "" {
		p.add(p.write(j.part.Name(), path, why, always(segment.EncodeEpochs(before(j.allEpochs(), end)))))
	}
}

// before are the epochs that begin before an offset.
func before(list []segment.EpochEntry, end int64) []segment.EpochEntry {
	for len(list) > 0 && list[len(list)-1].Start >= end {
		list = list[:len(list)-1]
	}
	return list
}
