package server

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/segment/batch"
)

// Produce (v3-13). ApiVersions says 0-13, as Kafka does for the sake of librdkafka,
// but a request below v3 closes the connection, as in Kafka.
//
// v3: transactional id; record batches of magic 2 only
// v5: log start offset in the response
// v7: zstd may be used
// v8: record errors and error messages
// v9: flexible
// v10: KIP-951: current leader and its endpoint when the leader is elsewhere
// v12: the client understands the transaction protocol of KIP-890
// v13: topic ids instead of names
//
// Not offered: transactions. A transactional batch is answered with INVALID_TXN_STATE.
var produce = api{key: 0, min: 3, max: 13}

// produceCall is one produce request on its way. It is pooled.
type produceCall struct {
	c         *conn
	call      call
	req       kmsg.ProduceRequest // its strings and records lie in frame
	frame     frame
	bytes     int
	deadline  time.Time
	parts     []*producePart
	usedParts int

	complete atomic.Bool  // every partition has its result
	refs     atomic.Int32 // the pipeline, the reader while it starts, and the partitions that have no result
	mu       sync.Mutex   // guards the results in parts
	open     int          // partitions without a result
}

// producePart is one partition of a produce request.
type producePart struct {
	owner    *produceCall
	done     func(engine.ProduceResult) // made once, for the life of the struct
	answered bool
	result   engine.ProduceResult
}

var produceCalls = sync.Pool{New: func() any { return new(produceCall) }}

// leastProduceTime is how long a batch may always take to become durable. Kafka's
// timeout counts only the wait for other replicas, so some clients send 0.
const leastProduceTime = time.Second

// Answered without the engine.
var (
	errRequiredAcks   = errors.New("server: acks must be -1, 0 or 1")
	errUnknownTopicID = errors.New("server: unknown topic id")
	errNotHere        = errors.New("server: partition is led elsewhere")
	errTimedOut       = errors.New("server: not durable within the request's timeout")
)

// produce hands a produce request to the engine and queues its answer. It takes
// over the frame.
func (s *Server) produce(cl *call, body []byte, f frame) error {
	p := produceCalls.Get().(*produceCall)
	p.c, p.call, p.frame, p.bytes = cl.conn, *cl, f, len(f.buf.b)
	p.refs.Store(1)
	p.complete.Store(false)
	p.usedParts = 0
	p.req.Version = cl.version
	if err := p.req.UnsafeReadFrom(body); err != nil {
		p.unref()
		return fmt.Errorf("%w: Produce v%d: %w", errMalformed, cl.version, err)
	}
	p.deadline = cl.received.Add(max(time.Duration(p.req.TimeoutMillis)*time.Millisecond, leastProduceTime))
	for i := range p.req.Topics {
		for range p.req.Topics[i].Partitions {
			p.addPart()
		}
	}
	p.open = p.usedParts
	p.refs.Add(int32(p.usedParts) + 1) // one for us while we start them
	if p.usedParts == 0 {
		p.complete.Store(true)
	}
	if err := cl.conn.pipe.add(p); err != nil {
		p.refs.Store(1)
		p.unref()
		return err
	}
	defer p.unref()
	p.start(s)
	return nil
}

func (p *produceCall) addPart() {
	if p.usedParts == len(p.parts) {
		part := &producePart{owner: p}
		part.done = part.finish
		p.parts = append(p.parts, part)
	}
	p.parts[p.usedParts].answered = false
	p.usedParts++
}

// start gives every partition's batch to the engine. Results may come while it runs.
func (p *produceCall) start(s *Server) {
	img := s.engine.Image()
	n := 0
	for i := range p.req.Topics {
		t := &p.req.Topics[i]
		topic := p.topic(img, t)
		for j := range t.Partitions {
			p.startPart(s, p.parts[n], topic, &t.Partitions[j])
			n++
		}
	}
}

func (p *produceCall) topic(img *catalog.Image, t *kmsg.ProduceRequestTopic) *catalog.Topic {
	if p.call.version >= 13 {
		return img.TopicByID(t.TopicID)
	}
	return img.Topic(t.Topic)
}

func (p *produceCall) startPart(s *Server, part *producePart, topic *catalog.Topic, req *kmsg.ProduceRequestTopicPartition) {
	err := error(nil)
	switch {
	case p.req.Acks < -1 || p.req.Acks > 1:
		err = errRequiredAcks
	case topic == nil && p.call.version >= 13:
		err = errUnknownTopicID
	case topic == nil || req.Partition < 0 || int(req.Partition) >= len(topic.Partitions):
		err = engine.ErrUnknownPartition
	}
	if err != nil {
		part.fail(err)
		return
	}
	partition := s.engine.Partition(topic.ID, req.Partition)
	if partition == nil {
		part.fail(errNotHere)
		return
	}
	partition.Produce(p.c.ctx, engine.Produce{
		Records: req.Records, Acks: p.req.Acks, RequestVersion: p.call.version, Timeout: p.deadline.Sub(p.call.received),
	}, part.done)
}

