package server

import (
	"reflect"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/segment"
)

// Observer takes one measurement. It must not block.
type Observer = segment.Observer

// Metrics is what a server measures while it works. What is nil is not told; the
// zero value measures nothing and costs nothing. What can be read at any moment is in
// Server.Stats.
type Metrics struct {
	Clock func() time.Duration // monotonic; nil: no seconds are measured

	ProduceRead Observer // of each produce request: from its first byte to its last
	ProduceWait Observer // of each: from its last result until its answer is begun
	ProduceSend Observer // of each write to a socket, which may answer several
	FetchWait   Observer // of each fetch: until there is something to answer, or its time is up
	FetchRead   Observer // of each: reading and checking records
	FetchSend   Observer // of each: remembering, encoding, and the socket

	// Request gives the Observer of an API, which is told the time from a request's last
	// byte until its answer is with the kernel. Called once for each API by New.
	Request func(api string) Observer
	// Failed is told that a response carries an error code n times, by Kafka's name of it.
	Failed func(api, code string, n int)
}

func (m *Metrics) now() time.Duration {
	if m.Clock == nil {
		return 0
	}
	return m.Clock()
}

// elapsed tells o how long it took from one reading of the clock to another.
func (m *Metrics) elapsed(o Observer, from, to time.Duration) {
	if o != nil && m.Clock != nil {
		o.Observe(max(to-from, 0).Seconds())
	}
}

// failed counts an error code of a response.
func (m *Metrics) failed(key, code int16, n int) {
	if code == codeNone || m.Failed == nil {
		return
	}
	name := "UNKNOWN"
	if err := kerr.TypedErrorForCode(code); err != nil {
		name = err.Message
	}
	m.Failed(kmsg.NameForKey(key), name, n)
}

// sent notes that produce requests were answered; begun is when that began, and
// wrote whether anything went to the socket.
func (m *Metrics) sent(s *Server, calls []*produceCall, begun time.Duration, wrote bool) {
	if m.Clock == nil {
		return
	}
	now := m.Clock()
	if wrote {
		m.elapsed(m.ProduceSend, begun, now)
	}
	latency := s.registry.byKey[produce.key].latency
	for _, p := range calls {
		if p.complete.Load() && p.usedParts > 0 {
			m.elapsed(m.ProduceWait, p.completed, begun)
		}
		m.elapsed(latency, p.call.began, now)
	}
}

// errorFields finds the error codes in responses of one type, as reflection over a
// whole response would be slow: only what can hold one is looked at.
type errorFields struct {
	code  int // index of ErrorCode, -1 without one
	inner []innerFields
}

type innerFields struct {
	index int
	slice bool
	of    *errorFields
}

// errorFieldsOf returns nil when a struct holds no error code.
func errorFieldsOf(t reflect.Type) *errorFields {
	e := &errorFields{code: -1}
	for i := range t.NumField() {
		f := t.Field(i)
		elem, slice := f.Type, f.Type.Kind() == reflect.Slice
		if slice {
			elem = elem.Elem()
		}
		switch {
		case f.Name == "ErrorCode" && elem.Kind() == reflect.Int16:
			e.code = i
		case elem.Kind() == reflect.Struct:
			if of := errorFieldsOf(elem); of != nil {
				e.inner = append(e.inner, innerFields{i, slice, of})
			}
		}
	}
	if e.code < 0 && len(e.inner) == 0 {
		return nil
	}
	return e
}

// each calls f for every error code that is not 0; n is how often it comes in a row.
func (e *errorFields) each(v reflect.Value, f func(code int16, n int)) {
	if e == nil {
		return
	}
	run := codeRun{found: f}
	e.walk(v, &run)
	run.add(codeNone)
}

func (e *errorFields) walk(v reflect.Value, run *codeRun) {
	if e.code >= 0 {
		if code := int16(v.Field(e.code).Int()); code != codeNone {
			run.add(code)
		}
	}
	for _, in := range e.inner {
		if !in.slice {
			in.of.walk(v.Field(in.index), run)
			continue
		}
		list := v.Field(in.index)
		for i := range list.Len() {
			in.of.walk(list.Index(i), run)
		}
	}
}

// codeRun counts equal codes that follow one another.
type codeRun struct {
	found func(code int16, n int)
	code  int16
	n     int
}

func (r *codeRun) add(code int16) {
	if code != r.code && r.n > 0 {
		r.found(r.code, r.n)
		r.n = 0
	}
	r.code = code
	r.n++
}

// countErrors counts the error codes of a response that kmsg encodes.
func (s *Server) countErrors(a *api, resp kmsg.Response) {
	if s.opts.Metrics.Failed != nil {
		a.errors.each(reflect.ValueOf(resp).Elem(), func(code int16, n int) { s.opts.Metrics.failed(a.key, code, n) })
	}
}

// countFetched counts what a fetch has sent, and the errors it told.
func (r *fetchRun) countFetched(code int16) {
	var bytes int64
	errors := codeRun{found: func(code int16, n int) { r.s.opts.Metrics.failed(fetch.key, code, n) }}
	if code != codeNone {
		errors.add(code)
	}
	for i := range r.st.results {
		res := &r.st.results[i]
		if res.code != codeNone {
			errors.add(res.code)
		}
		bytes += int64(res.size)
	}
	errors.add(codeNone)
	if bytes > 0 {
		r.s.stats.fetchedRecords.Add(r.st.view.Records)
		r.s.stats.fetchedBytes.Add(bytes)
	}
}

// BudgetStats is how much of a bound of memory is in use.
type BudgetStats struct{ Used, Bound int64 }

func (b *budget) stats() BudgetStats {
	return BudgetStats{Used: b.main.Used() + b.reserve.Used(), Bound: b.bytes + b.spare}
}

// count is how many sessions there are, and how many partitions they remember.
func (c *sessionCache) count() (sessions, partitions int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sessions), c.partitions
}
