package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/segment/batch"
)

// tinySizes make the reader treat small requests as it does large ones.
var tinySizes = produceSizes{whole: 0, own: 32, text: 1}

// oddReader gives what it reads in pieces of random sizes.
type oddReader struct {
	src io.Reader
	r   *rand.Rand
}

func (o oddReader) Read(b []byte) (int, error) {
	return o.src.Read(b[:min(len(b), 1+o.r.IntN(1+o.r.IntN(100)))])
}

// produceSource reads frames as a connection does, without one.
func produceSource(src io.Reader, sizes produceSizes, b *budget) *frameReader {
	reg := newRegistry(apis(), &Metrics{})
	return &frameReader{
		src: src, maxBytes: 100 << 20, budget: b, sizes: sizes, patience: time.Millisecond, chunkTime: time.Second,
		deadline: func(time.Duration) {},
		produces: func(v int16) *api { return reg.find(produce.key, v) },
	}
}

// used is how much of a budget is taken.
func (b *budget) used() int64 {
	free, step := int64(0), b.bytes
	for ; step > 0; step /= 2 {
		for b.main.TryAcquire(free + step) {
			b.main.Release(free + step)
			free += step
		}
	}
	return b.bytes - free
}

// compareWithKmsg reads a produce request without its size field in both ways,
// and tells how they differ.
func compareWithKmsg(frame []byte, src io.Reader, sizes produceSizes) error {
	a, h, _, wantErr := newRegistry(apis(), &Metrics{}).open(frame)
	want := kmsg.NewPtrProduceRequest()
	if wantErr == nil {
		want.SetVersion(a.min)
		want.SetVersion(h.version)
		wantErr = want.ReadFrom(h.body)
	}
	b := newBudget(64 << 20)
	call := produceCalls.Get().(*produceCall)
	call.refs.Store(1)
	defer func() {
		if call != nil {
			call.unref()
		}
	}()
	err := produceSource(src, sizes, b).readProduce(context.Background(), len(frame), call)
	switch {
	case (err == nil) != (wantErr == nil):
		return fmt.Errorf("got %v, want %v", err, wantErr)
	case err == nil:
		if diff := differs(call, h, want); diff != "" {
			return errors.New(diff)
		}
	}
	call.unref()
	call = nil
	if n := b.used(); n != 0 {
		return fmt.Errorf("%d bytes stay charged", n)
	}
	return nil
}

func differs(p *produceCall, h header, want *kmsg.ProduceRequest) string {
	if p.call.version != h.version || p.call.correlationID != h.correlationID || !bytes.Equal(p.text(p.clientID), h.clientID) {
		return fmt.Sprintf("header %+v, want %+v", p.call, h)
	}
	if p.acks != want.Acks || p.timeoutMillis != want.TimeoutMillis || len(p.topics) != len(want.Topics) {
		return fmt.Sprintf("acks %d timeout %d topics %d, want %d %d %d", p.acks, p.timeoutMillis, len(p.topics), want.Acks, want.TimeoutMillis, len(want.Topics))
	}
	parts := p.parts[:p.usedParts]
	for i, t := range p.topics {
		w := &want.Topics[i]
		if string(p.text(t.name)) != w.Topic || t.id != w.TopicID || t.parts != len(w.Partitions) {
			return fmt.Sprintf("topic %d: %q %x with %d partitions, want %q %x %d", i, p.text(t.name), t.id, t.parts, w.Topic, w.TopicID, len(w.Partitions))
		}
		for j, part := range parts[:t.parts] {
			if part.index != w.Partitions[j].Partition || !bytes.Equal(part.records(), w.Partitions[j].Records) {
				return fmt.Sprintf("topic %d partition %d: %d with %d bytes, want %d with %d", i, j, part.index, len(part.records()), w.Partitions[j].Partition, len(w.Partitions[j].Records))
			}
		}
		parts = parts[t.parts:]
	}
	if len(parts) > 0 {
		return fmt.Sprintf("%d partitions too many", len(parts))
	}
	return ""
}

