package segment

const (
	// aheads is how many segments may have something read ahead, about oldBytes each.
	aheads = 8
	// aheadReaders is how many goroutines read ahead.
	aheadReaders = 2
)

// ahead is what a reader that goes through a segment will want next: read and
// checked while it is busy with what it got. Whoever takes it out of
// segmentFile.ahead owns it.
type ahead struct {
	log      *Log
	segment  *segmentFile
	offset   int64 // what it begins with
	position int64
	slot     int // of Dir.aheadSlots; another may have it by now
	got      old
	done     chan struct{} // closed when the reading has ended, and got is set
}

// readAhead has the batches from an offset at a position on fetched, unless something
// else of the segment is being fetched. It does not block. What nobody came for makes room.
func (l *Log) readAhead(s *segmentFile, offset, position int64) {
	if s.ahead.Load() != nil || s.oldEnd()-position < leastDirectRead {
		return
	}
	d := l.dir
	a := &ahead{log: l, segment: s, offset: offset, position: position, done: make(chan struct{})}
	d.aheadMu.Lock()
	a.slot = d.aheadNext % aheads
	before := d.aheadSlots[a.slot]
	if before != nil && !before.over() { // the disk does not keep up
		d.aheadMu.Unlock()
		return
	}
	d.aheadSlots[a.slot] = a
	d.aheadNext++
	d.aheadMu.Unlock()
	if before != nil && before.segment.ahead.CompareAndSwap(before, nil) {
		before.got.drop()
	}
	if !s.ahead.CompareAndSwap(nil, a) {
		close(a.done)
		return
	}
	select {
	case d.aheadWork <- a:
	default:
		close(a.done) // nothing was read: whoever takes it reads by himself
	}
}

// oldEnd is where what must be read from the file ends.
func (s *segmentFile) oldEnd() int64 {
	size := s.size.Load()
	if row := s.tailChunks(); len(row) > 0 {
		return min(size, row[0].at)
	}
	return size
}

func (a *ahead) over() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

// runAhead is a goroutine that reads ahead. It ends when the directory is closed.
func (d *Dir) runAhead() {
	for {
		select {
		case a := <-d.aheadWork:
			a.fetch()
			close(a.done)
		case <-d.stop:
			return
		}
	}
}

// fetch reads and checks. Where that fails nothing is got, and the reader will meet why.
func (a *ahead) fetch() {
	n := min(a.segment.oldEnd()-a.position, oldBytes)
	if n < leastDirectRead {
		return
	}
	end := a.log.LogEndOffset()
	if segments := *a.log.segments.Load(); len(segments) > 0 {
		if i := segmentOf(segments, a.segment.base) + 1; i < len(segments) && segments[i-1] == a.segment {
			end = min(end, segments[i].base)
		}
	}
	want := appetite{from: a.offset, limit: end, most: int(n), least: a.offset, end: end}
	o, got, err := a.log.readChecked(a.segment, a.position, n, &want)
	if err != nil || got.n == 0 {
		o.drop()
		return
	}
	o.data = o.data[:got.n]
	a.got = o
}

// takeAhead takes what was read ahead from an offset on, nil when there is nothing.
func (l *Log) takeAhead(s *segmentFile, offset int64) *ahead {
	a := s.ahead.Load()
	if a == nil || a.offset != offset || !s.ahead.CompareAndSwap(a, nil) {
		return nil
	}
	select {
	case <-a.done:
	case <-l.dir.stop:
		return nil
	}
	if len(a.got.data) == 0 {
		return nil
	}
	return a
}

// viewAhead adds what is wanted of a, which the caller owns, and has the next read. What is left is
// put back as another ahead: somebody may be about to take a, for the offset that he has seen in it.
func (l *Log) viewAhead(a *ahead, v *View, want appetite) int {
	got, rest := whole(a.got.data, &want), a
	if got.n > 0 {
		a.got.hold()
		a.got.keep(v, got.n)
		v.Records += got.records
		rest = &ahead{log: a.log, segment: a.segment, offset: got.next, position: a.position + int64(got.n), slot: a.slot, got: a.got, done: a.done}
		rest.got.data = a.got.data[got.n:]
		a.segment.leave(rest.offset, rest.position)
	}
	if len(rest.got.data) == 0 || !l.dir.putBack(a, rest) {
		rest.got.drop()
		l.readAhead(a.segment, rest.offset, rest.position)
	}
	return got.n
}

// putBack puts back what is left of a, which was taken. Without a slot nothing would
// ever make it give way.
func (d *Dir) putBack(a, rest *ahead) bool {
	d.aheadMu.Lock()
	defer d.aheadMu.Unlock()
	if d.aheadSlots[a.slot] != a || !a.segment.ahead.CompareAndSwap(nil, rest) {
		return false
	}
	d.aheadSlots[a.slot] = rest
	return true
}
