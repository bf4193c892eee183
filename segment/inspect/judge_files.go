package inspect

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/vfs"
)

// strangers notes what has no name that a server gives.
func (j *judge) strangers() {
	for _, f := range j.part.Foreign {
		j.say(about(Harm, f.Path, segment.SaidForeign, ""))
	}
	for _, path := range j.part.Folders {
		j.say(about(Harm, path, segment.SaidForeign, "a folder"))
	}
	if !j.opts.Held {
		for _, f := range j.part.Leftovers {
			j.say(about(Note, f.Path, SaidLeftover, ""))
		}
	}
}

// withoutLog notes the files of a segment without the one that counts.
func (j *judge) withoutLog(s *Segment) {
	if j.opts.Held {
		return
	}
	for _, f := range []File{s.Index, s.TimeIndex, s.TxnIndex, s.Sealed, s.Checkpoint} {
		if f.There() {
			j.say(about(Harm, f.Path, SaidWithoutLog, ""))
			j.odd[f.Path] = "there is no log file with it"
		}
	}
}

// readStart reads the log start offset, -1 when there is none.
func (j *judge) readStart() int64 {
	if !j.part.LogStart.There() {
		return -1
	}
	text, err := vfs.ReadFile(j.fs, j.part.LogStart.Path)
	if err != nil {
		j.unreadable(j.part.LogStart.Path, err)
		return -1
	}
	start, err := segment.DecodeLogStart(text)
	switch {
	case errors.Is(err, segment.ErrFormat):
		j.say(about(Untold, j.part.LogStart.Path, SaidUnreadable, err.Error()))
		return -1
	case err != nil:
		j.say(about(Harm, j.part.LogStart.Path, segment.SaidLogStart, err.Error()))
		j.odd[j.part.LogStart.Path] = err.Error()
		return -1
	}
	return start
}

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
	case now.cp != nil && !now.cpMet && now.cp.Position > 0 && len(now.bad) == 0:
		now.cpOdd = fmt.Sprintf("no batch ends at byte %d", now.cp.Position)
	case now.cpOdd != "" && len(now.fixes) > 0 && now.cp != nil:
		return // it tells of what the segment was before, and is right
	}
	if now.cpOdd != "" {
		j.say(about(Harm, now.seg.Checkpoint.Path, segment.SaidCheckpoint, now.cpOdd))
	}
}
