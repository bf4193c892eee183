package server

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// autoCreateTime bounds how long a metadata request waits for topics to be created.
const autoCreateTime = 5 * time.Second

// autoCreate creates topics that a client has asked about, and describes them or
// what prevented them. Topics that were deleted a moment ago are answered as unknown.
func (s *Server) autoCreate(ctx context.Context, names []string, resp *kmsg.MetadataResponse) {
	ctx, cancel := context.WithTimeout(ctx, autoCreateTime)
	defer cancel()
	created := s.engine.Topics().AutoCreate(ctx, names)
	img := s.engine.Image()
	for _, c := range created {
		code := errorCode(c.Err)
		t := img.Topic(c.Name)
		switch {
		case code == codeNone && s.deletions.recent(c.Name):
			code = codeUnknownTopicOrPartition
		case t != nil: // created, now or by somebody else meanwhile
			resp.Topics = append(resp.Topics, s.describeTopic(s.engine.Image(), t))
			continue
		case code == codeNone || code == codeRequestTimedOut || code == codeNotController || code == codeTopicAlreadyExists:
			code = codeLeaderNotAvailable // the client asks again
		}
		resp.Topics = append(resp.Topics, missingTopic(code, c.Name))
	}
}

// What deletions keeps.
const (
	deletionTime  = 10 * time.Second
	mostDeletions = 1000
)

// deletions remembers for a little while which topics clients have deleted. Most
// clients ask in a way that creates what is not there; one that asks whether a topic
// is gone is told so, as by Kafka, although it is coming back.
type deletions struct {
	now func() time.Time

	mu sync.Mutex
	at map[string]time.Time
}

func newDeletions(now func() time.Time) *deletions {
	return &deletions{now: now, at: map[string]time.Time{}}
}

func (d *deletions) add(name string) {
	now := d.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.at) >= mostDeletions {
		clear(d.at) // rather than to search: all that is lost is an answer like Kafka's
	}
	d.at[name] = now
}

func (d *deletions) recent(name string) bool {
	now := d.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	at, found := d.at[name]
	if found && now.Sub(at) >= deletionTime {
		delete(d.at, name)
		return false
	}
	return found
}
