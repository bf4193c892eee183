package inspect

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"strings"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/producer"
	"github.com/millrace/millrace/segment/vfs"
)

// What Verify says and no server does, since none reads so much when it opens a directory.
const (
	SaidOffsetWrong  = segment.SaidOffsetWrong
	SaidEpochWrong   = "a batch has another leader epoch than its place in the log says"
	SaidOffsetsGone  = "offsets are missing inside of a segment"
	SaidFrontGone    = "the log begins behind its log start offset: segments are missing at its front"
	SaidSumWrong     = "a segment is not what it was when it was left, though every batch is whole: base offsets or leader epochs have changed"
	SaidSequence     = "a producer's sequence numbers do not follow one another"
	SaidRecords      = "a batch whose CRC holds has records that cannot be read"
	SaidSnapshotOdd  = "a producer snapshot does not agree with the records"
	SaidEpochsOdd    = "the leader epochs do not agree with the records"
	SaidStartBehind  = "the log start offset lies behind the end of the log"
	SaidWithoutLog   = "files of a segment whose log is not there"
	SaidTxnIndex     = "the index of aborted transactions does not agree with the records"
	SaidEndless      = "the end of an aborted transaction is gone: a broker that recovers the segment takes its records for committed"
	SaidUnreadable   = "cannot be read"
	SaidLeftover     = "left by a server, and removed by its next start"
	SaidStray        = "set aside by a server, which does not use it"
	SaidMoreFindings = "there is more of that in this partition, which is not listed"
)

// maxFindings is how many findings of one partition are listed.
const maxFindings = 1000

// judge looks at one partition, front to back. Not for concurrent use.
type judge struct {
	fs    vfs.FS
	opts  *VerifyOptions
	part  *Partition
	known map[string]int64 // by file: how far the journal has filled it
	clean bool             // the last close was clean
	one   string           // the one file that was asked for, with its segment; "": all

	findings  []Finding
	before    []int64 // records that were counted when the finding was made
	dropped   int
	sequences int // findings about sequences
	counts    Counts

	segments []*judged
	now      *judged
	start    int64 // log start offset, -1: none
	next     int64 // the offset behind the last batch, -1: not known yet
	claimed  int64 // what a note says that it should be, when that is more
	epoch    int32 // of the last batch, -1: none
	prefix   [batch.HeaderSize]byte
	held     held // the last batch, about which the next one has something to say

	epochs    []segment.EpochEntry // of the checkpoint
	seen      []segment.EpochEntry // of the records
	producers producer.State       // as a server that reads all of it knows them
	strict    producer.State       // the same, but forgets all of them where records are missing
	snapshots []Snapshot           // that have not been met yet
	rebuilt   map[string][]byte    // snapshots that are no good: what they would hold
	odd       map[string]string    // small files that are no good, and why
	open      map[int64]int64      // by producer: where its transaction begins that has not ended yet; Kafka's
	lastEpoch epochRun
	lost      []badRange // offsets that are missing
	// Those that no snapshot has told the outcome of yet; lostTo does not belong to them.
	lostFrom, lostTo int64
	blind            bool // the segment before could not be read to its end
	untold           bool // something could not be read
}

// epochRun is the batches with the leader epoch that came last.
type epochRun struct {
	batches  int
	before   int32 // the epoch before it
	in       *judged
	position int64 // of the first of them
	offset   int64
}

// held is a batch that is whole.
type held struct {
	there    bool
	header   batch.Header
	position int64
	aborted  bool // it ends a transaction that was aborted
}

// judged is what there is to know about a segment.
type judged struct {
	seg       *Segment
	last      bool
	cut       bool  // it is to end before its first damage
	size      int64 // of the file
	end       int64 // where its last whole batch ends
	next      int64 // the offset behind that
	first     int64 // of its first batch, -1
	records   int64
	bad       []badRange
	fixes     []fix
	duplicate bool // the segment before it holds its offsets
	gaps      []Finding
	index     indexCheck
	seal      *segment.Sealed
	sealOdd   string // why the note is no good
	sum       uint32
	summed    bool
	cp        *segment.Checkpoint
	cpOdd     string
	cpMet     bool
	aborts    []abort    // transactions that end here, and were aborted
	txnWrong  string     // why their index is no good
	txnIndex  []TxnEntry // what it should hold, where that may have to be written
	endless   []TxnEntry // those of them whose marker is gone
}

// badRange is bytes of a log that are no batch which belongs there.
type badRange struct {
	from, to    int64
	first, last int64 // offsets that are lost with it; last < first: none
	tornEnd     bool  // as a crash leaves it
	before      int64 // records of the segment that lie before it
	records     int64 // intact records that go with it
	stranger    bool  // a whole batch that belongs elsewhere: no offset is lost with it
}

// fix is a field outside of the CRC that has to be put right.
type fix struct {
	position int64
	offset   int64 // -1: as it is
	epoch    int32 // -1: as it is
}

