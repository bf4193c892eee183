package stream

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// peer is the other end of a connection, written by hand.
type peer struct {
	t    *testing.T
	wire *wire
	end  chan error // of the side that is tested
}

func (p *peer) say(frames ...[]byte) {
	p.t.Helper()
	_ = p.wire.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = p.wire.conn.Write(slices.Concat(frames...)) // the other side may have closed by then
}

// hear reads up to the next frame of a kind.
func (p *peer) hear(k kind) (header, []byte) {
	p.t.Helper()
	for {
		h, err := p.wire.next()
		if err != nil {
			p.t.Fatalf("waiting for a frame of kind %d: %v", k, err)
		}
		body := make([]byte, h.length)
		if _, err := io.ReadFull(p.wire.in, body); err != nil {
			p.t.Fatal(err)
		}
		if h.kind == k {
			return h, body
		}
	}
}

func frameOf(k kind, number uint32, epoch int32, body []byte) []byte {
	return appendFrame(nil, header{kind: k, number: number, epoch: epoch}, func(dst []byte) []byte { return append(dst, body...) })
}

func (p *peer) hello(broker int32, window int64) {
	m := hello{version: version, broker: broker, brokerEpoch: 1, cluster: "c", window: window}
	p.say(frameOf(kindHello, 0, 0, m.append(nil)))
}

func offset(o int64) []byte { return order.AppendUint64(nil, uint64(o)) }

// TestHostileLeader: a leader that breaks the rules is cut off, and nothing of it is stored.
func TestHostileLeader(t *testing.T) {
	b := func(base int64, epoch int32) []byte { return makeBatch(t, base, 1, 100, epoch) }
	o := open{key: key(0)}
	again := frameOf(kindOpen, 1, 5, o.append(nil))
	for name, frames := range map[string][]byte{
		"another epoch in APPEND":        appendOf(1, 6, 0, 0, b(0, 5)),
		"an epoch from the future":       appendOf(1, 5, 0, 0, b(0, 6)),
		"a gap":                          appendOf(1, 5, 1, 0, b(1, 5)),
		"before the end":                 appendOf(1, 5, 0, 0, b(-1, 5)),
		"batches out of order":           appendOf(1, 5, 0, 0, b(4, 5), b(2, 5)),
		"half a batch":                   appendOf(1, 5, 0, 0, b(0, 5)[:100]),
		"a damaged batch":                appendOf(1, 5, 0, 0, append(b(0, 5)[:160], 1, 2, 3)),
		"more than the window":           slices.Concat(appendOf(1, 5, 0, 0, makeBatch(t, 0, 1, 40<<10, 5)), appendOf(1, 5, 1, 0, makeBatch(t, 1, 1, 40<<10, 5))),
		"the same number again":          again,
		"APPEND before the answer":       slices.Concat(frameOf(kindTruncate, 1, 5, offset(0)), appendOf(1, 5, 0, 0, b(0, 5))),
		"TRUNCATE between APPENDs":       slices.Concat(appendOf(1, 5, 0, 0, b(0, 5)), frameOf(kindTruncate, 1, 5, offset(0))),
		"TRUNCATE below zero":            frameOf(kindTruncate, 1, 5, offset(-1)),
		"what only followers say":        frameOf(kindCredit, 0, 0, offset(1)),
		"a second HELLO":                 frameOf(kindHello, 0, 0, make([]byte, helloHead)),
		"watermarks of another epoch":    frameOf(kindWatermarks, 0, 0, (&watermark{1, 4, 9, 0}).append(nil)),
		"OPEN of no partition":           frameOf(kindOpen, 9, 5, (&open{key: Key{Partition: -1}}).append(nil)),
		"OPEN with an epoch below zero":  frameOf(kindOpen, 9, -5, o.append(nil)),
		"more partitions than it may be": slices.Concat(frameOf(kindOpen, 2, 5, o.append(nil)), frameOf(kindOpen, 3, 5, o.append(nil))),
		"garbage":                        []byte("GET / HTTP/1.1\r\nHost: example\r\n\r\n"),
	} {
		inBubble(t, func(t *testing.T) {
			cfg := testConfig(2)
			cfg.WindowBytes, cfg.MaxPartitions = 64<<10, 2
			log := newMemLog()
			log.hold = true
			r := NewReceiver(cfg, &follower{logs: map[Key]Sink{key(0): log}, epoch: map[Key]int32{key(0): 5}})
			x, y := wires(t, false)
			pcfg := testConfig(1)
			pcfg.setDefaults()
			p := &peer{t: t, wire: newWire(x, &pcfg, new(Counts)), end: make(chan error, 1)}
			go func() { p.end <- r.Serve(context.Background(), y) }()
			p.hello(1, 0)
			p.hear(kindHello)
			p.say(again)
			p.hear(kindState)
			go func() { _, _ = io.Copy(io.Discard, x) }()
			p.say(frames)
			select {
			case err := <-p.end:
				if !errors.Is(err, ErrProtocol) {
					t.Errorf("%s: %v", name, err)
				}
			case <-time.After(time.Second):
				t.Errorf("%s: nobody minds", name)
			}
			_ = x.Close()
			synctest.Wait()
			if n := len(log.queue); n > 1 || n == 1 && name != "more than the window" && name != "TRUNCATE between APPENDs" {
				t.Errorf("%s: %d appends", name, n)
			}
			log.set(func() { log.hold = false })
		})
	}
}

