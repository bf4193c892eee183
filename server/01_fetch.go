package server

import (
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/segment"
)

// Fetch (v4-18).
//
// v5: log start offset
// v7: fetch sessions, see fetch_session.go
// v9: current leader epoch
// v11: rack of the client, preferred read replica; a follower answers consumers, too (KIP-392)
// v12: flexible; last fetched epoch and diverging epoch
// v13: topic ids instead of names
// v15: the replica is named in a tagged field
// v16: KIP-951: current leader and its endpoint
// v17, v18: fields of followers, which are not looked at
//
// A fetch that finds less than it asked for waits on the reader goroutine, with
// one registration per partition and one timer, until an append wakes it.
var fetch = api{key: 1, min: 4, max: 18}

// fetchResult is the answer for one partition.
type fetchResult struct {
	part      *sessionPartition // guarded by the session cache's lock
	key       fetchKey
	name      string // of the topic; "" while an id could not be resolved
	want      fetchWant
	partition *engine.Partition

	code             int16
	unknown          bool // the catalogue does not have it
	hint             leaderHint
	hinted           bool
	diverging        bool
	divergingEpoch   int32
	divergingEnd     int64
	highWatermark    int64
	lastStableOffset int64
	logStartOffset   int64
	elsewhere        bool  // the client is to read from
	preferred        int32 // this replica
	size             int   // bytes of records
	first, last      int   // the pieces of the view that are the records
}

// fetchState is what a connection keeps from fetch to fetch, so that a fetch
// allocates next to nothing. Only the reader uses it.
type fetchState struct {
	req     kmsg.FetchRequest
	results []fetchResult
	waiter  *engine.Waiter
	timer   *time.Timer
	view    segment.View // the records of the answer that is being made
	pieces  net.Buffers  // of that answer
}

// fetchRun is one fetch.
type fetchRun struct {
	s       *Server
	cl      *call
	st      *fetchState
	session *fetchSession // nil without one
	epoch   int32         // that the session must still have when the answer is made
	byID    bool
	limit   int    // bytes of records
	min     int    // bytes to wait for
	used    int    // bytes of records found so far
	charge  charge // for them
}

func (s *Server) fetch(cl *call, body []byte) error {
	st := &cl.conn.fetching
	st.req.Version = cl.version
	if err := st.req.UnsafeReadFrom(body); err != nil {
		return fmt.Errorf("%w: Fetch v%d: %w", errMalformed, cl.version, err)
	}
	r := &fetchRun{s: s, cl: cl, st: st, byID: cl.version >= 13}
	defer r.end()
	sessionID, code := r.open()
	if code != codeNone {
		return r.respond(code, noSession)
	}
	r.limit = min(int(st.req.MaxBytes), s.opts.FetchMaxBytes, int(s.opts.FetchResponseBytes/32))
	r.min = min(int(st.req.MinBytes), r.limit)
	m := &s.opts.Metrics
	begun := m.now()
	r.await()
	waited := m.now()
	m.elapsed(m.FetchWait, begun, waited)
	if err := r.read(); err != nil {
		return err
	}
	read := m.now()
	m.elapsed(m.FetchRead, waited, read)
	sessionID, code = r.remember(sessionID)
	err := r.respond(code, sessionID)
	m.elapsed(m.FetchSend, read, m.now())
	return err
}

// end gives back the memory, and drops what refers to the frame.
func (r *fetchRun) end() {
	st := r.st
	st.view.Release()
	r.charge.giveBack()
	clear(st.results)
	st.results = st.results[:0]
	if cap(st.results) > 1<<14 {
		st.results = nil
	}
	if cap(st.req.Topics) > 1<<12 {
		st.req.Topics = nil
	}
	topics := st.req.Topics[:0]
	clear(st.req.Topics)
	st.req = kmsg.FetchRequest{Topics: topics}
}

// open finds the session, and lists the partitions to be answered in st.results.
// It returns the session's id, noSession without one.
func (r *fetchRun) open() (int32, int16) {
	req := &r.st.req
	if r.cl.version < 7 {
		req.SessionID, req.SessionEpoch = noSession, finalEpoch
	}
	wanted := r.wanted()
	if req.SessionEpoch == initialEpoch || req.SessionEpoch == finalEpoch {
		if req.SessionID != noSession {
			r.s.sessions.remove(req.SessionID)
		}
		r.list(wanted)
		return noSession, codeNone
	}
	var code int16
	r.session, r.epoch, code = r.s.sessions.resume(req.SessionID, req.SessionEpoch, r.byID, wanted, r.forgotten(), r.list)
	if code != codeNone || r.session == nil { // nil: nothing is left of it
		return noSession, code
	}
	return req.SessionID, codeNone
}

