package stream

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/millrace/millrace/segment"
)

// oneWay is a connection from which some bytes come, and then nothing.
type oneWay struct {
	io.Reader
	written bytes.Buffer
}

func (c *oneWay) Write(p []byte) (int, error)      { return c.written.Write(p) }
func (c *oneWay) Close() error                     { return nil }
func (c *oneWay) SetReadDeadline(time.Time) error  { return nil }
func (c *oneWay) SetWriteDeadline(time.Time) error { return nil }

func wireOf(b []byte) *wire {
	cfg := testConfig(1)
	cfg.MaxBatchBytes = 2 << 20
	cfg.setDefaults()
	return newWire(&oneWay{Reader: bytes.NewReader(b)}, &cfg, new(Counts))
}

// samples are frames of all kinds.
func samples(t testing.TB) [][]byte {
	k := key(3)
	h := hello{version: 1, bulk: true, broker: 4, brokerEpoch: 99, window: 1 << 24, cluster: "Zm9v"}
	o := open{k, 17}
	st := state{status: statusOpen, start: 3, end: 90, epochs: []segment.EpochEntry{{Epoch: 1, Start: 3}, {Epoch: 5, Start: 40}}, more: true}
	no := state{status: statusLaterEpoch, laterEpoch: 8, reason: "led elsewhere"}
	w := watermark{1, 5, 80, 3}
	a := ack{1, 5, 90}
	return [][]byte{
		appendFrame(nil, header{kind: kindHello}, h.append),
		appendFrame(nil, header{kind: kindOpen, number: 1, epoch: 5}, o.append),
		appendFrame(nil, header{kind: kindMore, number: 1, epoch: 5}, func(b []byte) []byte { return order.AppendUint32(b, 4) }),
		appendFrame(nil, header{kind: kindTruncate, number: 1, epoch: 5}, func(b []byte) []byte { return order.AppendUint64(b, 40) }),
		appendFrame(nil, header{kind: kindReset, number: 1, epoch: 5}, func(b []byte) []byte { return order.AppendUint64(b, 40) }),
		appendOf(1, 5, 90, 80, makeBatch(t, 90, 2, 50, 5), makeBatch(t, 92, 1, 0, 5)),
		appendFrame(nil, header{kind: kindWatermarks}, func(b []byte) []byte { return w.append(w.append(b)) }),
		appendFrame(nil, header{kind: kindClose, number: 1, epoch: 5}, nil),
		appendFrame(nil, header{kind: kindState, number: 1, epoch: 5}, st.append),
		appendFrame(nil, header{kind: kindState, number: 1, epoch: 5}, no.append),
		appendFrame(nil, header{kind: kindAck}, func(b []byte) []byte { return a.append(a.append(b)) }),
		appendFrame(nil, header{kind: kindCredit}, func(b []byte) []byte { return order.AppendUint64(b, 1<<20) }),
		appendFrame(nil, header{kind: kindHeartbeat}, nil),
	}
}

// appendOf makes an APPEND of batches.
func appendOf(number uint32, epoch int32, from, mark int64, batches ...[]byte) []byte {
	head := order.AppendUint64(order.AppendUint64(order.AppendUint64(nil, uint64(from)), uint64(mark)), 0)
	sum := checksum(0, head)
	for _, b := range batches {
		sum = checksum(sum, b[:prefixSize])
	}
	b := slices.Concat(head, slices.Concat(batches...))
	f := append(make([]byte, headerSize), b...)
	putHeader(f, header{len(b), kindAppend, number, epoch, sum})
	return f
}

// decode reads all frames there are, as both sides do, and writes them anew.
func decode(b []byte) (again []byte, err error) {
	w := wireOf(b)
	for {
		h, err := w.next()
		if err != nil {
			return again, err
		}
		if h.kind == kindAppend {
			body := make([]byte, min(h.length, 4<<20))
			if _, err := io.ReadFull(w.in, body); err != nil {
				return again, err
			}
			_, sum, err := checkBatches(body[appendHead:], checksum(0, body[:appendHead]), int64(order.Uint64(body)), h.epoch)
			if err != nil || sum != h.sum {
				return again, ErrProtocol
			}
			f := append(make([]byte, headerSize), body...)
			putHeader(f, h)
			again = append(again, f...)
			continue
		}
		body, err := w.small(h)
		if err != nil {
			return again, err
		}
		var write func([]byte) []byte
		switch h.kind {
		case kindHello:
			var m hello
			if err := m.read(body); err != nil {
				return again, err
			}
			write = m.append
		case kindOpen:
			var m open
			if err := m.read(body); err != nil {
				return again, err
			}
			write = m.append
		case kindState:
			var m state
			if err := m.read(body); err != nil {
				return again, err
			}
			write = m.append
		case kindWatermarks:
			var list []watermark
			if err := readWatermarks(body, func(m watermark) error { list = append(list, m); return nil }); err != nil {
				return again, err
			}
			write = func(dst []byte) []byte {
				for i := range list {
					dst = list[i].append(dst)
				}
				return dst
			}
		case kindAck:
			var list []ack
			if err := readAcks(body, func(m ack) { list = append(list, m) }); err != nil {
				return again, err
			}
			write = func(dst []byte) []byte {
				for i := range list {
					dst = list[i].append(dst)
				}
				return dst
			}
		default:
			whole := bytes.Clone(body)
			write = func(dst []byte) []byte { return append(dst, whole...) }
		}
		again = appendFrame(again, header{kind: h.kind, number: h.number, epoch: h.epoch}, write)
	}
}

