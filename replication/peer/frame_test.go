package peer

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
)

func flat(f frame) []byte { return append(bytes.Clone(f.head), f.body...) }

// TestFrames: what is read is what was written.
func TestFrames(t *testing.T) {
	big := bytes.Repeat([]byte("big"), 100_000)
	stream := flat(callFrame(1, 1500*time.Millisecond, "propose", []byte("body")))
	stream = append(stream, flat(callFrame(2, 0, "", big))...)
	stream = append(stream, flat(callFrame(3, time.Nanosecond, "soon", nil))...)
	stream = append(stream, flat(failureFrame(4, &Error{CodeFree, strings.Repeat("x", 2*maxErrorText)}))...)
	stream = append(stream, flat(newFrame(framePing, 5, nil, nil))...)
	r := bytes.NewReader(stream)
	for _, want := range []struct {
		left   time.Duration
		method string
		body   []byte
	}{{1500 * time.Millisecond, "propose", []byte("body")}, {0, "", big}, {time.Millisecond, "soon", nil}} {
		f, err := readFrame(r)
		if err != nil || f.t != frameCall {
			t.Fatal(f, err)
		}
		left, method, body, err := decodeCall(f.rest)
		if err != nil || left != want.left || method != want.method || !bytes.Equal(body, want.body) {
			t.Errorf("%v %q %d bytes, %v", left, method, len(body), err)
		}
	}
	f, err := readFrame(r)
	if err != nil || f.t != frameFailure || f.id != 4 {
		t.Fatal(f, err)
	}
	if e, err := decodeFailure(f.rest); err != nil || e.Code != CodeFree || len(e.Text) != maxErrorText {
		t.Error(e, err)
	}
	if f, err := readFrame(r); err != nil || f.t != framePing || f.id != 5 || len(f.rest) != 0 {
		t.Error(f, err)
	}
	if _, err := readFrame(r); err != io.EOF {
		t.Error(err)
	}
	largest := callFrame(1, 0, strings.Repeat("m", maxMethod), make([]byte, MaxBodyBytes))
	if _, err := readFrame(bytes.NewReader(flat(largest))); err != nil {
		t.Error("the largest call:", err)
	}
}

// TestFrameBounds: what is announced costs nothing until it comes.
func TestFrameBounds(t *testing.T) {
	for _, head := range [][]byte{{0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0, 1}, {0, 0, 0, 8, 1, 0, 0, 0, 0, 0, 0, 0, 1}, {0, 0, 0, 9, 9, 0, 0, 0, 0, 0, 0, 0, 1}, {0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1}} {
		if _, err := readFrame(bytes.NewReader(head)); !errors.Is(err, ErrProtocol) {
			t.Errorf("%x: %v", head, err)
		}
	}
	announced := append([]byte{0, 0xff, 0xff, 0xf0, 1, 0, 0, 0, 0, 0, 0, 0, 1}, make([]byte, 100)...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		if _, err := readFrame(bytes.NewReader(announced)); err == nil {
			t.Fatal("no error")
		}
	}
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) / 100; got > 512<<10 {
		t.Errorf("%d bytes for a frame of 100 bytes", got)
	}
}

// FuzzFrame: no decoder panics, and what it takes it would write likewise.
func FuzzFrame(f *testing.F) {
	f.Add(flat(callFrame(1, time.Second, "method", []byte("body"))))
	f.Add(flat(failureFrame(2, &Error{CodeBusy, "busy"})))
	f.Add(flat(newFrame(frameAnswer, 3, nil, []byte("answer"))))
	f.Add(flat(newFrame(framePing, 0, nil, nil)))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readFrame(bytes.NewReader(b))
		if err != nil {
			return
		}
		again := newFrame(got.t, got.id, nil, got.rest)
		switch got.t {
		case frameCall:
			left, method, body, err := decodeCall(got.rest)
			if err != nil {
				return
			}
			if left > 1<<31*time.Millisecond {
				return // longer than we would write
			}
			again = callFrame(got.id, left, method, body)
		case frameFailure:
			e, err := decodeFailure(got.rest)
			if err != nil || len(got.rest) > maxErrorText {
				return
			}
			again = failureFrame(got.id, e)
		}
		if !bytes.HasPrefix(b, flat(again)) {
			t.Fatalf("%x became %x", b, flat(again))
		}
	})
}
