package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// A request on the wire, all integers big-endian:
//
//	+---------+-----+---------+-------------+------------------+- - - - - -+------+
//	| size    | key | version | correlation | client id        | tagged    | body |
//	| int32   | i16 | int16   | id int32    | i16 length, text | fields    |      |
//	+---------+-----+---------+-------------+------------------+- - - - - -+------+
//	                                          -1 = none          flexible
//	                                                             versions only
//
// size counts the bytes behind it. The client id is never compact.
const fixedHeaderSize = 8

// firstChunk is how much memory a connection gets for a frame of which nothing
// has arrived yet, unless it has completed larger ones before.
const (
	firstChunk     = 64 << 10
	maxFirstChunk  = 1 << 20
	smallestHeader = fixedHeaderSize + 2
)

// What is wrong with the bytes of a connection. Each closes it.
var (
	errFrameSize   = errors.New("size of the request out of range")
	errHalfFrame   = errors.New("request did not arrive in time")
	errHeader      = errors.New("malformed request header")
	errUnknownAPI  = errors.New("unknown API or version")
	errMalformed   = errors.New("malformed request")
	errIdle        = errors.New("idle")
	errTooDetailed = errors.New("request has too many elements")
)

// frame is the bytes of one request and the memory that is charged for them.
type frame struct {
	buf     *buffer
	charge  charge
	details charge // for what it is taken apart into, when that is much
}

func (f *frame) release() {
	if f.buf != nil {
		f.buf.release()
		f.buf = nil
	}
	f.charge.giveBack()
	f.details.giveBack()
}

// frameReader reads frames of one connection. Memory follows the bytes that have
// arrived, never the size that is announced.
type frameReader struct {
	src       io.Reader
	maxBytes  int
	budget    *budget
	patience  time.Duration            // for memory to become free
	chunkTime time.Duration            // for each doubling of a frame to arrive
	deadline  func(in time.Duration)   // sets the read deadline
	produces  func(version int16) *api // what serves a version of Produce, nil when nothing does
	sizes     produceSizes
	completed int // largest frame that has been read to its end
	sizeField [4]byte
}

// announced is the size of the frame whose size field has been read.
func (r *frameReader) announced() (int, error) {
	size := int(int32(binary.BigEndian.Uint32(r.sizeField[:])))
	if size < smallestHeader || size > r.maxBytes {
		return 0, fmt.Errorf("%w: %d bytes", errFrameSize, size)
	}
	return size, nil
}

// take charges bytes for a part of a frame. Only small frames may use what is kept for them.
func (r *frameReader) take(ctx context.Context, size, bytes int) (charge, error) {
	if size > smallFrameBytes {
		return r.budget.takeMain(ctx, bytes, r.patience)
	}
	return r.budget.take(ctx, bytes, r.patience)
}

// next reads a frame of the given size, of which nothing but the size field has been
// read; the deadline for its first part is set already.
func (r *frameReader) next(ctx context.Context, size int) (frame, error) {
	room := bufferSize(min(size, max(firstChunk, min(r.completed, maxFirstChunk))))
	paid, err := r.take(ctx, size, room)
	if err != nil {
		return frame{}, err
	}
	f := frame{buf: newBuffer(room), charge: paid}
	for {
		have := len(f.buf.b)
		f.buf.b = f.buf.b[:min(size, cap(f.buf.b))]
		if have > 0 {
			r.deadline(r.chunkTime)
		}
		if _, err := io.ReadFull(r.src, f.buf.b[have:]); err != nil {
			f.release()
			return frame{}, fmt.Errorf("%w: %w", errHalfFrame, err)
		}
		if len(f.buf.b) == size {
			r.completed = max(r.completed, size)
			return f, nil
		}
		if err := r.grow(ctx, &f, min(size, 2*len(f.buf.b))); err != nil {
			f.release()
			return frame{}, err
		}
	}
}

// grow moves what there is of a large frame, or of a part of it, into a buffer
// with room for n bytes.
func (r *frameReader) grow(ctx context.Context, f *frame, n int) error {
	paid, err := r.budget.takeMain(ctx, bufferSize(n), r.patience)
	if err != nil {
		return err
	}
	larger := newBuffer(n)
	larger.b = append(larger.b, f.buf.b...)
	f.buf.release()
	f.charge.giveBack()
	f.buf, f.charge = larger, paid
	return nil
}

// header is the decoded front of a request.
type header struct {
	key, version  int16
	correlationID int32
	clientID      []byte // lies in the frame
	body          []byte // lies in the frame
}

// readHeader decodes the part of the header that all versions share; body is
// what follows the client id.
func readHeader(b []byte) (header, error) {
	if len(b) < smallestHeader {
		return header{}, errHeader
	}
	h := header{
		key:           int16(binary.BigEndian.Uint16(b)),
		version:       int16(binary.BigEndian.Uint16(b[2:])),
		correlationID: int32(binary.BigEndian.Uint32(b[4:])),
	}
	n := int(int16(binary.BigEndian.Uint16(b[fixedHeaderSize:])))
	rest := b[smallestHeader:]
	if n > len(rest) {
		return h, fmt.Errorf("%w: client id of %d bytes", errHeader, n)
	}
	h.clientID, h.body = rest[:max(n, 0)], rest[max(n, 0):]
	return h, nil
}

// skipHeaderTags drops the tagged fields of a flexible header.
func (h *header) skipHeaderTags() error {
	w := walker{b: h.body}
	w.tags()
	if w.bad {
		return fmt.Errorf("%w: tagged fields", errHeader)
	}
	h.body = w.b
	return nil
}