// TestHostileFollower: neither does a leader believe everything.
func TestHostileFollower(t *testing.T) {
	st := state{end: 1, epochs: nil}
	ackOf := func(end int64) []byte { return frameOf(kindAck, 0, 0, (&ack{1, 5, end}).append(nil)) }
	for name, frames := range map[string][]byte{
		"more acknowledged than was sent":   ackOf(3),
		"more credit than was taken":        frameOf(kindCredit, 0, 0, offset(1<<20)),
		"credit below zero":                 frameOf(kindCredit, 0, 0, offset(-1)),
		"STATE that nobody has asked for":   frameOf(kindState, 1, 5, st.append(nil)),
		"what only leaders say":             frameOf(kindTruncate, 1, 5, offset(0)),
		"an unknown status":                 frameOf(kindState, 1, 5, (&state{status: 99}).append(nil)),
		"more epochs, but none of them now": frameOf(kindState, 1, 5, (&state{more: true}).append(nil)),
	} {
		inBubble(t, func(t *testing.T) {
			log := newMemLog()
			log.lead(t, 5, 1, 10)
			log.lead(t, 5, 1, 10)
			u := NewPush(testConfig(1), 2, newStory())
			part := u.Lead(key(0), log, 5)
			x, y := wires(t, false)
			pcfg := testConfig(2)
			pcfg.setDefaults()
			p := &peer{t: t, wire: newWire(x, &pcfg, new(Counts)), end: make(chan error, 1)}
			go func() { p.end <- u.Run(context.Background(), false, y) }()
			p.hear(kindHello)
			p.hello(2, 1<<20)
			p.hear(kindOpen)
			p.say(frameOf(kindState, 1, 5, (&state{}).append(nil)))
			p.hear(kindAppend)
			p.say(ackOf(1))
			synctest.Wait()
			if part.Acked() != 1 {
				t.Fatalf("acknowledged %d", part.Acked())
			}
			go func() { _, _ = io.Copy(io.Discard, x) }()
			p.say(frames)
			select {
			case err := <-p.end:
				if !errors.Is(err, ErrProtocol) {
					t.Errorf("%s: %v", name, err)
				}
			case <-time.After(time.Second):
				t.Errorf("%s: nobody minds", name)
			}
			_ = x.Close()
		})
	}
}

// TestStaleFrames: what is still on its way for a number of the past does no harm, on either side.
func TestStaleFrames(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		log := newMemLog()
		r := NewReceiver(testConfig(2), &follower{logs: map[Key]Sink{key(0): log}, epoch: map[Key]int32{key(0): 5}})
		x, y := wires(t, false)
		cfg := testConfig(1)
		cfg.setDefaults()
		p := &peer{t: t, wire: newWire(x, &cfg, new(Counts)), end: make(chan error, 1)}
		go func() { p.end <- r.Serve(context.Background(), y) }()
		p.hello(1, 0)
		p.hear(kindHello)
		o := open{key: key(0)}
		p.say(frameOf(kindOpen, 1, 5, o.append(nil)))
		p.hear(kindState)
		b := makeBatch(t, 0, 1, 100, 5)
		p.say(frameOf(kindClose, 1, 5, nil), appendOf(1, 5, 0, 0, b), frameOf(kindTruncate, 1, 5, offset(0)), frameOf(kindMore, 1, 5, make([]byte, 4)))
		if _, body := p.hear(kindCredit); int64(order.Uint64(body)) != cost(len(b)) {
			t.Errorf("credit %x", body)
		}
		if log.LogEndOffset() != 0 || r.Counts().Discarded.Load() != 1 {
			t.Errorf("log ends at %d", log.LogEndOffset())
		}
		_ = x.Close()
		<-p.end
	})
}

// TestTakeover: a partition that is opened on a second connection, while appends of the first are on their way to the
// disk, is answered once those have come to an end, and the first is told.
func TestTakeover(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 1, nil)
		c, a, b := s.connect(false)
		f, l := s.followers[0], s.leaders[0]
		l.lead(t, 5, 1, 10)
		s.settle(time.Millisecond)
		f.set(func() { f.hold = true })
		l.lead(t, 5, 3, 10)
		synctest.Wait()
		a.set(func() { a.silent = true })
		b.set(func() { b.silent = true })
		// The leader's broker notices first.
		_ = a.Close()
		s.settle(time.Millisecond)
		s.connect(false)
		s.settle(time.Second)
		if s.parts[0].Acked() != -1 {
			t.Fatalf("answered with %d while appends are under way", s.parts[0].Acked())
		}
		f.set(func() { f.hold = false })
		s.settle(time.Millisecond)
		if s.parts[0].Acked() != 4 || s.push.Counts().AppendFrames.Load() != 2 {
			t.Errorf("acknowledged %d, %d frames", s.parts[0].Acked(), s.push.Counts().AppendFrames.Load())
		}
		c.wait()
		s.same()
		if n := len(s.recv.owners); n != 1 {
			t.Errorf("%d owners", n)
		}
	})
}
