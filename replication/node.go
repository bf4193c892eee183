package replication

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/engine/config"
	"github.com/millrace/millrace/replication/controller"
	"github.com/millrace/millrace/replication/gossip"
	"github.com/millrace/millrace/replication/liveness"
	"github.com/millrace/millrace/replication/peer"
	"github.com/millrace/millrace/replication/raftlog"
	"github.com/millrace/millrace/segment/vfs"
)

// Options say what a node is made of. TLS, Secret and Logger may be left out.
type Options struct {
	Config    *config.Broker
	Endpoints []catalog.Endpoint // what clients are told
	Secret    []byte             // what all nodes share
	TLS       *tls.Config        // for connections between nodes
	Now       func() time.Time
	Logger    *slog.Logger
}

// Node is this node's part in a cluster. It is an [engine.Cluster]: the engine calls Identify, Open and Start while it opens. Then
// Serve takes part, Leave takes leave, and Close, when the engine is closed, ends it.
type Node struct {
	opts        Options
	log         *slog.Logger
	incarnation [16]byte
	hub         *peer.Hub
	gossip      atomic.Pointer[gossip.Gossip] // nil until it is open
	promise     promise
	empty       atomic.Bool // it has no metadata, and is about to begin nothing
	moved       moved
	founds      bool // this node begins the cluster
	fresh       bool // it may lack what a node with its id has acknowledged: it has not registered with this directory yet

	transport *peer.RaftTransport
	raft      *raftlog.Log
	control   atomic.Pointer[controller.Controller] // nil until it is open
	broker    *liveness.Broker
	warden    *liveness.Warden
	copies    *replicator
	running   sync.WaitGroup
	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
}

// New listens to other nodes, and looks for them.
func New(o Options) (*Node, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	n := &Node{opts: o, log: o.Logger}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	rand.Read(n.incarnation[:]) // never fails
	var err error
	n.hub, err = peer.Listen(peer.Options{
		Address: o.Config.PeerListener, Advertise: o.Config.PeerAdvertised, Secret: o.Secret, TLS: o.TLS,
		Self:      peer.Identity{NodeID: o.Config.NodeID, Incarnation: n.incarnation},
		Directory: n, Now: o.Now, Logger: o.Logger,
	})
	if err != nil {
		return nil, err
	}
	n.hub.Register(liveness.PingMethod, n.ping)
	n.registerJoining()
	g, err := gossip.Open(gossip.Options{
		Hub: n.hub, Secret: o.Secret, Rack: o.Config.Rack, Expect: o.Config.BootstrapExpect, Now: o.Now, Logger: o.Logger,
	})
	if err != nil {
		return nil, errors.Join(err, n.hub.Shutdown(context.Background()))
	}
	n.gossip.Store(g)
	if len(o.Config.Join) > 0 {
		go g.Join(n.ctx, o.Config.Join) // ends with Close; tries on by itself
	}
	return n, nil
}

// Address is where other nodes reach this one.
func (n *Node) Address() string { return n.hub.Advertise() }

func (n *Node) ping(context.Context, peer.Identity, []byte) ([]byte, error) {
	return n.incarnation[:], nil
}

// metadata is the controller as the engine and its neighbours see it.
type metadata struct {
	*controller.Controller
	log *raftlog.Log
	hub *peer.Hub
}

// Close ends this node's part in the metadata. It waits for the disk.
func (m metadata) Close() error { return errors.Join(m.Controller.Close(), m.log.Close()) }

// Open opens this node's part in the cluster's metadata: it begins the cluster, joins it, or goes on as a member. It returns when the image shows
// all that was acknowledged before, and this node has registered.
func (n *Node) Open(ctx context.Context, home engine.Home) (engine.Metadata, error) {
	opts, err := n.openLog(home)
	if err != nil {
		return nil, err
	}
	m, err := n.open(ctx, home, opts)
	if err != nil {
		return nil, errors.Join(err, n.raft.Close())
	}
	return m, nil
}

