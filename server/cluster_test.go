package server

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
)

// fakeCluster is a cluster of which node 1 is real: the metadata is a catalogue on its disk, the other brokers are in that alone, and
// what is durable here counts as committed.
type fakeCluster struct {
	engine.Solo
	racks   map[int32]string // of the brokers; each is registered and active
	mu      sync.Mutex       // guards ends
	ends    map[int32]int64  // how far followers are, of every partition
	quorum  *engine.Quorum   // nil: it cannot tell
	failing atomic.Pointer[error]
	synced  atomic.Int32
	stale   atomic.Pointer[catalog.Image] // what is shown instead of the image, until Sync

	*catalog.Catalog
}

func newFakeCluster(racks map[int32]string) *fakeCluster {
	return &fakeCluster{racks: racks, ends: map[int32]int64{}}
}

func (f *fakeCluster) Identify(_ context.Context, known string) (string, error) {
	if known == "" {
		known = "AAAAAAAAAAAAAAAAAAAAAQ"
	}
	return known, nil
}

func (f *fakeCluster) Open(ctx context.Context, home engine.Home) (m engine.Metadata, err error) {
	f.Catalog, err = catalog.Open(catalog.Options{Dir: filepath.Join(home.Dir, engine.ClusterFolder), ClusterID: home.ClusterID})
	if err != nil {
		return nil, err
	}
	for id, rack := range f.racks {
		b := catalog.Broker{
			ID: id, Incarnation: [16]byte{byte(id)}, Rack: rack, Features: engine.SupportedFeatures(),
			Endpoints: []catalog.Endpoint{{Listener: "PLAINTEXT", Host: "host", Port: 9000 + id}},
		}
		if id == home.NodeID {
			b.Dirs = home.DirIDs
		}
		if _, err := f.Catalog.Propose(ctx, catalog.RegisterBroker{Broker: b}); err != nil {
			return nil, err
		}
	}
	if f.quorum != nil {
		return tellingCluster{f}, nil
	}
	return f, nil
}

func (f *fakeCluster) Start(*engine.Engine) engine.Replicator { return f }

func (f *fakeCluster) FollowerEnd(_ *engine.Partition, broker int32) (int64, int64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	end, known := f.ends[broker]
	return 0, end, known
}

// has says how far a follower is.
func (f *fakeCluster) has(broker int32, end int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ends[broker] = end
}

func (f *fakeCluster) Propose(ctx context.Context, cmd catalog.Command) (catalog.Result, error) {
	if err := f.failing.Load(); err != nil && *err != nil {
		return catalog.Result{}, *err
	}
	return f.Catalog.Propose(ctx, cmd)
}

func (f *fakeCluster) Image() *catalog.Image {
	if old := f.stale.Load(); old != nil {
		return old
	}
	return f.Catalog.Image()
}

func (f *fakeCluster) Sync(context.Context) error {
	f.synced.Add(1)
	f.stale.Store(nil)
	return nil
}

func (f *fakeCluster) Leader() (int32, bool) { return 2, true }

// do proposes a command that must take effect.
func (f *fakeCluster) do(t *testing.T, cmd catalog.Command) {
	t.Helper()
	res, err := f.Catalog.Propose(t.Context(), cmd)
	if err != nil || slices.ContainsFunc(res.Errors, func(err error) bool { return err != nil }) {
		t.Fatalf("%T: %v %v", cmd, err, res.Errors)
	}
}

// fence takes a broker for dead.
func (f *fakeCluster) fence(t *testing.T, id int32) {
	t.Helper()
	b, _ := f.Catalog.Image().Broker(id)
	f.do(t, catalog.FenceBroker{ID: id, Epoch: b.Epoch})
}

// place makes a topic with the given replicas of each partition, all in sync, the first leading.
func (f *fakeCluster) place(t *testing.T, name string, replicas ...[]int32) *catalog.Topic {
	t.Helper()
	topic := catalog.NewTopic{Name: name}
	copy(topic.ID[:], name)
	for _, ids := range replicas {
		topic.Partitions = append(topic.Partitions, catalog.Partition{Leader: ids[0], Replicas: ids, ISR: ids})
	}
	f.do(t, catalog.CreateTopics{Topics: []catalog.NewTopic{topic}})
	return f.Catalog.Image().Topic(name)
}

// tellingCluster is one that knows who carries its metadata.
type tellingCluster struct{ *fakeCluster }

func (c tellingCluster) Quorum(context.Context) (engine.Quorum, error) {
	if err := c.failing.Load(); err != nil && *err != nil {
		return engine.Quorum{}, *err
	}
	return *c.quorum, nil
}

var _ interface {
	engine.FollowerEnds
	engine.LeaderTeller
} = (*fakeCluster)(nil)
