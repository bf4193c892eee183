package engine

import (
	"context"
	"time"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/segment/vfs"
)

// Cluster makes an engine one of several nodes. The engine calls each method once, in this order, while it opens.
type Cluster interface {
	// Identify tells which cluster this node belongs to. known is what its directories say, "" when they are new. It
	// waits for other nodes if it has to, until ctx ends.
	Identify(ctx context.Context, known string) (clusterID string, err error)
	// Open opens the metadata, and returns when the image can be used. The engine closes it.
	Open(ctx context.Context, home Home) (Metadata, error)
	// Start is told of every partition that is here, and of its role, from now on.
	Start(e *Engine) Replicator
}

// Home is where a node keeps its part of the metadata.
type Home struct {
	FS        vfs.FS
	Dir       string // the log directory with the catalogue; all that is made in it lies in [ClusterFolder]
	ClusterID string
	NodeID    int32
	DirIDs    []catalog.DirID // of its log directories that can be used
	Disk      *MetadataDisk   // for what Badger does; the engine closes it after the metadata
	// Single reads the catalogue that this node had while it was alone; nil when it never was. It counts only until the cluster's metadata is there.
	Single func() (*catalog.Image, error)
}

// ClusterFolder holds, in the directory with the catalogue, this node's part of a cluster's metadata. From
// when it is there the node does not open alone any more.
const ClusterFolder = "cluster"

// Replicator copies partitions between nodes, and decides when what is durable here counts as committed.
type Replicator interface {
	// Appended says that p, which this node leads, is durable here up to logEndOffset. It is called
	// on the committer's goroutine and must not block.
	Appended(p *Partition, logEndOffset int64)
	// Changed says that p has come to be here, or that its role or its configuration, the broker's included, has changed. It is called on the metadata's
	// goroutine, in order, and must not block.
	Changed(p *Partition, role Role)
	// Removed says that p is no longer here. As Changed.
	Removed(p *Partition)
}

// FollowerEnds is what a [Replicator] may offer beside: how far followers are.
type FollowerEnds interface {
	// FollowerEnd is what a follower of p, which this node leads, has on its disk: its log's start, 0 when that is not known, and its end; false
	// when it has not told. It is called for each fetch of a consumer in another rack, must not block, and should not allocate.
	FollowerEnd(p *Partition, broker int32) (logStart, logEnd int64, known bool)
}

// Quorum is the members of a cluster's controller.
type Quorum struct {
	Leader        int32
	Term          int64
	HighWatermark int64 // index of the last entry that is committed, and one more
	Members       []QuorumMember
}

// QuorumMember is one of them, with what the leader knows of it.
type QuorumMember struct {
	ID       int32
	Voter    bool
	LogEnd   int64     // index of the last entry that it has, and one more; -1 when that is not known
	Heard    time.Time // when it answered last; zero when that is not known, and of the leader
	CaughtUp time.Time // when it had everything last; likewise
}

// QuorumTeller is what a cluster's [Metadata] may offer beside: who carries it.
type QuorumTeller interface {
	// Quorum asks the leader, until ctx ends. catalog.ErrNoLeader when there is none.
	Quorum(ctx context.Context) (Quorum, error)
}

// LeaderTeller is what a cluster's [Metadata] may offer beside: where changes are decided.
type LeaderTeller interface {
	// Leader is the node that decides about changes, as far as this one knows. It does not block.
	Leader() (node int32, known bool)
}

// Solo is the replicator of a node that is alone: durable here is committed.
type Solo struct{}

// Appended moves the high watermark to the log's end.
func (Solo) Appended(p *Partition, logEndOffset int64) { p.AdvanceHighWatermark(logEndOffset) }

// Changed does nothing.
func (Solo) Changed(*Partition, Role) {}

// Removed does nothing.
func (Solo) Removed(*Partition) {}