// produceFrame encodes a request that has something of everything.
func produceFrame(version int16, r *rand.Rand) []byte {
	format := kmsg.NewRequestFormatter(kmsg.FormatterClientID("c"))
	return format.AppendRequest(nil, randomRequest(produce.key, version, r), r.Int32())[4:]
}

// TestProduceIsReadAsKmsgDoes also cuts the requests at every byte: the client
// stops there, or the frame ends there.
func TestProduceIsReadAsKmsgDoes(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for v := produce.min; v <= produce.max; v++ {
		for range 30 {
			frame := produceFrame(v, r)
			for _, sizes := range []produceSizes{produceDefaults, tinySizes, {whole: 100, own: 150, text: 1}} {
				trailing := append(bytes.Clone(frame), make([]byte, r.IntN(50))...)
				src := bytes.NewReader(append(bytes.Clone(trailing), "next"...))
				if err := compareWithKmsg(trailing, oddReader{src, r}, sizes); err != nil {
					t.Fatalf("v%d %+v: %v", v, sizes, err)
				}
				if rest, _ := io.ReadAll(src); string(rest) != "next" {
					t.Fatalf("v%d %+v: %q is left of the next request", v, sizes, rest)
				}
			}
		}
		frame := produceFrame(v, r)
		for cut := range frame {
			if cut >= smallestHeader {
				if err := compareWithKmsg(frame[:cut], iotest.OneByteReader(bytes.NewReader(frame)), tinySizes); err != nil {
					t.Fatalf("v%d, %d of %d bytes: %v", v, cut, len(frame), err)
				}
			}
			b := newBudget(64 << 20)
			call := produceCalls.Get().(*produceCall)
			call.refs.Store(1)
			err := produceSource(bytes.NewReader(frame[:cut]), tinySizes, b).readProduce(t.Context(), len(frame), call)
			call.unref()
			if !errors.Is(err, errHalfFrame) || b.used() != 0 {
				t.Fatalf("v%d, the client stops after %d of %d bytes: %v, %d bytes stay charged", v, cut, len(frame), err, b.used())
			}
		}
	}
}

// FuzzProduceRead reads whatever a client may send as Produce in both ways.
func FuzzProduceRead(f *testing.F) {
	r := rand.New(rand.NewPCG(9, 10))
	for _, frame := range recordedFrames(f) {
		if binary.BigEndian.Uint16(frame) == 0 {
			f.Add(frame, uint64(1), uint16(0), uint16(32))
		}
	}
	for v := produce.min - 1; v <= produce.max+1; v++ {
		for range 4 {
			frame := produceFrame(v, r)
			f.Add(frame, r.Uint64(), uint16(r.IntN(400)), uint16(1+r.IntN(200)))
			f.Add(frame[:r.IntN(len(frame))], r.Uint64(), uint16(0), uint16(16))
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte, seed uint64, whole, own uint16) {
		if len(frame) < smallestHeader {
			return
		}
		frame[0], frame[1] = 0, 0
		src := oddReader{bytes.NewReader(frame), rand.New(rand.NewPCG(seed, seed))}
		if err := compareWithKmsg(frame, src, produceSizes{whole: int(whole), own: max(int(own), 1), text: 1}); err != nil {
			t.Error(err)
		}
	})
}

// largeProduce is a frame with its size field, for one topic with records of the given lengths.
func largeProduce(version int16, lengths ...int) []byte {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.TimeoutMillis = version, 10_000
	topic := kmsg.ProduceRequestTopic{Topic: "t"}
	for i, n := range lengths {
		topic.Partitions = append(topic.Partitions, kmsg.ProduceRequestTopicPartition{Partition: int32(i), Records: bytes.Repeat([]byte{byte(i)}, n)})
	}
	req.Topics = append(req.Topics, topic)
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("c")).AppendRequest(nil, req, 1)
}