// wanted lists the partitions in the request. One that is named twice counts once,
// with what was said last.
func (r *fetchRun) wanted() []*sessionPartition {
	n := 0
	for i := range r.st.req.Topics {
		n += len(r.st.req.Topics[i].Partitions)
	}
	if n == 0 {
		return nil
	}
	backing := make([]sessionPartition, 0, n)
	list := make([]*sessionPartition, 0, n)
	var seen map[fetchKey]*sessionPartition
	if n > 1 {
		seen = make(map[fetchKey]*sessionPartition, n)
	}
	img := r.s.engine.Image()
	for i := range r.st.req.Topics {
		t := &r.st.req.Topics[i]
		key, name := r.topicKey(img, t.Topic, t.TopicID)
		for j := range t.Partitions {
			p := &t.Partitions[j]
			key.partition = p.Partition
			want := fetchWant{
				offset: p.FetchOffset, maxBytes: p.PartitionMaxBytes, leaderEpoch: p.CurrentLeaderEpoch,
				fetchedEpoch: p.LastFetchedEpoch, logStartOffset: p.LogStartOffset,
			}
			if have := seen[key]; have != nil {
				have.want = want
				continue
			}
			backing = append(backing, sessionPartition{key: key, name: name, want: want, highWatermark: -1, logStartOffset: -1})
			part := &backing[len(backing)-1]
			list = append(list, part)
			if seen != nil {
				seen[key] = part
			}
		}
	}
	return list
}

// topicKey makes the key of a topic's partitions. Its strings outlive the frame.
func (r *fetchRun) topicKey(img *catalog.Image, name string, id catalog.TopicID) (fetchKey, string) {
	if r.byID {
		if t := img.TopicByID(id); t != nil {
			return fetchKey{id: id}, t.Name
		}
		return fetchKey{id: id}, ""
	}
	if t := img.Topic(name); t != nil {
		name = t.Name
	} else {
		name = string([]byte(name))
	}
	return fetchKey{name: name}, name
}

func (r *fetchRun) forgotten() []fetchKey {
	var keys []fetchKey
	for i := range r.st.req.ForgottenTopics {
		t := &r.st.req.ForgottenTopics[i]
		key := fetchKey{name: t.Topic}
		if r.byID {
			key = fetchKey{id: t.TopicID}
		}
		for _, p := range t.Partitions {
			key.partition = p
			keys = append(keys, key)
		}
	}
	return keys
}

func (r *fetchRun) list(parts []*sessionPartition) {
	r.st.results = r.st.results[:0]
	for _, p := range parts {
		r.st.results = append(r.st.results, fetchResult{part: p, key: p.key, name: p.name, want: p.want})
	}
}

// replica is the id of the follower that fetches, negative for a consumer.
func (r *fetchRun) replica() int32 {
	if r.cl.version >= 15 {
		return r.st.req.ReplicaState.ID
	}
	return r.st.req.ReplicaID
}

// examine finds every partition and what is wrong with the request for it, and
// tells whether the answer can be given now: there is an error, a divergence, or
// enough to read. It touches the disk only when it has to count bytes.
func (r *fetchRun) examine() bool {
	img := r.s.engine.Image()
	ready := len(r.st.results) == 0 || r.st.req.MaxWaitMillis <= 0
	available := 0
	for i := range r.st.results {
		res := &r.st.results[i]
		*res = fetchResult{part: res.part, key: res.key, name: res.name, want: res.want, highWatermark: -1, lastStableOffset: -1, logStartOffset: -1}
		r.locate(img, res)
		if res.code == codeNone {
			r.check(img, res)
		}
		if res.code != codeNone || res.diverging || res.elsewhere {
			ready = true
			continue
		}
		if !ready {
			available += r.available(res)
		}
	}
	return ready || available >= r.min
}

// locate finds the partition of one result.
func (r *fetchRun) locate(img *catalog.Image, res *fetchResult) {
	if res.name == "" {
		if t := img.TopicByID(res.key.id); t != nil {
			res.name = t.Name
		} else {
			res.code, res.unknown = codeUnknownTopicOrPartition, true
			if r.byID {
				res.code = codeUnknownTopicID
			}
			return
		}
	}
	t := img.Topic(res.name)
	if t == nil || res.key.partition < 0 || int(res.key.partition) >= len(t.Partitions) {
		res.code, res.unknown = codeUnknownTopicOrPartition, true
		return
	}
	if r.byID && t.ID != res.key.id {
		res.code = codeInconsistentTopicID
		return
	}
	var err error
	if res.partition, err = r.s.engine.Partition(t.ID, res.key.partition); err != nil {
		r.fail(res, err)
	}
}

