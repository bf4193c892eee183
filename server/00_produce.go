package server

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

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
	c             *conn
	call          call
	acks          int16
	timeoutMillis int32
	topics        []produceTopic
	parts         []*producePart // of all topics, in the order of the request
	usedParts     int

	frame    frame // the text, and records that are short
	clientID span
	bytes    int // of the whole request
	deadline time.Time

	completed time.Duration // when, by the clock of the metrics; set before complete is
	complete  atomic.Bool   // every partition has its result
	refs      atomic.Int32  // the pipeline, the reader while it starts, and the partitions that have no result
	mu        sync.Mutex    // guards the results in parts
	open      int           // partitions without a result
}

// span is a part of a request's text.
type span struct{ from, to int }

func (p *produceCall) text(s span) []byte { return p.frame.buf.b[s.from:s.to:s.to] }

// produceTopic is one topic of a produce request.
type produceTopic struct {
	name  span     // before version 13
	id    [16]byte // from then on
	parts int
}

// producePart is one partition of a produce request.
type producePart struct {
	owner     *produceCall
	done      func(engine.ProduceResult) // made once, for the life of the struct
	index     int32
	short     span              // its records in the text
	own       frame             // or else here, until the partition has its result
	partition *engine.Partition // that works on it, nil before it does
	answered  bool
	result    engine.ProduceResult
}

var produceCalls = sync.Pool{New: func() any { return new(produceCall) }}

// leastProduceTime is how long a batch may always take to become durable. Kafka's
// timeout counts only the wait for other replicas, so some clients send 0.
const leastProduceTime = time.Second

// Answered without the engine.
var (
	errRequiredAcks   = errors.New("server: acks must be -1, 0 or 1")
	errUnknownTopicID = errors.New("server: unknown topic id")
	errTimedOut       = errors.New("server: not durable within the request's timeout")
)

// serveProduce reads a produce request of the given size, hands it to the engine
// and queues its answer. Nothing of it takes effect before all of it has been read.
func (c *conn) serveProduce(size int) (err error) {
	p := produceCalls.Get().(*produceCall)
	p.c = c
	p.refs.Store(1)
	p.complete.Store(false)
	err = c.frames.readProduce(c.ctx, size, p)
	if p.frame.buf != nil {
		if name := p.text(p.clientID); c.clientID != string(name) {
			c.clientID = string(name)
		}
	}
	if err != nil {
		p.unref()
		return err
	}
	c.s.stats.requests.Add(1)
	c.s.stats.received.Add(int64(len(c.frames.sizeField) + size))
	p.call.conn, p.call.clientID, p.call.received = c, c.clientID, c.s.opts.Now()
	p.call.began = c.s.opts.Metrics.now()
	c.s.opts.Metrics.elapsed(c.s.opts.Metrics.ProduceRead, c.begun, p.call.began)
	cl := p.call
	defer c.survive(&cl, &err)
	return p.begin()
}

// begin queues the call and gives its partitions to the engine.
func (p *produceCall) begin() error {
	p.deadline = p.call.received.Add(max(time.Duration(p.timeoutMillis)*time.Millisecond, leastProduceTime))
	p.open = p.usedParts
	p.refs.Add(int32(p.usedParts) + 1) // one for us while we start them
	if p.usedParts == 0 {
		p.complete.Store(true)
	}
	if err := p.c.pipe.add(p); err != nil {
		p.refs.Store(1)
		p.unref()
		return err
	}
	defer p.unref()
	p.start(p.c.s)
	return nil
}

func (p *produceCall) addPart() *producePart {
	if p.usedParts == len(p.parts) {
		part := &producePart{owner: p}
		part.done = part.finish
		p.parts = append(p.parts, part)
	}
	p.usedParts++
	return p.parts[p.usedParts-1]
}

// start gives every partition's batch to the engine. Results may come while it runs.
func (p *produceCall) start(s *Server) {
	img := s.engine.Image()
	parts := p.parts
	for i := range p.topics {
		t := &p.topics[i]
		topic := p.topic(img, t)
		for _, part := range parts[:t.parts] {
			p.startPart(s, part, topic)
		}
		parts = parts[t.parts:]
	}
}

// longestName is a topic's; longer ones are not worth looking up.
const longestName = 249