func (n *Node) open(ctx context.Context, home engine.Home, opts controller.Options) (engine.Metadata, error) {
	member, err := controller.Bootstrapped(opts)
	if err != nil {
		return nil, err
	}
	if !member && home.Single != nil {
		n.founds = true
	}
	acceptProposals(n.hub, func(ctx context.Context, proposal []byte) error {
		c := n.control.Load()
		if c == nil {
			return controller.ErrNotLeader
		}
		return c.Accept(ctx, proposal)
	})
	n.empty.Store(!member && !n.founds)
	if !member && !n.founds {
		if n.founds, err = n.foundOrJoin(ctx); err != nil {
			return nil, err
		}
	}
	n.empty.Store(false)
	if !member && n.founds {
		if err := n.found(home, opts); err != nil {
			return nil, err
		}
	}
	if n.fresh, err = noteFresh(home, !member && !n.founds); err != nil {
		return nil, err
	}
	if !member {
		if err := n.beMember(ctx, nil); err != nil {
			return nil, err
		}
	}
	c, err := controller.Open(opts)
	if err != nil {
		return nil, err
	}
	n.control.Store(c)
	if err := n.takePart(ctx, home, c); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return metadata{c, n.raft, n.hub}, nil
}

// openLog opens what is kept of the metadata.
func (n *Node) openLog(home engine.Home) (controller.Options, error) {
	dir := filepath.Join(home.Dir, engine.ClusterFolder)
	n.transport = n.hub.RaftTransport(peer.RaftTimeouts{})
	snapshots, err := raftlog.OpenSnapshots(home.FS, filepath.Join(dir, "snapshots"), n.log)
	if err != nil {
		return controller.Options{}, err
	}
	if n.raft, err = raftlog.Open(raftlog.Options{Dir: filepath.Join(dir, "log"), Disk: home.Disk, Logger: n.log}); err != nil {
		return controller.Options{}, err
	}
	return controller.Options{
		NodeID: home.NodeID, Log: n.raft, Snapshots: snapshots, Transport: n.transport,
		Forward: forward{n.hub}, Now: n.opts.Now, Logger: n.log,
	}, nil
}

// freshFile is there from before a node with a new directory becomes a member until it has registered: were it stopped in between, nobody would
// know any more that what an earlier node with its id has acknowledged is not there.
const freshFile = "unregistered"

