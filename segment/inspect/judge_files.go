package inspect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/producer"
	"github.com/millrace/millrace/segment/vfs"
)

// readSeal reads the note of what the segment held when it was left.
func (j *judge) readSeal() {
	f := j.now.seg.Sealed
	if !f.There() {
		return
	}
	line, err := vfs.ReadFile(j.fs, f.Path)
	if err != nil {
		j.unreadable(f.Path, err)
		return
	}
	x, err := segment.DecodeSealed(line)
	if err != nil {
		j.now.sealOdd = err.Error()
		j.say(about(Harm, f.Path, segment.SaidSealDamaged, err.Error()))
		return
	}
	j.now.seal = &x
}

// readCheckpoint reads what the last segment held at some time.
func (j *judge) readCheckpoint() {
	f := j.now.seg.Checkpoint
	if !f.There() {
		return
	}
	if !j.now.last {
		j.say(about(Note, f.Path, SaidLeftover, ""))
		return
	}
	b, err := vfs.ReadFile(j.fs, f.Path)
	if err != nil {
		j.unreadable(f.Path, err)
		return
	}
	cp, err := segment.DecodeCheckpoint(b)
	if err == nil && cp.Base != j.now.seg.Base {
		err = fmt.Errorf("%w: checkpoint of segment %d", segment.ErrDamaged, cp.Base)
	}
	if err != nil {
		j.now.cpOdd = plain(err)
		return
	}
	j.now.cp = cp
}

// endSegment compares the segment as a whole with what was noted about it. walked is where its batches end.
func (j *judge) endSegment(walked int64) {
	now := j.now
	now.next = j.next
	size := now.seg.Log.Size
	if x := now.seal; x != nil && !now.last {
		j.claimed = max(j.claimed, x.Next)
		switch {
		case size > x.Length:
			f := about(Harm, now.seg.Log.Path, segment.SaidSealLonger, fmt.Sprintf("it has %d bytes, and had %d", size, x.Length))
			f.Position, f.Bytes = x.Length, size-x.Length
			j.say(f)
		case size < x.Length && (len(now.bad) == 0 || now.bad[len(now.bad)-1].to < size):
			f := about(Harm, now.seg.Log.Path, segment.SaidSealShorter, fmt.Sprintf("it has %d bytes, and had %d", size, x.Length))
			f.Position, f.FirstOffset, f.LastOffset = size, j.next, x.Next-1
			j.say(f)
			j.lose(f.FirstOffset, f.LastOffset)
		case size == x.Length && now.summed && now.sum != x.Sum && len(now.fixes) == 0:
			j.say(about(Harm, now.seg.Log.Path, SaidSumWrong, fmt.Sprintf("its CRC is %08x, and was %08x", now.sum, x.Sum)))
			now.sealOdd = "the segment has another CRC"
		}
	}
	j.endCheckpoint()
	if j.asItWas() {
		now.gaps = nil
	}
	for _, f := range now.gaps {
		j.say(f)
	}
	if x := &now.index; !x.none {
		if x.finish(!now.last && walked > 0, now.bad); x.wrong != "" {
			file := now.seg.Index.Path
			if file == "" {
				file = strings.TrimSuffix(now.seg.Log.Path, ".log") + ".index"
			}
			j.say(about(Harm, file, segment.SaidIndexes, x.wrong))
		}
	}
	j.judgeAborts()
}

// asItWas tells whether a checksum says that the segment is what a server wrote, holes between its offsets and all.
func (j *judge) asItWas() bool {
	now := j.now
	if x := now.seal; x != nil && now.summed && x.Length == now.end && x.Sum == now.sum {
		return true
	}
	return now.cp != nil && now.cpMet && now.cpOdd == "" && now.cp.Summed && now.summed &&
		!slices.ContainsFunc(now.gaps, func(f Finding) bool { return f.Position >= now.cp.Position })
}

func (j *judge) endCheckpoint() {
	now := j.now
	if j.opts.Held || !now.seg.Checkpoint.There() || !now.last {
		return
	}
	switch {
	case now.cp != nil && now.cp.Position > now.seg.Log.Size:
		now.cpOdd = fmt.Sprintf("it is about %d bytes", now.cp.Position)
		f := about(Harm, now.seg.Log.Path, segment.SaidShortened, fmt.Sprintf("it has %d bytes, and had %d", now.seg.Log.Size, now.cp.Position))
		if f.Position = now.end; now.cp.Next > j.next {
			f.FirstOffset, f.LastOffset = j.next, now.cp.Next-1
			j.claimed = max(j.claimed, now.cp.Next)
		}
		j.say(f)
		return
	case now.cp != nil && !now.cpMet && len(now.bad) == 0:
		now.cpOdd = fmt.Sprintf("no batch ends at byte %d", now.cp.Position)
	case now.cpOdd != "" && len(now.fixes) > 0 && now.cp != nil:
		return // it tells of what the segment was before, and is right
	}
	if now.cpOdd != "" {
		j.say(about(Harm, now.seg.Checkpoint.Path, segment.SaidCheckpoint, now.cpOdd))
	}
}