func (p *produceCall) topic(img *catalog.Image, t *produceTopic) *catalog.Topic {
	if p.call.version >= 13 {
		return img.TopicByID(t.id)
	}
	name := p.text(t.name)
	if len(name) > longestName {
		return nil
	}
	return img.Topic(string(name))
}

func (p *produceCall) startPart(s *Server, part *producePart, topic *catalog.Topic) {
	err := error(nil)
	switch {
	case p.acks < -1 || p.acks > 1:
		err = errRequiredAcks
	case topic == nil && p.call.version >= 13:
		err = errUnknownTopicID
	case topic == nil || part.index < 0 || int(part.index) >= len(topic.Partitions):
		err = engine.ErrUnknownPartition
	}
	if err != nil {
		part.fail(err)
		return
	}
	partition, err := s.engine.Partition(topic.ID, part.index)
	if err != nil {
		part.fail(err)
		return
	}
	p.mu.Lock()
	part.partition = partition
	p.mu.Unlock()
	partition.Produce(p.c.ctx, engine.Produce{
		Records: part.records(), Acks: p.acks, RequestVersion: p.call.version, Timeout: p.deadline.Sub(p.call.received),
	}, part.done)
}

func (part *producePart) records() []byte {
	if part.own.buf != nil {
		return part.own.buf.b
	}
	return part.owner.text(part.short)
}

func (part *producePart) fail(err error) {
	part.finish(engine.ProduceResult{BaseOffset: -1, LogAppendTime: -1, LogStartOffset: -1, Err: err})
}

// finish takes the result of one partition, and gives back the memory of its
// records. It may run on the committer's goroutine and does not block.
func (part *producePart) finish(r engine.ProduceResult) {
	p := part.owner
	part.own.release()
	p.mu.Lock()
	part.result, part.answered = r, true
	p.open--
	last := p.open == 0
	p.mu.Unlock()
	if last {
		p.completed = p.c.s.opts.Metrics.now()
		p.complete.Store(true)
	}
	if last || p.c.s.stalled() { // nobody may be waiting for the rest
		signal(p.c.pipe.wake)
	}
	p.unref()
}

// unref ends one use of the call; the last one recycles it.
func (p *produceCall) unref() {
	if p.refs.Add(-1) > 0 {
		return
	}
	for _, part := range p.parts[:p.usedParts] {
		part.own.release() // when it was never started
		part.short, part.answered, part.partition, part.result = span{}, false, nil, engine.ProduceResult{}
	}
	p.frame.release()
	if len(p.parts) > 1<<10 || cap(p.topics) > 1<<10 {
		p.parts, p.topics = nil, nil // a rare request; do not keep its size
	}
	p.usedParts, p.topics = 0, p.topics[:0]
	p.c, p.call, p.clientID = nil, call{}, span{}
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
			part.result = engine.ProduceResult{BaseOffset: -1, LogAppendTime: -1, LogStartOffset: -1, Err: part.late()}
		}
	}
	if p.acks == 0 {
		return dst, p.silentFailure()
	}
	v := p.call.version
	flexible := v >= 9
	start := len(dst)
	dst = beginResponse(dst, p.call.correlationID, flexible)
	dst = appendArrayLen(dst, len(p.topics), flexible)
	var hints []leaderHint
	parts := p.parts
	for i := range p.topics {
		t := &p.topics[i]
		if v >= 13 {
			dst = append(dst, t.id[:]...)
		} else {
			dst = appendString(dst, p.text(t.name), flexible)
		}
		dst = appendArrayLen(dst, t.parts, flexible)
		for _, part := range parts[:t.parts] {
			dst, hints = p.appendPart(dst, hints, t, part.index, &part.result)
		}
		parts = parts[t.parts:]
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
			p.c.s.opts.Metrics.failed(produce.key, p.code(part.result.Err), 1)
			return fmt.Errorf("produce with acks=0 failed: %w", part.result.Err)
		}
	}
	return nil
}

func (p *produceCall) appendPart(dst []byte, hints []leaderHint, t *produceTopic, index int32, r *engine.ProduceResult) ([]byte, []leaderHint) {
	v := p.call.version
	flexible := v >= 9
	code := p.code(r.Err)
	p.c.s.opts.Metrics.failed(produce.key, code, 1)
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