// check compares what the client knows about leaders with what is so here, and finds out whether it had better read elsewhere.
func (r *fetchRun) check(img *catalog.Image, res *fetchResult) {
	want := &res.want
	anyReplica := r.cl.version >= 11 && r.replica() < 0
	err := res.partition.CheckReplica(want.leaderEpoch)
	if err == nil && !anyReplica {
		err = res.partition.CheckLeader(want.leaderEpoch)
	}
	if err != nil {
		r.fail(res, err)
		return
	}
	if anyReplica && r.st.req.Rack != "" {
		res.preferred = r.s.engine.ReadReplica(img, res.partition, r.st.req.Rack, want.offset)
		if res.elsewhere = res.preferred >= 0; res.elsewhere {
			r.offsets(res)
			return
		}
	}
	if r.replica() >= 0 {
		// No other broker replicates from this one, so every follower is a stranger.
		if want.leaderEpoch >= 0 {
			r.failWith(res, codeUnknownLeaderEpoch)
		} else {
			r.failWith(res, codeNotLeaderOrFollower)
		}
		return
	}
	if want.offset < res.partition.LogStartOffset() || want.offset > res.partition.LogEndOffset() {
		res.code = codeOffsetOutOfRange // a follower may lag; told that by one, clients turn to the leader
	}
	if want.fetchedEpoch < 0 || res.code != codeNone && !res.partition.Leads() {
		return
	}
	switch epoch, end := res.partition.EndOffsetForEpoch(want.fetchedEpoch); {
	case epoch < 0 || end < 0:
		res.code = codeOffsetOutOfRange
	case epoch < want.fetchedEpoch || end < want.offset:
		res.code, res.diverging, res.divergingEpoch, res.divergingEnd = codeNone, true, epoch, end
		r.offsets(res)
	}
}

// offsets notes where the partition begins and ends now.
func (r *fetchRun) offsets(res *fetchResult) {
	res.logStartOffset = res.partition.LogStartOffset()
	res.highWatermark = res.partition.HighWatermark()
	res.lastStableOffset = res.partition.LastStableOffset()
}

// available is how many bytes could be read, as far as the answer needs to know.
func (r *fetchRun) available(res *fetchResult) int {
	offset := res.want.offset
	if offset >= res.partition.HighWatermark() {
		return 0
	}
	if r.min <= 1 {
		return 1
	}
	n, err := res.partition.AvailableBytes(offset)
	if err != nil {
		return r.min // reading will find the same error and report it
	}
	return int(min(n, int64(max(res.want.maxBytes, 0))))
}

// fail notes an error.
func (r *fetchRun) fail(res *fetchResult, err error) {
	code := errorCode(err)
	if code == codeUnknownServerError || code == codeCorruptMessage {
		r.s.warn.warn("cannot read", slog.Any("error", err), slog.String("topic", res.name), slog.Int("partition", int(res.key.partition)))
	}
	r.failWith(res, code)
}

// failWith notes an error code, and who leads if that may be the reason.
func (r *fetchRun) failWith(res *fetchResult, code int16) {
	res.highWatermark, res.lastStableOffset, res.logStartOffset, res.size, res.elsewhere = -1, -1, -1, 0, false
	res.code = code
	if code == codeKafkaStorageError && r.cl.version <= 5 {
		res.code = codeNotLeaderOrFollower // older clients do not know the other
	}
	if r.cl.version >= 16 && (code == codeNotLeaderOrFollower || code == codeFencedLeaderEpoch) {
		res.hint, res.hinted = leaderOf(r.s.engine.Image().Topic(res.name), res.key.partition)
	}
}

// await waits until there is something to answer, or the client's patience ends.
func (r *fetchRun) await() {
	if r.examine() {
		return
	}
	st := r.st
	if st.waiter == nil {
		st.waiter = engine.NewWaiter()
		st.timer = time.NewTimer(time.Hour)
	}
	select {
	case <-st.waiter.C: // left from an earlier fetch
	default:
	}
	watched := make([]*engine.Partition, 0, len(st.results))
	for i := range st.results {
		p := st.results[i].partition
		p.Watch(st.waiter)
		watched = append(watched, p)
	}
	defer func() {
		for _, p := range watched {
			p.Unwatch(st.waiter)
		}
	}()
	st.timer.Reset(min(time.Duration(st.req.MaxWaitMillis)*time.Millisecond, r.s.opts.MaxIdle))
	defer st.timer.Stop()
	for !r.examine() { // once more after Watch: what came before it has woken nobody
		select {
		case <-st.waiter.C:
		case <-st.timer.C:
			r.examine()
			return
		case <-r.s.serving.Done():
			return
		case <-r.cl.conn.ctx.Done():
			return
		}
	}
}

// remember brings the session up to date with the answer, and strikes from the
// results what the client knows already. It returns the id to be answered.
func (r *fetchRun) remember(id int32) (int32, int16) {
	if r.session == nil {
		if r.st.req.SessionEpoch != initialEpoch || r.cl.version < 7 {
			return noSession, codeNone
		}
		parts := make([]*sessionPartition, len(r.st.results))
		for i := range r.st.results {
			res := &r.st.results[i]
			res.part.name = res.name
			res.part.highWatermark, res.part.logStartOffset = res.highWatermark, res.logStartOffset
			parts[i] = res.part
		}
		return r.s.sessions.create(r.byID, parts), codeNone
	}
	c := r.s.sessions
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.session.epoch != r.epoch {
		r.st.results = r.st.results[:0]
		return id, codeInvalidFetchSessionEpoch // the same request twice, on two connections
	}
	kept, moved := r.st.results[:0], false
	for i := range r.st.results {
		res := r.st.results[i]
		res.part.name = res.name
		if res.part.changed(&res) {
			res.part.sent = res.size > 0
			moved = moved || res.part.sent
			kept = append(kept, res)
		}
	}
	r.st.results = kept
	if moved {
		r.session.rotate()
	}
	return id, codeNone
}
