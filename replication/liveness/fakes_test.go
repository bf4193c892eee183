package liveness

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/catalog"
)

// world is the metadata of a cluster without the cluster, and what leads to its nodes.
type world struct {
	mu          sync.Mutex
	image       *catalog.Image
	subscribers map[int]func(old, new *catalog.Image)
	next        int
	refuse      error // of every proposal
	proposed    []catalog.Command
	leader      int32 // 0: nobody
	changed     chan struct{}
	call        func(ctx context.Context, node int32, method string, body []byte) ([]byte, error)
}

func newWorld() *world {
	return &world{image: catalog.NewImage(), subscribers: map[int]func(old, new *catalog.Image){}, changed: make(chan struct{})}
}

func (w *world) Image() *catalog.Image {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.image
}

func (w *world) Propose(ctx context.Context, cmd catalog.Command) (catalog.Result, error) {
	w.mu.Lock()
	w.proposed = append(w.proposed, cmd)
	err := errors.Join(ctx.Err(), w.refuse)
	w.mu.Unlock()
	if err != nil {
		return catalog.Result{}, err
	}
	w.mu.Lock()
	old := w.image
	result, err := catalog.Apply(old, cmd)
	if err == nil {
		w.image = result.Image
	}
	var all []func(old, new *catalog.Image)
	for _, fn := range w.subscribers {
		all = append(all, fn)
	}
	w.mu.Unlock()
	if err == nil && result.Image != old {
		for _, fn := range all {
			fn(old, result.Image)
		}
	}
	return result, err
}

func (w *world) Subscribe(fn func(old, new *catalog.Image)) (stop func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	id := w.next
	w.next++
	w.subscribers[id] = fn
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.subscribers, id)
	}
}

func (w *world) Leadership() (node int32, known bool, changed <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.leader, w.leader != 0, w.changed
}

func (w *world) lead(node int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leader = node
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *world) refusing(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refuse = err
}

func (w *world) Call(ctx context.Context, node int32, method string, body []byte) ([]byte, error) {
	w.mu.Lock()
	call := w.call
	w.mu.Unlock()
	return call(ctx, node, method, body)
}

func (w *world) calls(call func(ctx context.Context, node int32, method string, body []byte) ([]byte, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.call = call
}

// count is how many proposals of a kind there were.
func count[C catalog.Command](w *world) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, cmd := range w.proposed {
		if _, is := cmd.(C); is {
			n++
		}
	}
	return n
}

// done has a command applied.
func (w *world) done(t *testing.T, cmd catalog.Command) {
	t.Helper()
	if result, err := w.Propose(t.Context(), cmd); err != nil || result.Errors[0] != nil {
		t.Fatal(err, result.Errors)
	}
}

func (w *world) fenced(t *testing.T, id int32) bool {
	t.Helper()
	b, found := w.Image().Broker(id)
	if !found {
		t.Fatalf("no broker %d", id)
	}
	return b.Fenced
}

func incarnation(n byte) [16]byte { return [16]byte{n} }

// stranger waits forever, as a node that is cut off.
func stranger(ctx context.Context, _ int32, _ string, _ []byte) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

var quiet = slog.New(slog.DiscardHandler)

func now() time.Time { return time.Now() } // synctest's
