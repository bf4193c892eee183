package catalog

import (
	"errors"
	"fmt"
)

// Of opening.
var (
	// ErrFutureFormat means that the directory was written by a newer millrace.
	ErrFutureFormat = errors.New("catalog: written in a newer format than this version reads")
	// ErrClusterMismatch means that the directory belongs to another cluster.
	ErrClusterMismatch = errors.New("catalog: belongs to another cluster")
)

// Of a whole command.
var (
	// ErrClosed means that the catalog was closed before the command was taken up.
	ErrClosed = errors.New("catalog: closed")
	// ErrTooLarge means that the command does not fit into one transaction. Nothing was changed.
	ErrTooLarge = errors.New("catalog: change too large for one transaction")
	// ErrNoSpace means that the disk is too full to change anything safely. Nothing
	// was changed; changes are taken again once there is room.
	ErrNoSpace = errors.New("catalog: disk too full for a change")
	// ErrStalled means that the disk has not answered for longer than it may. Changes are
	// taken again when it does. Whether the change that met it takes effect is not known.
	ErrStalled = errors.New("catalog: the disk does not answer")
	// ErrFailed means that an earlier write failed, so the state on the disk is
	// not known; reading goes on, changes are refused until the catalog is opened again.
	ErrFailed = errors.New("catalog: refuses changes after a failed write")
	// ErrUnknownCommand means that an encoded command has a kind or version that is not known here.
	ErrUnknownCommand = errors.New("catalog: unknown command")
)

// Of a whole command in a cluster. Whoever carries the command to the other nodes returns errors that are these.
var (
	// ErrNoLeader means that nobody leads the metadata at the moment, or that this node does not reach who
	// does. Nothing was changed: the command may be proposed again.
	ErrNoLeader = errors.New("catalog: nobody leads the metadata")
	// ErrUnknownOutcome means that the deadline, or the end of this node's part, came first: the
	// command may have taken effect, or may still do so, once.
	ErrUnknownOutcome = errors.New("catalog: it is not known what became of the change")
)

// Of one item of a command, see [Result].
var (
	// ErrTopicExists means that a topic of this name exists.
	ErrTopicExists = errors.New("catalog: topic exists")
	// ErrUnknownTopic means that no topic has this id or name.
	ErrUnknownTopic = errors.New("catalog: unknown topic")
	// ErrConflict means that what the change was planned on has changed meanwhile; plan again.
	ErrConflict = errors.New("catalog: changed meanwhile")
	// ErrInvalid means that the item contradicts itself, for instance a topic without partitions.
	ErrInvalid = errors.New("catalog: invalid item")
	// ErrNotApplied means that another item of a command that is applied as a whole was refused.
	ErrNotApplied = errors.New("catalog: another item was refused")
)

// Of brokers and features.
var (
	// ErrBrokerInUse means that another incarnation is registered under the id and not fenced.
	ErrBrokerInUse = errors.New("catalog: another broker is registered with that id")
	// ErrDirInUse means that a log directory belongs to another broker.
	ErrDirInUse = errors.New("catalog: another broker is registered with a directory of that id")
	// ErrUnknownBroker means that no broker with this id is registered.
	ErrUnknownBroker = errors.New("catalog: unknown broker")
	// ErrStaleBrokerEpoch means that the broker has registered again since.
	ErrStaleBrokerEpoch = errors.New("catalog: stale broker epoch")
	// ErrUnsupportedFeature means that a broker does not support the level of a feature.
	ErrUnsupportedFeature = errors.New("catalog: a broker does not support the level of a feature")
	// ErrFeatureUpdate means that a feature cannot go to this level in this way.
	ErrFeatureUpdate = errors.New("catalog: invalid update of a feature")
)

// Of leaders, in-sync sets and reassignments.
var (
	// ErrNotLeader means that another broker leads the partition.
	ErrNotLeader = errors.New("catalog: not the leader")
	// ErrFencedLeaderEpoch means that the partition has a newer leader epoch.
	ErrFencedLeaderEpoch = errors.New("catalog: fenced leader epoch")
	// ErrIneligibleReplica means that a broker must not be in sync: it is fenced, stopping, unknown, or another incarnation by now.
	ErrIneligibleReplica = errors.New("catalog: ineligible replica")
	// ErrElectionNotNeeded means that the partition has the leader that an election would give it.
	ErrElectionNotNeeded = errors.New("catalog: election not needed")
	// ErrPreferredLeaderNotAvailable means that the first replica cannot lead now.
	ErrPreferredLeaderNotAvailable = errors.New("catalog: preferred leader not available")
	// ErrEligibleLeadersNotAvailable means that nobody can lead now.
	ErrEligibleLeadersNotAvailable = errors.New("catalog: eligible leaders not available")
	// ErrNoReassignment means that there is no reassignment to cancel.
	ErrNoReassignment = errors.New("catalog: no reassignment in progress")
	// ErrInvalidAssignment means that replicas are none, named twice, or not registered.
	ErrInvalidAssignment = errors.New("catalog: invalid replica assignment")
	// ErrUncleanCancel means that cancelling would need an unclean election, which is not enabled.
	ErrUncleanCancel = errors.New("catalog: cancelling needs an unclean leader election")
	// ErrFactorChanged means that a reassignment changes the number of replicas and was not to.
	ErrFactorChanged = errors.New("catalog: replication factor changed")
)

// CorruptError says which stored value could not be read.
type CorruptError struct {
	Key string // quoted key in Badger
	Err error
}

// Error names the key and what was wrong with its value.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("catalog: corrupt value at %s: %v", e.Key, e.Err)
}

// Unwrap returns what was wrong with the value.
func (e *CorruptError) Unwrap() error { return e.Err }
