package server

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/millrace/millrace/engine/catalog"
)

// A fetch session (KIP-227) is the server's memory of what a client fetches, so
// that requests and responses carry only what has changed.
//
//	request: session id, epoch           what happens
//	0, 0 (full)                          answered whole; a session is made when there is room: its id is in the
//	                                     response, its epoch is 1
//	0 or an id, -1 (final)               answered whole, no session is made
//	an id, 0                             the session is closed, then as 0, 0
//	an id, the expected epoch            what the request lists is added or changed, what it forgets is dropped;
//	                                     answered with what has changed; the epoch grows by one
//	an id, another epoch                 INVALID_FETCH_SESSION_EPOCH
//	an id that is not known              FETCH_SESSION_ID_NOT_FOUND

const (
	noSession    = 0  // a session id
	initialEpoch = 0  // asks for a new session
	finalEpoch   = -1 // asks for none

	// sessionKeepTime is how long a session cannot be evicted by a larger one after it
	// was made, and how long it may be idle until any other may take its place.
	sessionKeepTime = 2 * time.Minute

	// maxSessionPartitions bounds what all sessions together remember.
	maxSessionPartitions = 1 << 20
)

// nextSessionEpoch is the epoch that follows one: it skips 0 when it wraps around.
func nextSessionEpoch(epoch int32) int32 {
	switch {
	case epoch < 0:
		return finalEpoch
	case epoch == math.MaxInt32:
		return 1
	}
	return epoch + 1
}

// fetchKey names a partition in a session: by id since v13, by name before.
type fetchKey struct {
	id        catalog.TopicID
	name      string // "" when there is an id
	partition int32
}

// fetchWant is what a client wants of one partition.
type fetchWant struct {
	offset         int64
	maxBytes       int32
	leaderEpoch    int32 // -1: not known
	fetchedEpoch   int32 // of the last record that the client has; -1: not known
	logStartOffset int64 // of a follower
}

// sessionPartition is one partition of a session.
type sessionPartition struct {
	key  fetchKey
	name string // of the topic; "" while an id could not be resolved
	want fetchWant

	// What the client was told last; -1 also makes the next answer be sent.
	highWatermark  int64
	logStartOffset int64
	sent           bool // records, with the latest answer
}

// changed tells whether an answer has to be sent, and remembers it.
func (p *sessionPartition) changed(r *fetchResult) bool {
	send := r.size > 0 || r.diverging || r.elsewhere || r.code != codeNone ||
		p.highWatermark != r.highWatermark || p.logStartOffset != r.logStartOffset
	p.highWatermark, p.logStartOffset = r.highWatermark, r.logStartOffset
	if r.code != codeNone {
		p.highWatermark = -1 // so that the end of the error is sent too
	}
	return send
}

// fetchSession is one session. It is guarded by its cache's lock, with all that it
// refers to.
type fetchSession struct {
	id       int32
	epoch    int32
	byID     bool // whether its requests use topic ids
	created  time.Time
	lastUsed time.Time
	order    []*sessionPartition // the order in which they are read
	index    map[fetchKey]*sessionPartition
}

// rotate moves what has just been sent to the end, so that partitions take turns.
func (s *fetchSession) rotate() {
	rest := make([]*sessionPartition, 0, len(s.order))
	var last []*sessionPartition
	for _, p := range s.order {
		if p.sent {
			p.sent = false
			last = append(last, p)
		} else {
			rest = append(rest, p)
		}
	}
	s.order = append(rest, last...)
}

// sessionCache holds the sessions of a server, at most as many as there are slots.
type sessionCache struct {
	slots int
	now   func() time.Time

	mu         sync.Mutex // guards the rest, and the sessions; never held across I/O
	sessions   map[int32]*fetchSession
	partitions int
}

func newSessionCache(slots int, now func() time.Time) *sessionCache {
	return &sessionCache{slots: slots, now: now, sessions: map[int32]*fetchSession{}}
}

// remove closes a session if there is one of this id.
func (c *sessionCache) remove(id int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(id)
}

func (c *sessionCache) drop(id int32) {
	if s := c.sessions[id]; s != nil {
		c.partitions -= len(s.order)
		delete(c.sessions, id)
	}
}

// create makes a session when there is room for one, or when another must give
// way; it returns the id, or noSession.
func (c *sessionCache) create(byID bool, parts []*sessionPartition) int32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if c.partitions+len(parts) > maxSessionPartitions || len(c.sessions) >= c.slots && !c.evict(len(parts), now) {
		return noSession
	}
	s := &fetchSession{epoch: nextSessionEpoch(initialEpoch), byID: byID, created: now, lastUsed: now, order: parts}
	s.index = make(map[fetchKey]*sessionPartition, len(parts))
	for _, p := range parts {
		s.index[p.key] = p
	}
	for s.id == noSession || c.sessions[s.id] != nil {
		s.id = rand.Int32()
	}
	c.sessions[s.id] = s
	c.partitions += len(parts)
	return s.id
}

// evict makes room for a session with so many partitions: in place of one that
// has been idle for long, or of the smallest one that is smaller and not young.
func (c *sessionCache) evict(size int, now time.Time) bool {
	var idle, smallest *fetchSession
	for _, s := range c.sessions {
		if idle == nil || s.lastUsed.Before(idle.lastUsed) {
			idle = s
		}
		old := s.lastUsed.Sub(s.created) > sessionKeepTime
		if old && (smallest == nil || len(s.order) < len(smallest.order)) {
			smallest = s
		}
	}
	switch {
	case idle != nil && now.Sub(idle.lastUsed) > sessionKeepTime:
		c.drop(idle.id)
	case smallest != nil && size > len(smallest.order):
		c.drop(smallest.id)
	default:
		return false
	}
	return true
}

// resume applies an incremental request to its session and returns it with the
// epoch that the answer has to find; code tells why there is none. list is given
// its partitions, under the lock. A session that has become empty is closed, and
// nil is returned without a code.
func (c *sessionCache) resume(id, epoch int32, byID bool, wanted []*sessionPartition, forget []fetchKey, list func([]*sessionPartition)) (s *fetchSession, expected int32, code int16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s = c.sessions[id]
	switch {
	case s == nil:
		return nil, 0, codeFetchSessionIDNotFound
	case s.epoch != epoch:
		return nil, 0, codeInvalidFetchSessionEpoch
	case s.byID != byID:
		return nil, 0, codeFetchSessionTopicIDError
	}
	before := len(s.order)
	for _, w := range wanted {
		if have := s.index[w.key]; have != nil {
			have.want = w.want
			continue
		}
		s.index[w.key] = w
		s.order = append(s.order, w)
	}
	s.forget(forget)
	c.partitions += len(s.order) - before
	if len(s.order) == 0 {
		c.drop(id)
		return nil, 0, codeNone
	}
	if c.partitions > maxSessionPartitions {
		c.drop(id)
		return nil, 0, codeFetchSessionIDNotFound
	}
	s.lastUsed = c.now()
	s.epoch = nextSessionEpoch(s.epoch)
	list(s.order)
	return s, s.epoch, codeNone
}

func (s *fetchSession) forget(keys []fetchKey) {
	dropped := false
	for _, k := range keys {
		if s.index[k] != nil {
			delete(s.index, k)
			dropped = true
		}
	}
	if !dropped {
		return
	}
	kept := s.order[:0]
	for _, p := range s.order {
		if s.index[p.key] == p {
			kept = append(kept, p)
		}
	}
	clear(s.order[len(kept):])
	s.order = kept
}
