package stream

import "github.com/millrace/millrace/segment"

// verdict is what brings a follower's log to where records can follow it.
type verdict int

const (
	agree    verdict = iota // the follower's log is a beginning of the leader's: push from its end
	truncate                // to an offset
	reset                   // to an offset: nothing of it is of use
	askMore                 // for epochs before one
)

// lineage is what is compared: a leader's log.
type lineage interface {
	LogStartOffset() int64
	LogEndOffset() int64
	EndOffsetForEpoch(epoch int32) (foundEpoch int32, endOffset int64)
}

// compare finds where a follower's log parts from the leader's. Records of one epoch were written by one leader, so two logs
// are the same up to the end of the largest epoch that they share, as far as both go (KIP-101, KIP-279). epochs are
// the follower's last, rising; more says that there are earlier ones. With askMore the offset is an epoch.
//
// It is Kafka's OffsetsForLeaderEpoch, turned round: there the follower asks once for each epoch, here it has sent its list.
func compare(leader lineage, start, end int64, epochs []segment.EpochEntry, more bool) (v verdict, to int64) {
	first, last := leader.LogStartOffset(), leader.LogEndOffset()
	if end < first {
		return reset, first
	}
	fork, found := end, start == end // without a record there is nothing to compare
	until := end                     // of the epoch that is looked at, in the follower's log
	for i := len(epochs) - 1; i >= 0 && !found; i-- {
		e := epochs[i]
		if epoch, leaderEnd := leader.EndOffsetForEpoch(e.Epoch); epoch == e.Epoch {
			fork, found = min(until, leaderEnd), true
		}
		until = min(until, e.Start)
	}
	if !found && more {
		return askMore, int64(epochs[0].Epoch)
	}
	fork = min(fork, last)
	switch {
	case !found, fork < start, fork < first:
		return reset, first
	case fork < end:
		return truncate, fork
	}
	return agree, end
}
