package segment

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/millrace/millrace/segment/batch"
)

// View is a row of whole batches, held in memory until Release: those of the tail
// where they lie, older ones in the buffers that they were read into, so that they
// go to the network without a copy. The zero View is empty and ready for use, and
// so is one after Release. For one goroutine at a time.
type View struct {
	// Pieces are the batches back to back; a batch may go over several pieces. They
	// must not be changed.
	Pieces [][]byte
	// Records is how many records the batches hold.
	Records int64

	chunks []*chunk
	bufs   []*readBuffer
}

// Release gives the memory back: nobody may look at the pieces after that. It does not block.
func (v *View) Release() {
	for _, c := range v.chunks {
		c.release()
	}
	for _, b := range v.bufs {
		b.release()
	}
	clear(v.chunks)
	clear(v.bufs)
	clear(v.Pieces)
	v.Pieces, v.Records, v.chunks, v.bufs = v.Pieces[:0], 0, v.chunks[:0], v.bufs[:0]
}

// AppendTo appends a copy of the batches to dst.
func (v *View) AppendTo(dst []byte) []byte {
	for _, p := range v.Pieces {
		dst = append(dst, p...)
	}
	return dst
}

// backTo takes out what was added after before was noted, a copy of v.
func (v *View) backTo(before View) {
	added := View{chunks: v.chunks[len(before.chunks):], bufs: v.bufs[len(before.bufs):]}
	added.Release()
	*v = View{Pieces: v.Pieces[:len(before.Pieces)], Records: before.Records, chunks: v.chunks[:len(before.chunks)], bufs: v.bufs[:len(before.bufs)]}
}

// mostHeld is about how many times its bytes a view holds of memory at most: what is
// a smaller part of it is copied. Who is sent it is charged for the bytes, and may be slow.
const mostHeld = 8

// appetite is what a reader takes.
type appetite struct {
	from, limit int64 // offsets: from the batch that holds from, to those that end at limit
	most        int   // bytes
	oneAtLeast  bool  // the first batch, whatever its size
	least       int64 // offset that the first batch may begin with
	end         int64 // offset where the segment ends, or did a moment ago
}

// row is a number of whole batches that somebody wants.
type row struct {
	n       int   // bytes
	next    int64 // the offset behind them
	records int64
	first   int // size of the first batch, when there is none since it was too large
}

// take adds a batch, unless it is not wanted.
func (r *row) take(want *appetite, h *batch.Header) bool {
	if h.NextOffset() > want.limit {
		return false
	}
	if r.n+h.Size() > want.most && !(r.n == 0 && want.oneAtLeast) {
		if r.n == 0 {
			r.first = h.Size()
		}
		return false
	}
	r.n += h.Size()
	r.next = h.NextOffset()
	r.records += int64(h.RecordCount)
	return true
}

// View adds to v the whole batches from the one that holds offset from up
// to (not including) the first that reaches limit, as long as they fit in
// maxBytes; with oneAtLeast the first batch comes even if it alone is larger. It
// tells how many bytes these are. There may be fewer than maxBytes with more behind
// them: they come from one segment, and about a MiB at a time where they are not in memory.
//
// Every batch from the disk is checked: what is read is what was written, or a
// *CorruptError. ErrOffsetOutOfRange when from lies outside the log. At the end
// of the log nothing is added. Blocks on the disk.
func (l *Log) View(v *View, from, limit int64, maxBytes int, oneAtLeast bool) (int, error) {
	for {
		cuts, end := l.cuts.Load(), l.LogEndOffset()
		if from < l.LogStartOffset() || from > end {
			return 0, fmt.Errorf("%w: %d, log holds %d to %d", ErrOffsetOutOfRange, from, l.LogStartOffset(), end)
		}
		want := appetite{from: from, limit: min(limit, end), most: maxBytes, oneAtLeast: oneAtLeast, end: end}
		if from >= want.limit || maxBytes <= 0 && !oneAtLeast {
			return 0, nil
		}
		before := *v
		n, err := l.viewSegments(v, want)
		if from >= l.LogStartOffset() && cuts == l.cuts.Load() {
			return n, err
		}
		// What was asked for was deleted meanwhile: what was found may lie behind it. Or it was cut.
		v.backTo(before)
	}
}