// readEpochs reads the leader epochs that the partition's checkpoint knows.
func (j *judge) readEpochs() {
	f := j.part.Epochs
	if !f.There() {
		return
	}
	text, err := vfs.ReadFile(j.fs, f.Path)
	if err != nil {
		j.unreadable(f.Path, err)
		return
	}
	if j.epochs, err = segment.DecodeEpochs(text); err != nil {
		j.say(about(Harm, f.Path, segment.SaidEpochs, plain(err)))
		j.odd[f.Path] = err.Error()
	}
}

// epochAt is the epoch under which an offset was appended, as a list of them says; -1 when it does not.
func epochAt(list []segment.EpochEntry, offset int64) int32 {
	for _, e := range slices.Backward(list) {
		if e.Start <= offset {
			return e.Epoch
		}
	}
	return -1
}

// judgeEpoch compares a batch's leader epoch with those before it, and puts it right in h. Epochs rise; one
// batch between others that differs from both is wrong itself.
func (j *judge) judgeEpoch(h *batch.Header, position int64) {
	run := &j.lastEpoch
	epoch := h.PartitionLeaderEpoch
	switch {
	case epoch < 0:
		return
	case epoch == j.epoch:
		run.batches++
		return
	case epoch > j.epoch:
		*run = epochRun{batches: 1, before: j.epoch, in: j.now, position: position, offset: h.BaseOffset}
		j.epoch = epoch
		j.seen = append(j.seen, segment.EpochEntry{Epoch: epoch, Start: h.BaseOffset})
	case run.batches == 1 && epoch >= run.before:
		j.blameEpoch(run.in, run.position, run.offset, j.epoch, epoch)
		j.seen = j.seen[:len(j.seen)-1]
		if j.epoch = epoch; epoch > run.before {
			j.seen = append(j.seen, segment.EpochEntry{Epoch: epoch, Start: run.offset})
		}
		run.batches = 2
	default:
		j.blameEpoch(j.now, position, h.BaseOffset, epoch, j.epoch)
		h.PartitionLeaderEpoch = j.epoch
		run.batches++
	}
}

func (j *judge) blameEpoch(in *judged, position, offset int64, epoch, want int32) {
	f := about(Harm, in.seg.Log.Path, SaidEpochWrong, fmt.Sprintf("it says %d, and stands where %d belongs", epoch, want))
	f.Position, f.FirstOffset, f.LastOffset = position, offset, offset
	j.say(f)
	in.fix(fix{position: position, offset: -1, epoch: want})
}

// compareEpochs compares the epochs of the records with those of the checkpoint, when all batches were seen.
func (j *judge) compareEpochs() {
	f := j.part.Epochs
	if !f.There() || j.odd[f.Path] != "" || len(j.seen) == 0 || len(j.segments) == 0 {
		return
	}
	last := j.segments[len(j.segments)-1]
	for i := len(j.segments) - 1; i > 0 && last.duplicate; i-- {
		last = j.segments[i-1]
	}
	run := &j.lastEpoch
	if n := len(j.seen); n > 1 && run.batches == 1 && run.before >= 0 && epochAt(j.epochs, run.offset) == run.before && last.cpOdd != "" {
		// The checksum knows of a change, and this is one.
		j.blameEpoch(run.in, run.position, run.offset, j.epoch, run.before)
		j.seen = j.seen[:n-1]
	}
	first := j.seen[0].Start
	wrong := ""
	for _, e := range j.seen {
		known := epochAt(j.epochs, e.Start)
		newer := e.Start >= last.seg.Base && !j.clean && (len(j.epochs) == 0 || e.Epoch > j.epochs[len(j.epochs)-1].Epoch)
		cut := known < 0 && j.part.Layout == Kafka // which forgets epochs that ended before the log start offset
		if known != e.Epoch && !newer && !cut {
			wrong = fmt.Sprintf("offset %d is of epoch %d, not of %d", e.Start, e.Epoch, known)
			break
		}
	}
	if wrong == "" && j.part.Layout == Millrace {
		for _, e := range j.epochs {
			if e.Start >= j.next {
				wrong = fmt.Sprintf("epoch %d begins at offset %d, the log ends at %d", e.Epoch, e.Start, j.next)
				break
			}
			if e.Start >= first && !j.isLost(e.Start) && epochAt(j.seen, e.Start) != e.Epoch {
				wrong = fmt.Sprintf("offset %d is of epoch %d, not of %d", e.Start, epochAt(j.seen, e.Start), e.Epoch)
				break
			}
		}
	}
	if wrong != "" {
		j.say(about(Harm, f.Path, SaidEpochsOdd, wrong))
		j.odd[f.Path] = wrong
	}
}

// isLost tells whether an offset is missing.
func (j *judge) isLost(offset int64) bool {
	return slices.ContainsFunc(j.lost, func(r badRange) bool { return r.first <= offset && offset <= r.last })
}

