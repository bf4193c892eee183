package engine

import "errors"

// Opening.
var (
	// ErrDirectoryInUse says that another process has the data directory open.
	ErrDirectoryInUse = errors.New("engine: data directory in use by another process")
	// ErrFormat says that the data directory is of a format that this version does not know.
	ErrFormat = errors.New("engine: unknown data directory format")
	// ErrIdentity says that the data directory belongs to another node.
	ErrIdentity = errors.New("engine: data directory belongs to another node")
)

// Producing and reading.
var (
	// ErrUnknownPartition says that the partition is not here, or no longer.
	ErrUnknownPartition = errors.New("engine: unknown partition")
	// ErrNotHere says that this node does not lead the partition.
	ErrNotHere = errors.New("engine: partition is led elsewhere")
	// ErrDirOffline says that the partition's log directory cannot be used.
	ErrDirOffline = errors.New("engine: log directory is offline")
	// ErrNotEnoughReplicas says that fewer replicas are in sync than min.insync.replicas asks for.
	ErrNotEnoughReplicas = errors.New("engine: not enough replicas in sync")
	// ErrNotEnoughReplicasAfterAppend says that the records are in the logs of all replicas in sync, and that these are fewer
	// than min.insync.replicas asks for.
	ErrNotEnoughReplicasAfterAppend = errors.New("engine: not enough replicas in sync after the append")
	// ErrInternalTopic says that clients may not change an internal topic.
	ErrInternalTopic = errors.New("engine: clients may not change an internal topic")
	// ErrTransactional says that a transactional batch came outside of any transaction.
	ErrTransactional = errors.New("engine: transactional batch without a transaction")
	// ErrEmptyProduce says that a produce request carries no batch for a partition.
	ErrEmptyProduce = errors.New("engine: no record batch")
	// ErrOffsetOutOfRange says that an offset lies outside of what the partition holds.
	ErrOffsetOutOfRange = errors.New("engine: offset out of range")
	// ErrOffsetNotAvailable says that a new leader does not know yet how far the partition is committed.
	ErrOffsetNotAvailable = errors.New("engine: offset not available yet")
	// ErrFencedLeaderEpoch says that the caller knows an older leader epoch than the current one.
	ErrFencedLeaderEpoch = errors.New("engine: leader epoch is fenced")
	// ErrUnknownLeaderEpoch says that the caller knows a newer leader epoch than the current one.
	ErrUnknownLeaderEpoch = errors.New("engine: leader epoch is unknown")
	// ErrPolicyViolation says that the topic's cleanup policy does not allow the request.
	ErrPolicyViolation = errors.New("engine: cleanup.policy does not allow deleting records")
)