// say notes a finding.
func (j *judge) say(f Finding) {
	if f.Severity != Note && len(j.findings) >= maxFindings {
		j.dropped++
		return
	}
	f.Partition = j.part.Name()
	j.findings = append(j.findings, f)
	j.before = append(j.before, j.counts.Records)
}

// about makes a finding about a file.
func about(s Severity, file, what, found string) Finding {
	return Finding{Severity: s, File: file, Position: -1, FirstOffset: -1, LastOffset: -1, What: what, Found: found}
}

// unreadable notes a file that the file system does not give.
func (j *judge) unreadable(file string, err error) {
	if errors.Is(err, fs.ErrNotExist) && j.opts.Held {
		return // a running server has removed it since
	}
	j.untold = true
	j.say(about(Untold, file, SaidUnreadable, err.Error()))
}

// run looks at all of the partition.
func (j *judge) run() {
	j.next, j.epoch, j.lostFrom = -1, -1, math.MaxInt64
	j.odd, j.rebuilt, j.open = map[string]string{}, map[string][]byte{}, map[int64]int64{}
	if j.snapshots = j.part.Snapshots; j.one != "" {
		if _, small := j.oneSegment(); !small {
			j.snapshots = nil
		}
	}
	if j.one == "" {
		j.strangers()
	}
	j.readEpochs()
	start := j.readStart()
	j.start = start
	only, small := j.oneSegment()
	if small {
		j.readSnapshots()
		return
	}
	last := j.lastLog()
	for i := range j.part.Segments {
		s := &j.part.Segments[i]
		if j.one != "" && s.Base != only {
			continue
		}
		if !s.Log.There() {
			j.withoutLog(s)
			continue
		}
		if j.opts.stopped() {
			return
		}
		j.segment(s, i == last, start)
	}
	if j.opts.Held || j.blind || j.one != "" {
		return
	}
	j.meetSnapshots(max(j.next, 0))
	for _, s := range j.snapshots {
		f := about(Harm, s.Path, segment.SaidSnapshot, fmt.Sprintf("the log ends at offset %d, and went on to %d", j.next, s.Offset))
		if from := max(j.next, 0); len(j.segments) > 0 && s.Offset > max(from, j.claimed, j.start) {
			f.FirstOffset, f.LastOffset = max(from, j.claimed), s.Offset-1
			j.claimed = s.Offset
		}
		j.say(f)
		j.odd[s.Path] = "it lies behind the end of the log"
	}
	j.compareEpochs()
	if start > max(j.next, 0) && j.counts.Segments > 0 {
		f := about(Note, j.part.LogStart.Path, SaidStartBehind, fmt.Sprintf("it is %d, the log ends at %d", start, j.next))
		j.say(f)
	}
}

// oneSegment is the base offset of the segment that j.one is a file of; small tells that it is of none.
func (j *judge) oneSegment() (base int64, small bool) {
	if j.one == "" {
		return 0, false
	}
	base, suffix, ok := segment.ParseFile(filepath.Base(j.one))
	return base, !ok || suffix == "snapshot"
}

// readSnapshots looks whether the snapshots are whole, without a log to compare them with.
func (j *judge) readSnapshots() {
	for _, s := range j.snapshots {
		text, err := vfs.ReadFile(j.fs, s.Path)
		if err != nil {
			j.unreadable(s.Path, err)
		} else if _, err := producer.Decode(text); err != nil {
			j.say(about(Harm, s.Path, segment.SaidSnapshot, plain(err)))
		}
	}
}

// lastLog is the number of the segment that a server goes on with: the last whose first batches do not belong before it, as
// those of a copy under another name do.
func (j *judge) lastLog() int {
	all := j.part.Segments
	for i := len(all) - 1; i >= 0; i-- {
		if !all[i].Log.There() {
			continue
		}
		b, err := OpenBatches(j.fs, all[i].Log.Path, Options{Unordered: true, End: min(all[i].Log.Size, chunkBytes)})
		if err != nil {
			return i // which is told when it is read
		}
		// One of them alone may have been damaged where no CRC covers it.
		stranger := b.Next() && b.Header().BaseOffset < all[i].Base && (!b.Next() || b.Header().BaseOffset < all[i].Base)
		b.Close() // it was only read
		if !stranger {
			return i
		}
	}
	return -1
}

// finish gives the findings, when all records have been counted.
func (j *judge) finish() []Finding {
	for i := range j.findings {
		if j.findings[i].Position >= 0 {
			j.findings[i].After = j.counts.Records - j.before[i]
		}
	}
	if j.dropped > 0 {
		f := about(Harm, j.part.Path, SaidMoreFindings, count(j.dropped, "finding"))
		f.Partition = j.part.Name()
		j.findings = append(j.findings, f)
	}
	return j.findings
}