// Read is View, with the batches appended to dst.
func (l *Log) Read(dst []byte, from, limit int64, maxBytes int, oneAtLeast bool) ([]byte, error) {
	var v View
	defer v.Release()
	_, err := l.View(&v, from, limit, maxBytes, oneAtLeast)
	return v.AppendTo(dst), err
}

func (l *Log) viewSegments(v *View, want appetite) (int, error) {
	segments := *l.segments.Load()
	for i := segmentOf(segments, want.from); i < len(segments) && segments[i].base < want.limit; i++ {
		here := want
		if i+1 < len(segments) {
			here.end = min(want.end, segments[i+1].base)
			here.limit = min(want.limit, here.end)
		}
		n, found, err := l.viewSegment(segments[i], v, here)
		if err != nil || found {
			return n, err
		}
	}
	return 0, nil
}

// bookmark is where in a segment a reader has ended: most go on there.
type bookmark struct{ offset, position int64 }

// viewSegment tells too whether the segment has a batch at or behind want.from, be it
// given or not: only when it has none may the answer come from the next segment.
func (l *Log) viewSegment(s *segmentFile, v *View, want appetite) (n int, found bool, err error) {
	if a := l.takeAhead(s, want.from); a != nil {
		return l.viewAhead(a, v, want), true, nil
	}
	size := s.size.Load()
	position, goesOn, err := l.find(s, &want, size)
	if err != nil || position == size {
		return 0, false, err
	}
	var got row
	for {
		end := size
		if tail := s.tailChunks(); len(tail) > 0 {
			if position >= tail[0].at {
				if got, err = l.viewTail(s, v, tail, position, size, &want); err == errEvicted {
					continue
				}
				break
			}
			end = min(end, tail[0].at)
		}
		got, err = l.viewOld(s, v, position, end, size, &want)
		break
	}
	if got.n == 0 {
		return 0, true, err
	}
	v.Records += got.records
	s.leave(got.next, position+int64(got.n))
	if goesOn {
		l.readAhead(s, got.next, position+int64(got.n))
	}
	return got.n, true, nil
}

// leave notes where a reader has ended.
func (s *segmentFile) leave(offset, position int64) {
	s.marks[uint64(offset)%uint64(len(s.marks))].Store(&bookmark{offset, position})
}

// find is seek, for those who go on where a reader has ended without a look at the file.
func (l *Log) find(s *segmentFile, want *appetite, size int64) (position int64, goesOn bool, err error) {
	offset := want.from
	want.least = offset
	if b := s.marks[uint64(offset)%uint64(len(s.marks))].Load(); b != nil && b.offset == offset && b.position <= size {
		return b.position, true, nil
	}
	r := l.dir.reader(s)
	defer r.close()
	first, position, err := l.seek(s, &r, offset, size)
	want.least = first.BaseOffset
	return position, offset == s.base, err
}

// errEvicted says that what was sought in the tail has left it, and so is in the file.
var errEvicted = errors.New("segment: no longer in memory")

// viewTail adds what the tail of s has from position on.
func (l *Log) viewTail(s *segmentFile, v *View, tail []*chunk, position, size int64, want *appetite) (row, error) {
	got := row{next: want.from}
	for at := position; at < size; at = position + int64(got.n) {
		var b [batch.HeaderSize]byte
		if copyChunks(tail, b[:], at) < len(b) {
			return row{}, errEvicted
		}
		h, err := batch.ReadHeader(b[:])
		if err == nil && at+int64(h.Size()) > size {
			err = fmt.Errorf("%w: batch of %d bytes", batch.ErrTruncated, h.Size())
		}
		if err != nil {
			if err = l.corrupt(s, at, got.next, err); got.n == 0 {
				return row{}, err
			}
			break
		}
		if !got.take(want, &h) {
			break
		}
	}
	if 0 < got.n && got.n < chunkSize/mostHeld {
		b := make([]byte, got.n)
		if copyChunks(tail, b, position) < len(b) {
			return row{}, errEvicted
		}
		v.Pieces = append(v.Pieces, b)
		return got, nil
	}
	pieces, chunks := len(v.Pieces), len(v.chunks)
	for at, end := position, position+int64(got.n); at < end; {
		c := tail[holding(tail, at)]
		if !c.hold() {
			for _, c := range v.chunks[chunks:] {
				c.release()
			}
			v.Pieces, v.chunks = v.Pieces[:pieces], v.chunks[:chunks]
			return row{}, errEvicted
		}
		v.chunks = append(v.chunks, c)
		piece := c.mem[at-c.at : min(end, c.end())-c.at]
		v.Pieces = append(v.Pieces, piece[:len(piece):len(piece)])
		at += int64(len(piece))
	}
	return got, nil
}

