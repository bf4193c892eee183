package server

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
)

// A produce request is taken apart while it is read, since it may be large:
//
//	+--------+------------------+------+---------+--------+- - - - - - - - - - - - - - - - -+------+
//	| header | transactional id | acks | timeout | topics | name or id, partitions,         | tags |
//	|        | text             | i16  | i32     | count  |   each: number i32, its records |      |
//	+--------+------------------+------+---------+--------+- - - - - - - - - - - - - - - - -+------+
//
// A frame that is small is read in one piece. Of a larger one the text between
// the records comes to lie in the frame's buffer, and with it the records that are
// short; long ones are read from the socket straight into a buffer of their own,
// which is given back as soon as that partition is done. So nothing is copied, no
// memory is large, and the first partitions may be done with before the last
// one's memory is needed by somebody else.

// produceSizes are the bounds between these ways. Tests have others.
type produceSizes struct {
	whole int // up to here a frame is read in one piece
	own   int // from here on records get a buffer of their own; no more is ever read ahead
	text  int // first buffer of a frame that is not read whole
}

var produceDefaults = produceSizes{whole: smallFrameBytes, own: 8 << 10, text: 16 << 10}

// largestPart is how much of a frame must arrive within the time of one part.
const largestPart = 1 << 20

// produceReader reads one request into a produceCall. It keeps the first error
// and gives zeros from then on.
type produceReader struct {
	ctx    context.Context
	frames *frameReader
	call   *produceCall

	size    int // of the frame
	arrived int // bytes of it that have been read
	due     int // when so many have, the next part has its own time
	ahead   int // how many bytes may be read before it is known what they are
	own     int // from which length on records get their own buffer
	at      int // up to where the frame's buffer has been decoded

	version  int16
	flexible bool
	elements int
	err      error
}

// readProduce reads a frame of the given size, of which nothing but the size field
// has been read, into call; the deadline for its first part is set already.
// Whatever the outcome, call has what is to be released.
func (r *frameReader) readProduce(ctx context.Context, size int, call *produceCall) error {
	d := produceReader{ctx: ctx, frames: r, call: call, size: size, due: firstChunk, ahead: size, own: math.MaxInt}
	room := size
	if size > r.sizes.whole {
		d.ahead, d.own, room = r.sizes.own, r.sizes.own, r.sizes.text
	}
	paid, err := r.take(ctx, size, bufferSize(room))
	if err != nil {
		return err
	}
	call.frame = frame{buf: newBuffer(room), charge: paid}
	call.bytes = size
	d.header()
	d.body()
	d.skip(d.left()) // bytes behind the body are not looked at, but the client is still sending them
	if d.err == nil {
		r.completed = max(r.completed, size)
	}
	return d.err
}

func (r *produceReader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *produceReader) malformed() {
	r.fail(fmt.Errorf("%w: Produce v%d of %d bytes ends early or has an impossible length", errMalformed, r.version, r.size))
}

func (r *produceReader) text() *buffer { return r.call.frame.buf }

// left is how much of the frame has not been decoded, whether it has arrived or not.
func (r *produceReader) left() int { return r.size - r.arrived + len(r.text().b) - r.at }

// read reads from the socket, at least so many bytes.
func (r *produceReader) read(dst []byte, least int) (n int) {
	for n < least && r.err == nil {
		if r.arrived >= r.due {
			r.frames.deadline(r.frames.chunkTime)
			r.due = r.arrived + min(max(r.arrived, firstChunk), largestPart)
		}
		got, err := r.frames.src.Read(dst[n:])
		n += got
		r.arrived += got
		if err != nil && n < least {
			r.fail(fmt.Errorf("%w: %w", errHalfFrame, err))
		}
	}
	return n
}

// await makes sure that the next n bytes are in the text's buffer.
func (r *produceReader) await(n int) bool {
	for r.err == nil {
		text := r.text()
		have := len(text.b)
		missing := n - (have - r.at)
		switch {
		case missing <= 0:
			return true
		case missing > r.size-r.arrived:
			r.malformed()
		case have == cap(text.b):
			r.grow(&r.call.frame, min(r.size, 2*have))
		default:
			room := min(cap(text.b)-have, r.size-r.arrived, r.ahead)
			got := r.read(text.b[have:have+room], min(missing, room))
			text.b = text.b[:have+got]
		}
	}
	return false
}

func (r *produceReader) grow(f *frame, n int) {
	if err := r.frames.grow(r.ctx, f, n); err != nil {
		r.fail(err)
	}
}

// take is the next n bytes of the text, all zero after an error, for n up to 16.
// They are valid until the next call.
func (r *produceReader) take(n int) []byte {
	if !r.await(n) {
		return zeros[:n]
	}
	r.at += n
	return r.text().b[r.at-n : r.at]
}

var zeros [16]byte

func (r *produceReader) int16() int16 { return int16(binary.BigEndian.Uint16(r.take(2))) }
func (r *produceReader) int32() int32 { return int32(binary.BigEndian.Uint32(r.take(4))) }