// TestProduceReadRefusesLengths never has more of a request than its front, so
// that what refuses it can only be the lengths that it announces.
func TestProduceReadRefusesLengths(t *testing.T) {
	type wire []byte
	old := func(b ...byte) wire { // v7: header, transactional id, acks, timeout
		return append(append(wire{0, 0, 0, 7, 0, 0, 0, 1, 0, 1, 'c', 0xff, 0xff, 0, 1, 0, 0, 0, 1}, 0, 0, 0, 1), b...)
	}
	flexible := func(b ...byte) wire { // v9
		return append(wire{0, 0, 0, 9, 0, 0, 0, 1, 0, 1, 'c', 0, 0, 0, 1, 0, 0, 0, 1, 2}, b...)
	}
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0x0f}
	tests := []struct {
		name string
		b    wire
		want error
	}{
		{"a client id of 32 KiB", wire{0, 0, 0, 9, 0, 0, 0, 1, 0x7f, 0xff}, errHeader},
		{"version 2", wire{0, 0, 0, 2, 0, 0, 0, 1, 0xff, 0xff}, errUnknownAPI},
		{"a topic without a name", old(0xff, 0xff), errMalformed},
		{"a name of 32 KiB", old(0x7f, 0xff), errMalformed},
		{"two billion partitions' first records of two billion bytes", old(0, 1, 't', 0x00, 0, 0, 1, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff), errMalformed},
		{"two billion partitions", old(0, 1, 't', 0x7f, 0xff, 0xff, 0xff), errMalformed},
		{"a flexible topic without a name", flexible(0), errMalformed},
		{"a flexible name of four billion bytes", flexible(huge...), errMalformed},
		{"four billion flexible partitions", flexible(append([]byte{2, 't'}, huge...)...), errMalformed},
		{"flexible records of four billion bytes", flexible(append([]byte{2, 't', 2, 0, 0, 0, 0}, huge...)...), errMalformed},
		{"a tag of four billion bytes", flexible(append([]byte{2, 't', 2, 0, 0, 0, 0, 1, 1, 1}, huge...)...), errMalformed},
		{"a length without an end", flexible(0xff, 0xff, 0xff, 0xff, 0xff, 0xff), errMalformed},
		{"a length above 32 bits", flexible(0xff, 0xff, 0xff, 0xff, 0x1f), errMalformed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, sizes := range []produceSizes{produceDefaults, tinySizes} {
				b := newBudget(64 << 20)
				call := produceCalls.Get().(*produceCall)
				call.refs.Store(1)
				err := produceSource(bytes.NewReader(test.b), sizes, b).readProduce(t.Context(), 30_000, call)
				if !errors.Is(err, test.want) {
					t.Errorf("%v, want %v", err, test.want)
				}
				call.unref()
			}
		})
	}
}

// TestProduceReadCountsElements sends a million partitions without records.
func TestProduceReadCountsElements(t *testing.T) {
	frame := largeProduce(9, make([]int, 1<<10)...)
	part := []byte{0, 0, 0, 0, 1, 0}
	at := bytes.Index(frame, part)
	front := append(bytes.Clone(frame[4:at-2]), 0x81, 0x80, 0x40) // 1<<20 partitions and one
	body := append(front, bytes.Repeat(part, 1<<20)...)
	b := newBudget(512 << 20)
	call := produceCalls.Get().(*produceCall)
	call.refs.Store(1)
	err := produceSource(bytes.NewReader(body), produceDefaults, b).readProduce(t.Context(), len(body), call)
	if !errors.Is(err, errTooDetailed) {
		t.Errorf("got %v", err)
	}
	if got, want := call.frame.details.bytes, int64((maxElements/fewElements)*fewElements*elementBytes); got != want {
		t.Errorf("%d bytes were charged for elements, want %d", got, want)
	}
	call.unref()
	if b.used() != 0 {
		t.Errorf("%d bytes stay charged", b.used())
	}
}