// allEpochs is what the leader epoch checkpoint should hold.
func (j *judge) allEpochs() []segment.EpochEntry {
	var list []segment.EpochEntry
	first := int64(math.MaxInt64)
	if len(j.seen) > 0 {
		first = j.seen[0].Start
	}
	if j.odd[j.part.Epochs.Path] == "" {
		for _, e := range j.epochs {
			if e.Start < first && (len(j.seen) == 0 || e.Epoch < j.seen[0].Epoch) {
				list = append(list, e)
			}
		}
		// The first batch that is there need not be the first of its epoch.
		if n := len(j.seen); n > 0 && epochAt(j.epochs, first) == j.seen[0].Epoch {
			for _, e := range j.epochs {
				if e.Epoch == j.seen[0].Epoch {
					return append(append(list, e), j.seen[1:]...)
				}
			}
		}
	}
	return append(list, j.seen...)
}

// maxSequences is how many findings about sequences one partition gives: one gap makes all that follows look wrong.
const maxSequences = 20

// judgeSequence compares a batch with what its producer has sent before.
func (j *judge) judgeSequence(h batch.Header, position int64) {
	if j.part.Layout == Kafka && h.BaseSequence < 0 || j.sequences >= maxSequences {
		return
	}
	dup, err := j.strict.Check(h, !h.IsControl() && h.BaseSequence >= 0)
	found := ""
	switch {
	case errors.Is(err, producer.ErrInvalidProducerEpoch), errors.Is(err, producer.ErrOutOfOrderSequence):
		found = plain(err)
	case dup != nil:
		found = fmt.Sprintf("producer %d sends sequences %d to %d twice, at offset %d and here", h.ProducerID, h.BaseSequence, h.LastSequence(), dup.FirstOffset())
	default:
		return
	}
	j.sequences++
	f := about(Harm, j.now.seg.Log.Path, SaidSequence, found)
	f.Position, f.Bytes = position, int64(h.Size())
	j.say(f)
}

// meetSnapshots compares the producers with the snapshots of all offsets up to one, and goes on with what
// those know.
func (j *judge) meetSnapshots(offset int64) {
	for len(j.snapshots) > 0 && j.snapshots[0].Offset <= offset {
		s := j.snapshots[0]
		j.snapshots = j.snapshots[1:]
		text, err := vfs.ReadFile(j.fs, s.Path)
		if err != nil {
			j.unreadable(s.Path, err)
			continue
		}
		state, err := producer.Decode(text)
		if err != nil {
			j.say(about(Harm, s.Path, segment.SaidSnapshot, plain(err)))
			j.odd[s.Path], j.rebuilt[s.Path] = err.Error(), j.producers.Encode()
			continue
		}
		if found := j.compareProducers(state); found != "" && s.Offset <= j.lostFrom {
			j.say(about(Harm, s.Path, SaidSnapshotOdd, found))
			j.odd[s.Path], j.rebuilt[s.Path] = found, j.producers.Encode()
			continue
		}
		j.producers = *state
		if s.Offset >= j.lostTo {
			j.lostFrom, j.lostTo = math.MaxInt64, 0
		}
	}
}

// compareProducers says what a snapshot knows otherwise than the records, "" when nothing.
func (j *judge) compareProducers(state *producer.State) string {
	if j.producers.Len() == 0 {
		return ""
	}
	known := make(map[int64]producer.Info, state.Len())
	for _, p := range state.Active() {
		known[p.ProducerID] = p
	}
	for _, p := range j.producers.Active() {
		if s, ok := known[p.ProducerID]; ok && (s.ProducerEpoch != p.ProducerEpoch || s.LastSequence != p.LastSequence && p.LastSequence >= 0 && s.LastSequence >= 0) {
			return fmt.Sprintf("of producer %d it knows epoch %d and sequence %d, the records end with %d and %d",
				p.ProducerID, s.ProducerEpoch, s.LastSequence, p.ProducerEpoch, p.LastSequence)
		}
	}
	return ""
}

// txnEntry is the size of an entry of Kafka's index of aborted transactions: version i16, then i64 each producer id, first offset,
// last offset, last stable offset.
const txnEntry = 34

// judgeAborts compares the index of aborted transactions with the markers that abort some.
func (j *judge) judgeAborts() {
	now := j.now
	if j.part.Layout != Kafka || j.opts.Held && now.last || len(now.bad) > 0 {
		return
	}
	var listed []abort
	if f := now.seg.TxnIndex; f.There() {
		b, err := vfs.ReadFile(j.fs, f.Path)
		if err != nil {
			j.unreadable(f.Path, err)
			return
		}
		if len(b)%txnEntry != 0 {
			j.say(about(Harm, f.Path, SaidTxnIndex, fmt.Sprintf("%d bytes are no whole entries", len(b))))
			return
		}
		for ; len(b) > 0; b = b[txnEntry:] {
			listed = append(listed, abort{int64(binary.BigEndian.Uint64(b[2:])), int64(binary.BigEndian.Uint64(b[18:]))})
		}
	}
	if !slices.Equal(listed, now.aborts) {
		j.say(about(Harm, strings.TrimSuffix(now.seg.Log.Path, ".log")+".txnindex", SaidTxnIndex,
			fmt.Sprintf("it lists %d, the records have %d", len(listed), len(now.aborts))))
	}
}
