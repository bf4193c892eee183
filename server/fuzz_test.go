package server

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// recordedFrames are requests of real clients, without their size fields.
func recordedFrames(t testing.TB) [][]byte {
	t.Helper()
	names, err := filepath.Glob("../testdata/frames/*/*.bin")
	if err != nil || len(names) == 0 {
		t.Fatalf("no recorded frames: %v", err)
	}
	var frames [][]byte
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, b)
	}
	return frames
}

// TestRecordedFramesDecode takes requests of real clients apart and puts them
// together again.
func TestRecordedFramesDecode(t *testing.T) {
	reg := newRegistry(apis(), &Metrics{})
	for _, frame := range recordedFrames(t) {
		a, h, _, err := reg.open(frame)
		if h.key == apiVersions.key && errors.Is(err, errUnknownAPI) {
			continue // a client that is newer than us; it asks again
		}
		if err != nil {
			t.Errorf("key %d v%d: %v", h.key, h.version, err)
			continue
		}
		req, err := a.decode(h.version, h.body)
		if err != nil {
			t.Errorf("key %d v%d: %v", h.key, h.version, err)
			continue
		}
		if again := req.AppendTo(nil); string(again) != string(h.body) {
			t.Errorf("%s v%d: %x became %x", kmsg.NameForKey(h.key), h.version, h.body, again)
		}
	}
}

// FuzzRequest decodes what a client may send: no panic, and no memory beyond what
// the bytes justify.
func FuzzRequest(f *testing.F) {
	for _, frame := range recordedFrames(f) {
		f.Add(frame)
	}
	r := rand.New(rand.NewPCG(5, 6))
	format := kmsg.NewRequestFormatter(kmsg.FormatterClientID("fuzz"))
	reg := newRegistry(apis(), &Metrics{})
	for _, a := range reg.list {
		for v := a.min; v <= a.max; v++ {
			f.Add(format.AppendRequest(nil, randomRequest(a.key, v, r), 1)[4:])
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		a, h, elements, err := reg.open(frame)
		if err != nil {
			return
		}
		req, err := a.decode(h.version, h.body)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > uint64(64<<10+4*len(frame)+elementBytes*elements) {
			t.Fatalf("%s v%d: %d bytes allocated for a frame of %d with %d elements", kmsg.NameForKey(h.key), h.version, used, len(frame), elements)
		}
		if err == nil {
			req.AppendTo(nil)
		}
	})
}
