package inspect

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/producer"
	"github.com/millrace/millrace/segment/vfs"
)

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