// noteFresh notes that the node is new, or finds that noted.
func noteFresh(home engine.Home, fresh bool) (bool, error) {
	name := filepath.Join(home.Dir, engine.ClusterFolder, freshFile)
	if fresh {
		return true, vfs.WriteFileAtomic(home.FS, name, nil)
	}
	_, err := home.FS.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// noteRegistered ends that.
func noteRegistered(home engine.Home) error {
	dir := filepath.Join(home.Dir, engine.ClusterFolder)
	if err := home.FS.Remove(filepath.Join(dir, freshFile)); err != nil {
		return err
	}
	return home.FS.SyncDir(dir)
}

// found begins the cluster, with what this node had while it was alone.
func (n *Node) found(home engine.Home, opts controller.Options) error {
	image := catalog.NewImage()
	if home.Single != nil {
		var err error
		if image, err = home.Single(); err != nil {
			return fmt.Errorf("the catalogue of the single node: %w", err)
		}
	}
	if image.ClusterID() == "" {
		result, err := catalog.Apply(image, catalog.SetCluster{ClusterID: home.ClusterID})
		if err != nil {
			return err
		}
		image = result.Image
	}
	image, err := withDefaults(image, n.opts.Config)
	if err != nil {
		return err
	}
	n.log.Info("this node begins the cluster", "cluster", home.ClusterID, "topics", image.TopicCount())
	return controller.Bootstrap(opts, image)
}

// withDefaults has the image say what every node has to know to judge who may lead, and each has in its own properties until then.
func withDefaults(image *catalog.Image, cfg *config.Broker) (*catalog.Image, error) {
	configs := maps.Clone(image.Config(catalog.ResourceBroker, ""))
	if configs == nil {
		configs = map[string]string{}
	}
	for _, key := range []string{"min.insync.replicas", "unclean.leader.election.enable"} {
		if value, given := cfg.Given(key); given && configs[key] == "" {
			configs[key] = value
		}
	}
	result, err := catalog.Apply(image, catalog.AlterConfigs{Base: image.Version(), Changes: []catalog.ConfigChange{{Type: catalog.ResourceBroker, Configs: configs}}})
	if err != nil {
		return nil, err
	}
	return result.Image, result.Errors[0]
}

// takePart has this node heard by the others, and registers it.
func (n *Node) takePart(ctx context.Context, home engine.Home, c *controller.Controller) error {
	n.broker = liveness.NewBroker(c, n.hub, catalog.Broker{
		ID: home.NodeID, Incarnation: n.incarnation, Peer: n.hub.Advertise(), Rack: n.opts.Config.Rack,
		Endpoints: n.opts.Endpoints, Dirs: home.DirIDs, Features: engine.SupportedFeatures(),
	}, n.fresh, n.opts.Now, n.log)
	n.answerQuorum(c)
	n.warden = liveness.NewWarden(c, n.hub, home.NodeID, n.incarnation, n.opts.Now, n.log)
	n.hub.Register(liveness.HeartbeatMethod, func(_ context.Context, _ peer.Identity, body []byte) ([]byte, error) {
		return nil, n.warden.Heard(body)
	})
	c.Subscribe(func(_, image *catalog.Image) { // ends with the controller
		for _, e := range image.Events() {
			if b, found := image.Broker(e.Broker); found && e.Kind == catalog.BrokerRegistered {
				n.moves(b.ID, b.Incarnation, b.Peer)
			}
		}
	})
	n.hub.Watch(func(node int32, up bool) {
		if !up {
			n.warden.Lost(node)
		}
	})
	if known := c.Addresses(); len(known) > 0 {
		go n.gossip.Load().Join(n.ctx, known) // ends with Close
	}
	if err := n.beMember(ctx, c); err != nil {
		return err
	}
	if err := n.catchUp(ctx, c); err != nil {
		return err
	}
	if err := n.broker.Register(ctx); err != nil || !n.fresh {
		return err
	}
	return noteRegistered(home)
}

// catchUp waits until this node's image shows what was acknowledged before, for as long as there is no majority to ask.
func (n *Node) catchUp(ctx context.Context, c *controller.Controller) error {
	var said time.Time
	for {
		attempt, cancel := context.WithTimeout(ctx, proposal)
		err := c.Sync(attempt)
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil, errors.Is(err, catalog.ErrFailed), errors.Is(err, catalog.ErrClosed):
			return fmt.Errorf("the metadata cannot be read: %w", err)
		}
		if now := n.opts.Now(); now.Sub(said) >= sayEvery {
			said = now
			n.log.Warn("waiting for a majority of the nodes that vote on the metadata: nothing is served before", "error", err)
		}
		sleep(ctx, askPause)
	}
}

// Start begins to follow the roles of the engine's partitions.
func (n *Node) Start(e *engine.Engine) engine.Replicator {
	n.broker.WellWhen(e.TakesAppends)
	n.copies = newReplicator(n, e)
	return n.copies
}

// Serve has this node take part: it may lead from when it returns.
func (n *Node) Serve(ctx context.Context) error {
	if n.opts.Config.LeaderRebalance {
		n.running.Go(func() { n.balance(n.ctx) })
	}
	return n.broker.Serve(ctx)
}

// Leave has others lead what this node leads. The engine must still be open.
func (n *Node) Leave(ctx context.Context) error {
	if n.broker == nil {
		return nil
	}
	return n.broker.Leave(ctx)
}

// StopCopying ends the streams from and to this node, before the engine is closed.
func (n *Node) StopCopying() {
	if n.copies != nil {
		n.copies.close()
	}
}

// Close ends it, when the engine is closed. It waits until ctx ends.
func (n *Node) Close(ctx context.Context) error {
	n.cancel()
	n.running.Wait()
	n.StopCopying()
	if n.warden != nil {
		n.warden.Close()
	}
	var err error
	if n.transport != nil {
		err = n.transport.Close()
	}
	if failed := n.gossip.Load().Leave(ctx); failed != nil { // those that leave at the same time hear nothing any more
		n.log.Info("no other node could be told that this one leaves", "error", failed)
	}
	return errors.Join(err, n.gossip.Load().Close(), n.hub.Shutdown(ctx))
}
