package peer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// A frame of a Request connection. The length counts what follows it.
//
//	length(4) type(1) id(8) then
//	  call     millis(4) length(1) method body     what is left of the caller's deadline; 0: none
//	  answer   body
//	  failure  code(2) text
//	  cancel, ping, pong   nothing
//
// Only the dialling side calls, cancels and pings; ids are its own, and are not used again.
const (
	frameHeader   = 4 + 1 + 8
	frameMinimum  = frameHeader - 4
	maxFrameBytes = 16 << 20 // of the whole
	maxMethod     = 255
	maxErrorText  = 4 << 10

	// MaxBodyBytes bounds what a request or an answer carries.
	MaxBodyBytes = maxFrameBytes - frameHeader - 4 - 1 - maxMethod
)

type frameType byte

const (
	frameCall frameType = 1 + iota
	frameAnswer
	frameFailure
	frameCancel
	framePing
	framePong
)

// frame is one that is to be written, in two parts so that bodies need not be copied.
type frame struct {
	head []byte
	body []byte
}

func newFrame(t frameType, id uint64, start, body []byte) frame {
	b := make([]byte, 4, frameHeader+len(start))
	b = binary.BigEndian.AppendUint64(append(b, byte(t)), id)
	b = append(b, start...)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4+len(body)))
	return frame{b, body}
}

// callFrame says how much time is left, at least a millisecond; left is 0 for no deadline.
func callFrame(id uint64, left time.Duration, method string, body []byte) frame {
	millis := uint32(0)
	if left > 0 {
		millis = uint32(min(max(left.Milliseconds(), 1), 1<<31))
	}
	start := binary.BigEndian.AppendUint32(nil, millis)
	start = append(append(start, byte(len(method))), method...)
	return newFrame(frameCall, id, start, body)
}

func failureFrame(id uint64, e *Error) frame {
	start := binary.BigEndian.AppendUint16(nil, uint16(e.Code))
	return newFrame(frameFailure, id, append(start, e.Text[:min(len(e.Text), maxErrorText)]...), nil)
}

type received struct {
	t    frameType
	id   uint64
	rest []byte
}

// readFrame reads one frame. Memory follows what has come, not what was announced.
func readFrame(r io.Reader) (f received, err error) {
	var head [frameHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return f, err
	}
	n := binary.BigEndian.Uint32(head[:])
	f.t, f.id = frameType(head[4]), binary.BigEndian.Uint64(head[5:])
	if n < frameMinimum || n > maxFrameBytes-4 || f.t < frameCall || f.t > framePong {
		return f, fmt.Errorf("%w: frame of type %d and %d bytes", ErrProtocol, f.t, n)
	}
	f.rest, err = readBody(r, int(n-frameMinimum))
	return f, err
}

func readBody(r io.Reader, n int) ([]byte, error) {
	const atOnce = 64 << 10
	if n <= atOnce {
		b := make([]byte, n)
		_, err := io.ReadFull(r, b)
		return b, err
	}
	var b bytes.Buffer
	b.Grow(atOnce)
	if _, err := io.CopyN(&b, r, int64(n)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func decodeCall(b []byte) (left time.Duration, method string, body []byte, err error) {
	r := reader{b: b}
	left = time.Duration(r.uint32()) * time.Millisecond
	method = string(r.take(int(r.byte())))
	if r.short {
		return 0, "", nil, fmt.Errorf("%w: call of %d bytes", ErrProtocol, len(b))
	}
	return left, method, r.b, nil
}

func decodeFailure(b []byte) (*Error, error) {
	r := reader{b: b}
	e := &Error{Code: Code(r.uint16())}
	if r.short {
		return nil, fmt.Errorf("%w: failure of %d bytes", ErrProtocol, len(b))
	}
	e.Text = string(r.b[:min(len(r.b), maxErrorText)])
	return e, nil
}