func (r *produceReader) uvarint() int {
	n := uint64(0)
	for shift := 0; shift < 5*7; shift += 7 {
		b := r.take(1)[0]
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			if n > math.MaxUint32 {
				break
			}
			return int(n)
		}
	}
	r.malformed()
	return 0
}

// length is that of a text, or of an array or of records when it is wide; at most
// -1 is null. It does not exceed what is left.
func (r *produceReader) length(wide bool) (n int) {
	switch {
	case r.flexible:
		n = r.uvarint() - 1
	case wide:
		n = int(r.int32())
	default:
		n = int(r.int16())
	}
	if r.err == nil && n > r.left() {
		r.malformed()
	}
	if r.err != nil {
		return 0
	}
	return n
}

// skip passes over n bytes without keeping them.
func (r *produceReader) skip(n int) {
	if r.err == nil && n > r.left() {
		r.malformed()
	}
	for n > 0 && r.await(1) {
		text := r.text()
		step := min(n, len(text.b)-r.at)
		if n -= step; r.at+step == len(text.b) {
			text.b = text.b[:r.at] // what comes next may lie here
		} else {
			r.at += step
		}
	}
}

// keep leaves n bytes in the text's buffer and tells where they lie.
func (r *produceReader) keep(n int) span {
	if !r.await(n) {
		return span{}
	}
	r.at += n
	return span{r.at - n, r.at}
}

// count is told of each element before anything is allocated for it.
func (r *produceReader) count() {
	r.elements++
	if r.elements > maxElements {
		r.fail(fmt.Errorf("%w: Produce v%d", errTooDetailed, r.version))
	}
	if r.elements%fewElements != 0 || r.err != nil {
		return
	}
	paid, err := r.frames.budget.takeMain(r.ctx, fewElements*elementBytes, r.frames.patience)
	if err != nil {
		r.fail(err)
		return
	}
	details := &r.call.frame.details
	*details = charge{paid.from, details.bytes + paid.bytes}
}

func (r *produceReader) header() {
	cl := &r.call.call
	cl.key, cl.version, cl.correlationID = r.int16(), r.int16(), r.int32()
	n := max(int(r.int16()), 0)
	if r.err == nil && n > r.left() {
		r.fail(fmt.Errorf("%w: client id of %d bytes", errHeader, n))
	}
	r.call.clientID = r.keep(n)
	a := r.frames.produces(cl.version)
	if a == nil {
		r.fail(fmt.Errorf("%w: key %d version %d", errUnknownAPI, cl.key, cl.version))
		return
	}
	r.version, r.flexible = cl.version, cl.version >= a.flexible
	r.tags()
	r.elements = 0
}

// tags passes over tagged fields: Produce has none that are known.
func (r *produceReader) tags() {
	if !r.flexible {
		return
	}
	for n := r.uvarint(); n > 0 && r.err == nil; n-- {
		r.count()
		r.uvarint()
		r.skip(r.uvarint())
	}
}

func (r *produceReader) body() {
	r.count()
	r.skip(r.length(false)) // transactional id
	r.call.acks = r.int16()
	r.call.timeoutMillis = r.int32()
	for n := r.length(true); n > 0 && r.err == nil; n-- {
		r.topic()
	}
	r.tags()
}

func (r *produceReader) topic() {
	r.count()
	var t produceTopic
	if r.version >= 13 {
		copy(t.id[:], r.take(len(t.id)))
	} else {
		r.count()
		n := r.length(false)
		if n < 0 {
			r.malformed() // it may not be null
		}
		t.name = r.keep(n)
	}
	for n := r.length(true); n > 0 && r.err == nil; n-- {
		r.count()
		if r.err != nil {
			return
		}
		part := r.call.addPart()
		t.parts++
		part.index = r.int32()
		r.records(part)
		r.tags()
	}
	r.tags()
	if r.err == nil {
		r.call.topics = append(r.call.topics, t)
	}
}

func (r *produceReader) records(part *producePart) {
	n := max(r.length(true), 0)
	if n < r.own {
		part.short = r.keep(n)
		return
	}
	room := min(n, max(firstChunk, r.arrived, min(r.frames.completed, maxFirstChunk)))
	paid, err := r.frames.take(r.ctx, r.size, bufferSize(room))
	if err != nil {
		r.fail(err)
		return
	}
	part.own = frame{buf: newBuffer(room), charge: paid}
	text := r.text()
	part.own.buf.b = append(part.own.buf.b, text.b[r.at:]...) // what was read ahead is less than what gets its own buffer
	text.b = text.b[:r.at]
	for r.err == nil {
		have, until := len(part.own.buf.b), min(n, cap(part.own.buf.b))
		got := r.read(part.own.buf.b[have:until], until-have)
		part.own.buf.b = part.own.buf.b[:have+got]
		if until == n {
			return
		}
		if r.err == nil {
			r.grow(&part.own, min(n, 2*until))
		}
	}
}