// TestMemoryOfProduceFollowsWhatArrives charges no more than twice what has come,
// beside the little that every connection gets.
func TestMemoryOfProduceFollowsWhatArrives(t *testing.T) {
	lengths := []int{40, 3 << 20, 9 << 10, 100, 700 << 10, 20 << 20}
	frame := largeProduce(9, lengths...)[4:]
	b := newBudget(256 << 20)
	call := produceCalls.Get().(*produceCall)
	call.refs.Store(1)
	arrived, most := 0, int64(0)
	src := readerFunc(func(dst []byte) (int, error) {
		if used := b.used(); used > int64(3*arrived+2*firstChunk) {
			t.Fatalf("%d bytes charged when %d had arrived", used, arrived)
		}
		most = max(most, b.used())
		n := copy(dst[:min(len(dst), 10_000)], frame[arrived:])
		arrived += n
		return n, nil
	})
	if err := produceSource(src, produceDefaults, b).readProduce(t.Context(), len(frame), call); err != nil {
		t.Fatal(err)
	}
	if most > 48<<20 {
		t.Errorf("%d bytes were charged for %d", most, len(frame))
	}
	call.unref()
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// TestPartitionsGiveTheirMemoryBackOneByOne while the request waits for the others.
func TestPartitionsGiveTheirMemoryBackOneByOne(t *testing.T) {
	frame := largeProduce(9, 1<<20, 100, 1<<20)[4:]
	b := newBudget(64 << 20)
	call := produceCalls.Get().(*produceCall)
	call.refs.Store(4)
	call.c = &conn{s: &Server{}}
	call.c.pipe.init(call.c)
	if err := produceSource(bytes.NewReader(frame), produceDefaults, b).readProduce(t.Context(), len(frame), call); err != nil {
		t.Fatal(err)
	}
	call.open = 3
	for i, want := range []int64{1<<20 + 16<<10, 1<<20 + 16<<10, 16 << 10} {
		call.parts[i].done(engine.ProduceResult{})
		if got := b.used(); got != want {
			t.Errorf("%d bytes charged after partition %d, want %d", got, i, want)
		}
	}
	if !call.complete.Load() {
		t.Error("not complete")
	}
	call.unref()
	if got := b.used(); got != 0 {
		t.Errorf("%d bytes charged in the end", got)
	}
}

// TestConnectionsThatHoldTheWholeBudget wait for each other no longer than the
// patience that there is.
func TestConnectionsThatHoldTheWholeBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(2 << 20)
		frame := largeProduce(9, 300<<10, 300<<10, 300<<10)[4:]
		start := time.Now()
		errs := make(chan error, 2)
		for range 2 {
			go func() {
				in := bytes.NewReader(frame)
				src := produceSource(readerFunc(func(dst []byte) (int, error) {
					time.Sleep(time.Millisecond) // so that both come equally far
					return in.Read(dst)
				}), produceDefaults, b)
				src.patience, src.completed = 30*time.Second, maxFirstChunk
				call := produceCalls.Get().(*produceCall)
				call.refs.Store(1)
				err := src.readProduce(context.Background(), len(frame), call)
				call.unref()
				errs <- err
			}()
		}
		first, second := <-errs, <-errs
		if took := time.Since(start); !errors.Is(first, errBudget) || took < 30*time.Second || took > 31*time.Second {
			t.Errorf("%v, %v after %v", first, second, took)
		}
		if b.used() != 0 {
			t.Errorf("%d bytes stay charged", b.used())
		}
	})
}

// TestLargeProduceSparesTheReserve leaves to heartbeats what is kept for small frames.
func TestLargeProduceSparesTheReserve(t *testing.T) {
	b := newBudget(16 << 20)
	all, _ := b.take(t.Context(), 15<<20, time.Second)
	frame := largeProduce(9, 40<<10, 10<<10, 20<<10)[4:]
	call := produceCalls.Get().(*produceCall)
	call.refs.Store(1)
	if err := produceSource(bytes.NewReader(frame), produceDefaults, b).readProduce(t.Context(), len(frame), call); !errors.Is(err, errBudget) {
		t.Errorf("a large request: %v", err)
	}
	small := largeProduce(9, 10<<10)[4:]
	if err := produceSource(bytes.NewReader(small), produceDefaults, b).readProduce(t.Context(), len(small), call); err != nil {
		t.Errorf("a small request: %v", err)
	}
	call.unref()
	all.giveBack()
}

