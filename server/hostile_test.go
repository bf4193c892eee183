package server

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// attack sends something that no client should send on one connection, and
// leaves. frames are whole requests without their size.
type attack func(nc net.Conn, r *rand.Rand, frames [][]byte)

var attacks = map[string]attack{
	"noise": func(nc net.Conn, r *rand.Rand, _ [][]byte) {
		b := make([]byte, 1+r.IntN(2000))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		nc.Write(b)
		drainFor(nc, 50*time.Millisecond)
	},
	"huge announcement": func(nc net.Conn, r *rand.Rand, _ [][]byte) {
		b := binary.BigEndian.AppendUint32(nil, uint32(50<<20+r.IntN(50<<20)))
		nc.Write(append(b, make([]byte, r.IntN(100_000))...))
		drainFor(nc, time.Duration(r.IntN(300))*time.Millisecond)
	},
	"negative size": func(nc net.Conn, r *rand.Rand, _ [][]byte) {
		nc.Write(binary.BigEndian.AppendUint32(nil, 1<<31|r.Uint32()))
		drainFor(nc, 50*time.Millisecond)
	},
	"half a request": func(nc net.Conn, r *rand.Rand, frames [][]byte) {
		frame := frames[r.IntN(len(frames))]
		b := binary.BigEndian.AppendUint32(nil, uint32(len(frame)))
		nc.Write(append(b, frame[:r.IntN(len(frame))]...))
		drainFor(nc, time.Duration(r.IntN(600))*time.Millisecond)
	},
	"slow loris": func(nc net.Conn, r *rand.Rand, frames [][]byte) {
		frame := frames[r.IntN(len(frames))]
		for _, b := range append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...) {
			if _, err := nc.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	},
	"damaged requests": func(nc net.Conn, r *rand.Rand, frames [][]byte) {
		for range 1 + r.IntN(20) {
			if sendFrame(nc, damage(frames[r.IntN(len(frames))], r)) != nil || !drainFor(nc, 5*time.Millisecond) {
				return
			}
		}
	},
	"wild values": func(nc net.Conn, r *rand.Rand, _ [][]byte) {
		format := kmsg.NewRequestFormatter(kmsg.FormatterClientID("hostile"))
		list := newRegistry(apis(), &Metrics{}).list
		for range 1 + r.IntN(10) {
			a := list[r.IntN(len(list))]
			req := randomRequest(a.key, a.min+int16(r.IntN(int(a.max-a.min)+1)), r)
			if harmless(req) {
				if sendFrame(nc, format.AppendRequest(nil, req, r.Int32())[4:]) != nil || !drainFor(nc, 5*time.Millisecond) {
					return
				}
			}
		}
	},
	"counts without elements": func(nc net.Conn, r *rand.Rand, frames [][]byte) {
		frame := append([]byte(nil), frames[r.IntN(len(frames))]...)
		for at := r.IntN(len(frame)); at+4 <= len(frame) && r.IntN(4) > 0; at += 1 + r.IntN(20) {
			copy(frame[at:], [][]byte{{0x7f, 0xff, 0xff, 0xff}, {0xff, 0xff, 0xff, 0xff}, {0xff, 0xff, 0xff, 0x0f}, {0, 0xff, 0xff, 0xff}}[r.IntN(4)])
		}
		sendFrame(nc, frame)
		drainFor(nc, 20*time.Millisecond)
	},
	"damaged large produce requests": func(nc net.Conn, r *rand.Rand, _ [][]byte) {
		lengths := make([]int, 1+r.IntN(20))
		for i := range lengths {
			lengths[i] = r.IntN(1 << (4 + r.IntN(17)))
		}
		frame := largeProduce(int16(3+r.IntN(10)), lengths...)
		for range r.IntN(4) {
			frame[r.IntN(len(frame))] = byte(r.Uint32())
		}
		nc.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		for rest := frame[:len(frame)-r.IntN(2)*r.IntN(len(frame))]; len(rest) > 0; {
			n := min(len(rest), 1+r.IntN(1<<r.IntN(20)))
			if _, err := nc.Write(rest[:n]); err != nil {
				return
			}
			rest = rest[n:]
		}
		drainFor(nc, 20*time.Millisecond)
	},
	"asks and does not listen": func(nc net.Conn, r *rand.Rand, frames [][]byte) {
		nc.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		for range 2000 {
			if sendFrame(nc, frames[r.IntN(len(frames))]) != nil {
				return
			}
		}
	},
	"hangs up": func(net.Conn, *rand.Rand, [][]byte) {},
}

// harmless tells whether a request leaves the test its topics and does not wait
// for long.
func harmless(req kmsg.Request) bool {
	switch r := req.(type) {
	case *kmsg.CreateTopicsRequest:
		r.ValidateOnly = r.Version > 0
	case *kmsg.CreatePartitionsRequest:
		r.ValidateOnly = true
	case *kmsg.FetchRequest:
		r.MaxWaitMillis %= 100
	case *kmsg.JoinGroupRequest:
		r.RebalanceTimeoutMillis, r.SessionTimeoutMillis = 100, 100
	}
	return true
}