// viewOld adds what the file has from position on. Only a batch that goes on in the
// tail, behind end, is put together from both.
func (l *Log) viewOld(s *segmentFile, v *View, position, end, size int64, want *appetite) (row, error) {
	if end < size && end-position < batch.HeaderSize {
		return l.viewAcross(s, v, position, size, want)
	}
	ask := int64(max(min(want.most, oldBytes), batch.HeaderSize))
	o, got, err := l.readChecked(s, position, min(ask, end-position), want)
	if err == nil && got.n == 0 && got.first > 0 && (want.oneAtLeast || got.first <= want.most) { // it is larger than what was read
		o.drop()
		if position+int64(got.first) > end {
			return l.viewAcross(s, v, position, size, want)
		}
		one := appetite{from: want.from, limit: want.limit, most: got.first, least: want.least, end: want.end}
		o, got, err = l.readChecked(s, position, int64(got.first), &one)
	}
	if err != nil || got.n == 0 {
		o.drop()
		return row{}, err
	}
	o.keep(v, got.n)
	return got, nil
}

// old is a piece of a file in memory, in a buffer of the pool or, when it is small, of the collector.
type old struct {
	buf  *readBuffer
	data []byte
}

// keep gives the first n bytes to v, and the buffer with them.
func (o *old) keep(v *View, n int) {
	held := cap(o.data)
	if o.buf != nil {
		held = len(o.buf.mem)
	}
	if n < held/mostHeld {
		v.Pieces = append(v.Pieces, bytes.Clone(o.data[:n]))
		o.drop()
		return
	}
	v.Pieces = append(v.Pieces, o.data[:n:n])
	if o.buf != nil {
		v.bufs = append(v.bufs, o.buf)
	}
}

func (o *old) hold() {
	if o.buf != nil {
		o.buf.hold()
	}
}

func (o *old) drop() {
	if o.buf != nil {
		o.buf.release()
	}
}

// readChecked reads n bytes and checks the batches in them. Damage in the first batch
// is an error; behind good ones it only ends them, and meets the next read. So does what
// the disk cannot read.
func (l *Log) readChecked(s *segmentFile, position, n int64, want *appetite) (old, row, error) {
	short := n
	if x := s.index.Load(); x != nil && n >= leastDirectRead {
		short = x.lastStart(position, n) // what came in part would be read again
	}
	direct := l.dir.direct && !l.config.Load().flushesLate()
	past := direct && short >= leastDirectRead && !s.mark(position, int(short))
	for {
		o, failed := l.dir.readPiece(s, position, int(short), past)
		got, err := check(o.data, want, func(at int) (batch.Header, bool) { return l.headerAt(s, position+int64(at)) })
		inPart := got.n == 0 && (got.first > len(o.data) || len(o.data) == 0 || errors.Is(err, batch.ErrTruncated))
		if inPart && failed != nil {
			return o, row{}, fmt.Errorf("%w: %s at %d: %w", errRead, s.name(".log"), position, failed)
		}
		if inPart && short < n { // the index is wrong
			o.drop()
			short = n
			continue
		}
		if err == nil && inPart && int64(len(o.data)) < n {
			err = fmt.Errorf("%w: batch of %d bytes, %d are there", batch.ErrTruncated, got.first, len(o.data))
		}
		if err != nil && direct && !past {
			o.drop()
			past = true // a page of the cache may be older than what was written past it
			continue
		}
		if err != nil {
			err = l.corrupt(s, position+int64(got.n), got.next, err)
			if got.n > 0 {
				err = nil
			}
		}
		return o, got, err
	}
}

// readPiece reads the n bytes at position, or those of them that are there; err tells why the
// others are not, unless the file ends behind some. Past the page cache, if that is asked.
func (d *Dir) readPiece(s *segmentFile, position int64, n int, past bool) (o old, err error) {
	if past || n >= leastDirectRead {
		o.buf, o.data, err = d.readOld(s, position, n, past)
	} else {
		r := d.reader(s)
		defer r.close()
		o.data = make([]byte, n)
		n, err = r.readFile(o.data, position)
		o.data = o.data[:n]
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
		if len(o.data) > 0 {
			err = nil // what is missing is found out by its batch
		}
	}
	return o, err
}

