package stream

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"sync"
	"time"
)

// wire is a connection with deadlines: it is closed when nothing comes for a while, or a write does not end. Reads are
// for one goroutine, and so are writes; Close is for all.
type wire struct {
	conn    Conn
	cfg     *Config
	in      *bufio.Reader
	counts  *Counts
	readSet time.Time // when the read deadline was set last
	head    [headerSize]byte
	body    []byte // of small frames, used again
	scratch []byte // where pieces are gathered for a connection that takes one at a time
}

func newWire(conn Conn, cfg *Config, counts *Counts) *wire {
	w := &wire{conn: conn, cfg: cfg, counts: counts}
	w.in = bufio.NewReaderSize(patientReader{w}, 64<<10)
	return w
}

// patientReader puts off the deadline each time that something has come.
type patientReader struct{ w *wire }

func (r patientReader) Read(p []byte) (int, error) {
	w := r.w
	if now := w.cfg.Now(); now.Sub(w.readSet) > w.cfg.Silence/16 {
		w.readSet = now
		if err := w.conn.SetReadDeadline(now.Add(w.cfg.Silence)); err != nil {
			return 0, err
		}
	}
	n, err := w.conn.Read(p)
	w.counts.BytesIn.Add(int64(n))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%w for %v", ErrSilent, w.cfg.Silence)
	}
	return n, err
}

// next reads the header of the next frame.
func (w *wire) next() (header, error) {
	if _, err := io.ReadFull(w.in, w.head[:]); err != nil {
		return header{}, err
	}
	w.counts.FramesIn.Add(1)
	return readHeader(w.head[:], w.cfg.MaxBatchBytes)
}

// small reads the whole body of a frame that is not APPEND; it is valid until the next one.
func (w *wire) small(h header) ([]byte, error) {
	if cap(w.body) < h.length {
		w.body = make([]byte, h.length)
	}
	b := w.body[:h.length]
	if _, err := io.ReadFull(w.in, b); err != nil {
		return nil, err
	}
	if checksum(0, b) != h.sum {
		return nil, fmt.Errorf("%w: damaged body of a frame of kind %d", ErrProtocol, h.kind)
	}
	return b, nil
}

// write writes pieces, all of them or an error.
func (w *wire) write(pieces [][]byte) error {
	if err := w.conn.SetWriteDeadline(w.cfg.Now().Add(w.cfg.WriteTimeout)); err != nil {
		return err
	}
	if many, ok := w.conn.(buffersWriter); ok {
		n, err := many.WriteBuffers(pieces)
		w.counts.BytesOut.Add(n)
		return err
	}
	if w.scratch == nil {
		w.scratch = make([]byte, 0, 128<<10)
	}
	for _, p := range pieces {
		for len(p) > 0 {
			n := min(len(p), cap(w.scratch)-len(w.scratch))
			w.scratch = append(w.scratch, p[:n]...)
			p = p[n:]
			if len(w.scratch) == cap(w.scratch) {
				if err := w.flush(); err != nil {
					return err
				}
			}
		}
	}
	return w.flush()
}

func (w *wire) flush() error {
	if len(w.scratch) == 0 {
		return nil
	}
	n, err := w.conn.Write(w.scratch)
	w.counts.BytesOut.Add(int64(n))
	w.scratch = w.scratch[:0]
	return err
}

// Buffers for batches come in sizes that are at most a quarter larger than what is in them. A stream is charged for
// that size, so that its window is the memory it takes.
const (
	smallestBuffer = 512
	sizeSteps      = 4 // between a power of two and the next
)

var bufferPools [48]sync.Pool

// bufferSize is what n bytes take, and the index of the pool with buffers of that size; -1 when there is none.
func bufferSize(n int) (size, pool int) {
	if n <= smallestBuffer {
		return smallestBuffer, 0
	}
	if n > frameBytes {
		return n, -1
	}
	low := 1 << (bits.Len(uint(n-1)) - 1) // low < n <= 2*low
	step := low / sizeSteps
	steps := (n - low + step - 1) / step
	return low + steps*step, (bits.Len(uint(low/smallestBuffer))-1)*sizeSteps + steps
}

// cost is what an APPEND with n bytes of batches takes of a stream's window.
func cost(n int) int64 {
	size, _ := bufferSize(n)
	return int64(size)
}

// buffer holds the batches of one APPEND.
type buffer struct {
	b    []byte
	pool int
}

func takeBuffer(n int) *buffer {
	size, pool := bufferSize(n)
	if pool >= 0 {
		if b, ok := bufferPools[pool].Get().(*buffer); ok {
			b.b = b.b[:n]
			return b
		}
	}
	return &buffer{b: make([]byte, n, size), pool: pool}
}

func (b *buffer) free() {
	if b.pool >= 0 {
		bufferPools[b.pool].Put(b)
	}
}