// plain is an error without the name of the package that it comes from.
func plain(err error) string {
	text := err.Error()
	for _, name := range []string{"batch: ", "producer: ", "segment: "} {
		text = strings.TrimPrefix(text, name)
	}
	return text
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// begin makes ready for a segment; false when it is to be left out.
func (j *judge) begin(s *Segment, last bool, start int64) bool {
	j.now = &judged{seg: s, last: last, first: -1, end: 0, summed: true}
	j.segments = append(j.segments, j.now)
	j.counts.Segments++
	if j.blind || j.one != "" {
		j.lose(j.next, s.Base-1)
		j.next, j.claimed, j.blind = s.Base, 0, false
		return true
	}
	first := j.next < 0
	if first && j.part.Layout == Millrace && s.Base > max(start, 0) {
		f := about(Harm, s.Log.Path, SaidFrontGone, "")
		f.FirstOffset, f.LastOffset = max(start, 0), s.Base-1
		j.say(f)
	}
	if first {
		j.next = s.Base
	}
	switch want := max(j.next, j.claimed); {
	case s.Base < want && !first:
		f := about(Harm, s.Log.Path, segment.SaidDuplicate, fmt.Sprintf("it begins with offset %d, the one before it ends with %d", s.Base, want-1))
		j.say(f)
		j.now.duplicate = true
		return false
	case s.Base > want && !first && j.part.Layout == Millrace:
		f := about(Harm, j.segments[len(j.segments)-2].seg.Log.Path, segment.SaidGap, "the next segment is "+filepath.Base(s.Log.Path))
		f.FirstOffset, f.LastOffset = want, s.Base-1
		j.say(f)
		j.lose(j.next, s.Base-1)
	case s.Base > j.next:
		j.lose(j.next, s.Base-1)
	}
	j.next, j.claimed = s.Base, 0
	return true
}

// lose notes offsets that are missing, and forgets what the producers were about to send.
func (j *judge) lose(first, last int64) {
	j.strict.Clear()
	if last >= first {
		j.lostFrom, j.lostTo = min(j.lostFrom, first), max(j.lostTo, last+1)
	}
	if n := len(j.lost); n > 0 && j.lost[n-1].last+1 >= first {
		j.lost[n-1].last = max(j.lost[n-1].last, last)
	} else if last >= first {
		j.lost = append(j.lost, badRange{first: first, last: last})
	}
}

// segment looks at one segment.
func (j *judge) segment(s *Segment, last bool, start int64) {
	if !j.begin(s, last, start) {
		j.opts.Progress.add(s.Log.Size)
		return
	}
	now := j.now
	j.readSeal()
	j.readCheckpoint()
	j.readIndexes()
	o := Options{Structure: j.opts.Fast, Unordered: true}
	if now.seal != nil && !last {
		o.End = now.seal.Length
	}
	b, err := OpenBatches(j.fs, s.Log.Path, o)
	if err != nil {
		j.unreadable(s.Log.Path, err)
		j.blind = true
		return
	}
	defer b.Close()
	now.size = b.Size()
	told := int64(0)
	for {
		for b.Next() {
			if done := b.Position() - told; done > 1<<20 {
				j.opts.Progress.add(done)
				told += done
				if j.opts.stopped() {
					return
				}
			}
			j.batch(b)
		}
		if b.Err() == nil {
			break
		}
		var damage *Damage
		if !errors.As(b.Err(), &damage) {
			j.unreadable(s.Log.Path, b.Err())
			j.settle(-1, false)
			j.blind = true
			return
		}
		if b.least = j.next; j.held.there { // whose own offset may be wrong
			b.least += int64(j.held.header.LastOffsetDelta) + 1
		}
		if !b.Resume() {
			j.settle(-1, false)
			j.badEnd(damage, b)
			break
		}
		j.badMiddle(damage, b)
		b.least = -1 << 62
	}
	j.opts.Progress.add(max(0, s.Log.Size-told))
	j.settle(j.knownNext(), true)
	if held := now.end; held < now.size && len(now.bad) == 0 {
		now.size = held + b.Padding()
	}
	j.endSegment(b.Position())
}

// knownNext is where the offsets go on behind the segment, as far as something other than its last batch says so; -1: nobody knows.
func (j *judge) knownNext() int64 {
	now := j.now
	if !j.held.there {
		return -1
	}
	end := j.held.position + int64(j.held.header.Size())
	switch {
	case now.seal != nil && now.seal.Length == end:
		return now.seal.Next
	case now.cp != nil && now.cp.Position == end:
		return now.cp.Next
	case !now.last:
		for i := range j.part.Segments {
			base := j.part.Segments[i].Base
			if base <= now.seg.Base {
				continue
			}
			// Compaction leaves holes in front of a segment, but nothing that reaches into it.
			if reaches := j.held.header.NextOffset() > base && j.next <= base; j.part.Layout == Millrace || reaches {
				return base
			}
			break
		}
	}
	return -1
}
