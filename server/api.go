package server

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// api is one Kafka API as served here: its key, its range of versions and what
// answers it. Each is declared in the file of its handler and listed in apis.go.
type api struct {
	key      int16
	min, max int16

	// serve answers one request. It runs on the connection's reader, after all
	// earlier responses of that connection have been written. It may block as long
	// as the request allows; ctx ends when the connection is closed or a shutdown
	// runs out of patience. An error closes the connection with a log line.
	serve func(s *Server, ctx context.Context, c *call, req kmsg.Request) (kmsg.Response, error)

	// keepsBytes says that the handler keeps byte fields of the request after it
	// has answered. The request is then decoded from a copy of its own.
	keepsBytes bool

	flexible int16        // first version with a flexible header, set by newRegistry
	shape    *shape       // what a request looks like, set by newRegistry
	errors   *errorFields // where its responses hold error codes, set by newRegistry
	latency  Observer     // nil without metrics
}

// call is what a handler knows about the request beside the request.
type call struct {
	conn          *conn
	key, version  int16
	correlationID int32
	clientID      string // "" when the client sent none
	received      time.Time
	began         time.Duration // as received, by the clock of the metrics
}

// clientHost is the address of the client as Kafka shows it in groups: "/127.0.0.1".
func (c *call) clientHost() string { return "/" + c.conn.remoteHost }

// endpoint is the address under which this client is told to reach this broker:
// the advertised one, or else the address that this connection reached.
func (c *call) endpoint() (host string, port int32) {
	if c.conn.s.opts.AdvertisedHost != "" {
		return c.conn.s.opts.AdvertisedHost, c.conn.s.opts.AdvertisedPort
	}
	return c.conn.localHost, c.conn.localPort
}

// registry finds an api by its key.
type registry struct {
	byKey map[int16]*api
	list  []*api // in the order of the keys
}

// newRegistry leaves the declarations as they are, so that servers share nothing.
func newRegistry(list []*api, m *Metrics) *registry {
	r := &registry{byKey: make(map[int16]*api, len(list))}
	for _, declared := range list {
		a := *declared
		req := kmsg.RequestForKey(a.key)
		a.flexible = a.max + 1
		for v := a.max; v >= a.min; v-- {
			if req.SetVersion(v); req.IsFlexible() {
				a.flexible = v
			}
		}
		a.shape = shapes[a.key]
		a.errors = errorFieldsOf(reflect.TypeOf(kmsg.ResponseForKey(a.key)).Elem())
		if m.Request != nil {
			a.latency = m.Request(kmsg.NameForKey(a.key))
		}
		r.byKey[a.key] = &a
		r.list = append(r.list, &a)
	}
	slices.SortFunc(r.list, func(a, b *api) int { return cmp.Compare(a.key, b.key) })
	return r
}

// find returns the api that serves a version of a key, nil when none does.
func (r *registry) find(key, version int16) *api {
	if a := r.byKey[key]; a != nil && version >= a.min && version <= a.max {
		return a
	}
	return nil
}

// open decodes the header of a request and proves that its body is what it says
// it is. api is nil when there is an error.
func (r *registry) open(b []byte) (a *api, h header, elements int, err error) {
	if h, err = readHeader(b); err != nil {
		return nil, h, 0, err
	}
	if a = r.find(h.key, h.version); a == nil {
		return nil, h, 0, fmt.Errorf("%w: key %d version %d", errUnknownAPI, h.key, h.version)
	}
	flexible := h.version >= a.flexible
	if flexible {
		if err := h.skipHeaderTags(); err != nil {
			return nil, h, 0, err
		}
	}
	if elements, err = a.shape.check(h.body, h.version, flexible); err != nil {
		return nil, h, elements, fmt.Errorf("%w: %s v%d", err, kmsg.NameForKey(h.key), h.version)
	}
	return a, h, elements, nil
}

// decode makes a request of a body that open has found good. Its byte fields lie
// in the body, unless the api keeps them.
func (a *api) decode(version int16, body []byte) (kmsg.Request, error) {
	if a.keepsBytes {
		body = append([]byte(nil), body...)
	}
	req := kmsg.RequestForKey(a.key)
	req.SetVersion(version)
	if err := req.ReadFrom(body); err != nil {
		return nil, fmt.Errorf("%w: %s v%d: %w", errMalformed, kmsg.NameForKey(a.key), version, err)
	}
	return req, nil
}