// check finds the batches at the front of b that are wanted, whole, intact and in place; beyond gives the header
// at a place behind b.
func check(b []byte, want *appetite, beyond func(at int) (batch.Header, bool)) (row, error) {
	got := row{next: want.from}
	for got.n < len(b) {
		rest := b[got.n:]
		h, err := batch.ReadHeader(rest)
		if err == nil && h.Size() > len(rest) {
			if got.n == 0 {
				got.first = h.Size()
			}
			return got, nil
		}
		if err == nil {
			before := got
			taken := got.take(want, &h)
			if !taken && (got.n > 0 || got.first > 0) {
				return got, nil
			}
			// One that is behind the limit is checked, too: damage may say so, and nobody would ever meet it.
			if _, err = batch.Check(rest); err == nil {
				err = before.place(want, &h, func() (batch.Header, bool) {
					if len(rest)-h.Size() < batch.HeaderSize {
						return beyond(before.n + h.Size())
					}
					after, err := batch.ReadHeader(rest[h.Size():])
					return after, err == nil
				})
			}
			if err == nil && taken {
				continue
			}
			got = before
		}
		if errors.Is(err, batch.ErrTruncated) && got.n > 0 {
			err = nil
		}
		return got, err
	}
	return got, nil
}

// headerAt reads the header of the batch at a position, if there is one.
func (l *Log) headerAt(s *segmentFile, position int64) (batch.Header, bool) {
	if s.size.Load()-position < batch.HeaderSize {
		return batch.Header{}, false
	}
	r := l.dir.reader(s)
	defer r.close()
	h, err := readHeader(&r, position)
	return h, err == nil
}

// place tells whether a batch may follow the row. follower gives the one behind it.
func (r *row) place(want *appetite, h *batch.Header, follower func() (batch.Header, bool)) error {
	expect := r.next
	if r.n == 0 {
		expect = want.least
		if h.LastOffset() < want.from || want.from < want.end && h.NextOffset() > want.end {
			return fmt.Errorf("%w: %d in a batch that is to hold %d", errMisplaced, h.BaseOffset, want.from)
		}
	}
	if misplaced(h, expect, follower) {
		return fmt.Errorf("%w: %d where %d belongs", errMisplaced, h.BaseOffset, expect)
	}
	return nil
}

// whole is check for what was checked before, but for what is wanted of it now.
func whole(b []byte, want *appetite) row {
	got := row{next: want.from}
	for got.n < len(b) {
		if h, err := batch.ReadHeader(b[got.n:]); err != nil || !got.take(want, &h) {
			break
		}
	}
	return got
}

// viewAcross adds the one batch at position, of which the tail has the end.
func (l *Log) viewAcross(s *segmentFile, v *View, position, size int64, want *appetite) (row, error) {
	r := l.dir.reader(s)
	defer r.close()
	h, err := readHeader(&r, position)
	if errors.Is(err, errRead) {
		return row{}, err
	}
	got := row{next: want.from}
	if err == nil && position+int64(h.Size()) > size {
		err = fmt.Errorf("%w: batch of %d bytes, %d are there", batch.ErrTruncated, h.Size(), size-position)
	}
	taken := err == nil && got.take(want, &h)
	if err == nil && !taken && got.first > 0 {
		return row{}, nil
	}
	var b []byte
	if err == nil {
		b = make([]byte, h.Size())
		if _, err := r.ReadAt(b, position); err != nil {
			return row{}, fmt.Errorf("%w: %s at %d: %w", errRead, s.name(".log"), position, err)
		}
		if _, err = batch.Check(b); err == nil {
			err = (&row{next: want.from}).place(want, &h, func() (batch.Header, bool) { return l.headerAt(s, position+int64(h.Size())) })
		}
	}
	if err != nil {
		return row{}, l.corrupt(s, position, want.from, err)
	}
	if !taken { // it is behind the limit
		return row{}, nil
	}
	v.Pieces = append(v.Pieces, b)
	return got, nil
}

// corrupt says that the bytes at a position are not the batch that belongs there.
func (l *Log) corrupt(s *segmentFile, position, offset int64, cause error) error {
	damage := &CorruptError{File: s.name(".log"), Position: position, Offset: offset, Cause: cause}
	if !s.cut.Load() {
		l.dir.sayCorrupt(l, damage)
	}
	return damage
}