func (part *producePart) fail(err error) {
	part.finish(engine.ProduceResult{BaseOffset: -1, LogAppendTime: -1, LogStartOffset: -1, Err: err})
}

// finish takes the result of one partition. It may run on the committer's
// goroutine and does not block.
func (part *producePart) finish(r engine.ProduceResult) {
	p := part.owner
	p.mu.Lock()
	part.result, part.answered = r, true
	p.open--
	last := p.open == 0
	p.mu.Unlock()
	if last {
		p.complete.Store(true)
		signal(p.c.pipe.wake)
	}
	p.unref()
}

// unref ends one use of the call; the last one recycles it.
func (p *produceCall) unref() {
	if p.refs.Add(-1) > 0 {
		return
	}
	p.frame.release()
	if len(p.parts) > 1<<10 {
		p.parts, p.usedParts = nil, 0 // a rare request; do not keep its size
	}
	for _, part := range p.parts[:p.usedParts] {
		part.result = engine.ProduceResult{}
	}
	clear(p.req.Topics)
	p.req.Topics, p.req.TransactionID = p.req.Topics[:0], nil
	p.c, p.call = nil, call{}
	produceCalls.Put(p)
}

// encode appends the response, or nothing for acks=0. Partitions without a result
// are out of time. An error closes the connection: with acks=0 that is the only
// way to tell the client of a failure.
func (p *produceCall) encode(dst []byte) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, part := range p.parts[:p.usedParts] {
		if !part.answered {
			part.result = engine.ProduceResult{BaseOffset: -1, LogAppendTime: -1, LogStartOffset: -1, Err: p.c.s.late()}
		}
	}
	if p.req.Acks == 0 {
		return dst, p.silentFailure()
	}
	v := p.call.version
	flexible := v >= 9
	start := len(dst)
	dst = beginResponse(dst, p.call.correlationID, flexible)
	dst = appendArrayLen(dst, len(p.req.Topics), flexible)
	var hints []leaderHint
	n := 0
	for i := range p.req.Topics {
		t := &p.req.Topics[i]
		if v >= 13 {
			dst = append(dst, t.TopicID[:]...)
		} else {
			dst = appendString(dst, t.Topic, flexible)
		}
		dst = appendArrayLen(dst, len(t.Partitions), flexible)
		for j := range t.Partitions {
			dst, hints = p.appendPart(dst, hints, t, t.Partitions[j].Partition, &p.parts[n].result)
			n++
		}
		if flexible {
			dst = append(dst, 0)
		}
	}
	dst = appendInt32(dst, 0) // throttle time
	if flexible {
		dst = p.c.s.appendEndpoints(dst, &p.call, hints)
	}
	return endResponse(dst, start), nil
}

// silentFailure is the error of a request with acks=0, nil when all went well.
func (p *produceCall) silentFailure() error {
	for _, part := range p.parts[:p.usedParts] {
		if part.result.Err != nil {
			return fmt.Errorf("produce with acks=0 failed: %w", part.result.Err)
		}
	}
	return nil
}

func (p *produceCall) appendPart(dst []byte, hints []leaderHint, t *kmsg.ProduceRequestTopic, index int32, r *engine.ProduceResult) ([]byte, []leaderHint) {
	v := p.call.version
	flexible := v >= 9
	code := p.code(r.Err)
	dst = appendInt32(dst, index)
	dst = appendInt16(dst, code)
	dst = appendInt64(dst, r.BaseOffset)
	dst = appendInt64(dst, r.LogAppendTime)
	if v >= 5 {
		dst = appendInt64(dst, r.LogStartOffset)
	}
	if v >= 8 {
		dst = appendRecordErrors(dst, r.Err, flexible)
	}
	if !flexible {
		return dst, hints
	}
	if v >= 10 && code == codeNotLeaderOrFollower {
		if hint, found := leaderOf(p.topic(p.c.s.engine.Image(), t), index); found {
			dst = append(dst, 1)
			return hint.append(dst, 0), append(hints, hint)
		}
	}
	return append(dst, 0), hints
}

// appendRecordErrors appends what was wrong with single records, and the message.
// Kafka sends a message only together with such a list.
func appendRecordErrors(dst []byte, err error, flexible bool) []byte {
	if err != nil {
		var refused *batch.RecordErrors
		if errors.As(err, &refused) {
			return appendRefused(dst, refused, flexible)
		}
	}
	dst = appendArrayLen(dst, 0, flexible)
	return appendText(dst, "", flexible)
}

func appendRefused(dst []byte, refused *batch.RecordErrors, flexible bool) []byte {
	dst = appendArrayLen(dst, len(refused.Records), flexible)
	for _, r := range refused.Records {
		dst = appendInt32(dst, r.Index)
		dst = appendText(dst, r.Message, flexible)
		if flexible {
			dst = append(dst, 0)
		}
	}
	return appendText(dst, refused.Message, flexible)
}

func (p *produceCall) code(err error) int16 {
	code := errorCode(err)
	if code == codeUnknownServerError {
		p.c.s.warn.warn("cannot append", slog.Any("error", err), slog.String("client", p.c.remoteHost))
	}
	return code
}