func sendFrame(nc net.Conn, frame []byte) error {
	_, err := nc.Write(append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(frame)), uint32(len(frame))), frame...))
	return err
}

// drainFor reads what comes, and tells whether the connection is still open.
func drainFor(nc net.Conn, d time.Duration) bool {
	nc.SetReadDeadline(time.Now().Add(d))
	_, err := io.Copy(io.Discard, nc)
	return err != nil && os.IsTimeout(err)
}

// damage changes a few bytes of a frame behind its header, or its length.
func damage(frame []byte, r *rand.Rand) []byte {
	out := append([]byte(nil), frame...)
	for range 1 + r.IntN(4) {
		switch at := min(8+r.IntN(len(out)), len(out)-1); r.IntN(4) {
		case 0:
			out = out[:at]
		case 1:
			out[at] ^= 1 << r.IntN(8)
		case 2:
			out[at] = byte(r.Uint32())
		default:
			out = append(out[:at:at], append(make([]byte, r.IntN(10)), out[at:]...)...)
		}
		if len(out) < 12 {
			return append([]byte(nil), frame...)
		}
	}
	return out
}

// TestHostileBytes lets the attacks loose on a broker, all at once, while a client
// goes about its business. MILLRACE_HOSTILE is how long, for instance 10m.
func TestHostileBytes(t *testing.T) {
	duration := 3 * time.Second
	if text := os.Getenv("MILLRACE_HOSTILE"); text != "" {
		var err error
		if duration, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	s, addr := startServer(t, func(o *Options) {
		o.FrameTime, o.WriteTime, o.MemoryTime = 300*time.Millisecond, 300*time.Millisecond, time.Second
		o.MaxConnections = 200
	}, "auto.create.topics.enable", "false", "group.min.session.timeout.ms", "10")
	createTopic(t, dialRaw(t, addr), "work", 3)
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithTimeout(t.Context(), duration)
	defer cancel()
	frames := recordedFrames(t)

	var wg sync.WaitGroup
	counts := make([]int, 16)
	for worker := range counts {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(worker), uint64(time.Now().UnixNano())))
			names := make([]string, 0, len(attacks))
			for name := range attacks {
				names = append(names, name)
			}
			for ctx.Err() == nil {
				nc, err := net.Dial("tcp", addr)
				if err != nil {
					t.Errorf("dial: %v", err)
					return
				}
				attacks[names[r.IntN(len(names))]](nc, r, frames)
				nc.Close()
				counts[worker]++
			}
		})
	}
	records, peak := businessAsUsual(ctx, t, addr)
	wg.Wait()

	attacked := 0
	for _, n := range counts {
		attacked += n
	}
	st := s.Stats()
	t.Logf("%d attacks; %d records went to and fro meanwhile; peak heap %d MiB; %+v", attacked, records, peak>>20, st)
	if st.Panics > 0 {
		t.Errorf("%d panics", st.Panics)
	}
	if records == 0 {
		t.Error("nothing could be produced and consumed meanwhile")
	}
	if peak > 512<<20 {
		t.Errorf("the heap grew to %d MiB", peak>>20)
	}
	for deadline := time.Now().Add(5 * time.Second); s.Stats().Connections > 1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are left", s.Stats().Connections)
		}
	}
	if resp := dialRaw(t, addr).ask(kmsg.NewPtrDescribeClusterRequest()).(*kmsg.DescribeClusterResponse); resp.ErrorCode != 0 {
		t.Errorf("afterwards: error %d", resp.ErrorCode)
	}
	t.Logf("goroutines: %d before, %d after", before, runtime.NumGoroutine())
}

// businessAsUsual produces and consumes until ctx ends, and returns how many
// records came back, in order, and the largest heap that was seen.
func businessAsUsual(ctx context.Context, t *testing.T, addr string) (records int, peakHeap uint64) {
	producer := newClient(t, addr, kgo.DefaultProduceTopic("work"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer producer.Close()
	consumer := newClient(t, addr, kgo.ConsumeTopics("work"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond))
	defer consumer.Close()
	for i := 0; ctx.Err() == nil; i++ {
		value := fmt.Sprint(i)
		err := producer.ProduceSync(ctx, &kgo.Record{Value: []byte(value)}).FirstErr()
		if err != nil {
			if ctx.Err() == nil {
				t.Errorf("produce: %v", err)
			}
			return records, peakHeap
		}
		for got := false; !got && ctx.Err() == nil; {
			consumer.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
				if string(r.Value) == value {
					got = true
					records++
				}
			})
		}
		if i%64 == 0 {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peakHeap = max(peakHeap, m.HeapInuse)
		}
	}
	return records, peakHeap
}