func TestFramesComeBack(t *testing.T) {
	all := slices.Concat(samples(t)...)
	again, err := decode(all)
	if err != io.EOF || !bytes.Equal(all, again) {
		t.Errorf("%v: %d bytes, of %d", err, len(again), len(all))
	}
}

// TestEveryFlippedBit: each bit of each frame counts, but for where a frame is cut short.
func TestEveryFlippedBit(t *testing.T) {
	for i, f := range samples(t) {
		for bit := range 8 * len(f) {
			bad := bytes.Clone(f)
			bad[bit/8] ^= 1 << (bit % 8)
			if again, err := decode(bad); !errors.Is(err, ErrProtocol) || len(again) > 0 {
				t.Fatalf("frame %d, bit %d: %v", i, bit, err)
			}
		}
	}
}

func FuzzFrames(f *testing.F) {
	for _, s := range samples(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		again, err := decode(b)
		if err == nil {
			t.Fatal("no end")
		}
		if len(again) > 0 && !bytes.HasPrefix(b, again) {
			t.Errorf("%x has become %x", b, again)
		}
		// Bodies too: a fuzzer does not find checksums.
		for _, k := range []kind{kindHello, kindOpen, kindState, kindWatermarks, kindAck} {
			if least, most := bodyBounds(k, 1<<20); len(b) < least || len(b) > most {
				continue
			}
			whole := appendFrame(nil, header{kind: k}, func(dst []byte) []byte { return append(dst, b...) })
			if again, err := decode(whole); err == io.EOF && !bytes.Equal(again, whole) {
				t.Errorf("kind %d: %x has become %x", k, whole, again)
			}
		}
	})
}

func TestBufferSizes(t *testing.T) {
	seen := map[int]int{}
	for n := 1; n <= frameBytes; n += 1 + n/300 {
		size, pool := bufferSize(n)
		if size < n || n > smallestBuffer && size > n+n/sizeSteps+1 || pool < 0 || pool >= len(bufferPools) {
			t.Fatalf("%d bytes: size %d, pool %d", n, size, pool)
		}
		if old, ok := seen[pool]; ok && old != size {
			t.Fatalf("pool %d has sizes %d and %d", pool, old, size)
		}
		seen[pool] = size
	}
	if size, pool := bufferSize(frameBytes + 1); size != frameBytes+1 || pool != -1 {
		t.Errorf("beyond: %d, %d", size, pool)
	}
}

// TestWalk: headers are found wherever pieces are cut.
func TestWalk(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var b []byte
	for i := range int64(20) {
		b = append(b, makeBatch(t, 100+3*i, 1+int(i%3), int(i*7), 4)...)
	}
	_, want, err := checkBatches(b, 9, 100, 4)
	if err != nil {
		t.Fatal(err)
	}
	for range 500 {
		var pieces [][]byte
		for rest := b; len(rest) > 0; {
			n := min(len(rest), r.IntN(90))
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		first, next, sum, err := walk(pieces, 9)
		if err != nil || first != 100 || next != 100+3*19+2 || sum != want {
			t.Fatalf("%d to %d, %v", first, next, err)
		}
	}
	if _, _, _, err := walk([][]byte{b[:len(b)-1]}, 0); err == nil {
		t.Error("a batch that is cut")
	}
	if _, _, _, err := walk([][]byte{b[:20]}, 0); err == nil {
		t.Error("a header that is cut")
	}
}

func TestReadRefuses(t *testing.T) {
	for name, f := range map[string][]byte{
		"unknown kind":      appendFrame(nil, header{kind: 99}, nil),
		"long heartbeat":    appendFrame(nil, header{kind: kindHeartbeat}, func(b []byte) []byte { return append(b, 1) }),
		"short open":        appendFrame(nil, header{kind: kindOpen}, func(b []byte) []byte { return append(b, 1) }),
		"half an ack":       appendFrame(nil, header{kind: kindAck}, func(b []byte) []byte { return append(b, make([]byte, 17)...) }),
		"append too large":  appendFrame(nil, header{kind: kindAppend}, func(b []byte) []byte { return append(b, make([]byte, 3<<20)...) }),
		"epochs that fall":  appendFrame(nil, header{kind: kindState}, (&state{epochs: []segment.EpochEntry{{Epoch: 2, Start: 1}, {Epoch: 2, Start: 2}}}).append),
		"more, but nothing": appendFrame(nil, header{kind: kindState}, (&state{more: true}).append),
		"an end before":     appendFrame(nil, header{kind: kindState}, (&state{start: 2, end: 1}).append),
	} {
		if _, err := decode(f); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