// TestProduceIsReadWithoutAllocations once buffers are there.
func TestProduceIsReadWithoutAllocations(t *testing.T) {
	for _, lengths := range [][]int{{1000}, {50_000}, {300_000, 20_000, 100, 9000, 200_000}} {
		frame := largeProduce(9, lengths...)[4:]
		in := bytes.NewReader(frame)
		b := newBudget(64 << 20)
		src := produceSource(in, produceDefaults, b)
		call := produceCalls.New().(*produceCall)
		once := func() {
			in.Reset(frame)
			if err := src.readProduce(t.Context(), len(frame), call); err != nil {
				t.Fatal(err)
			}
			for _, part := range call.parts[:call.usedParts] {
				part.own.release()
			}
			call.frame.release()
			call.usedParts, call.topics = 0, call.topics[:0]
		}
		once()
		if n := testing.AllocsPerRun(100, once); n > 0 {
			t.Errorf("records of %v bytes: %v allocations", lengths, n)
		}
	}
}

// TestNothingOfAMalformedProduceTakesEffect sends good records for one partition,
// and something else that shows only at the end of the request.
func TestNothingOfAMalformedProduceTakesEffect(t *testing.T) {
	_, addr := startServer(t, nil)
	c := dialRaw(t, addr)
	b := &broker{rawClient: c, topic: createTopic(t, c, likeTopic, 2)}
	for _, size := range []int{10, 200_000} {
		req := produceRequest(9, b, -1, 0, newBatch(t, batch.BuilderOptions{}, likeTime, string(make([]byte, size))))
		req.Topics[0].Partitions = append(req.Topics[0].Partitions, kmsg.ProduceRequestTopicPartition{Partition: 1, Records: []byte("x")})
		frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID("raw")).AppendRequest(nil, req, 1)
		frame[len(frame)-5]++ // the length of the last records: the tags behind it are missing then
		bad := dialRaw(t, addr)
		if _, err := bad.nc.Write(frame); err != nil {
			t.Fatal(err)
		}
		if _, _, err := bad.receive(req); err == nil {
			t.Error("it was answered")
		}
	}
	code := c.ask(produceRequest(9, b, -1, 0, newBatch(t, batch.BuilderOptions{}, likeTime, "x"))).(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	if code.ErrorCode != 0 || code.BaseOffset != 0 {
		t.Errorf("then: %+v", code)
	}
}

// TestLargeProduceRequests come back as they were sent.
func TestLargeProduceRequests(t *testing.T) {
	_, addr := startServer(t, nil)
	createTopic(t, dialRaw(t, addr), "large", 20)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	r := rand.New(rand.NewPCG(11, 12))
	cl := newClient(t, addr, kgo.DefaultProduceTopic("large"), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(20*time.Millisecond), kgo.ProducerBatchCompression(kgo.NoCompression()))
	sent := make([][][]byte, 20)
	for range 1000 {
		p := r.IntN(len(sent))
		value := make([]byte, r.IntN(1<<(4+r.IntN(15))))
		for i := range value {
			value[i] = byte(r.Uint32())
		}
		sent[p] = append(sent[p], value)
		cl.Produce(ctx, &kgo.Record{Partition: int32(p), Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	consumer := newClient(t, addr, kgo.ConsumeTopics("large"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	for got := 0; got < 1000; {
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			if !bytes.Equal(rec.Value, sent[rec.Partition][rec.Offset]) {
				t.Errorf("partition %d offset %d differs", rec.Partition, rec.Offset)
			}
			got++
		})
	}
}
