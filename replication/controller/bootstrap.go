package controller

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/millrace/millrace/engine/catalog"
)

// Bootstrap makes a node the first of a cluster, with what its catalogue holds: the image becomes the first snapshot of a cluster with one
// voter. [Open] then finds it. The snapshot is the commitment: a crash before it has been written leaves nothing, and Bootstrap may be
// called again; after it there is a cluster, and Bootstrap returns ErrBootstrapped. It waits for the disk without a bound.
func Bootstrap(opts Options, img *catalog.Image) error {
	metas, err := opts.Snapshots.List()
	if err != nil {
		return err
	}
	last, err := opts.Log.LastIndex()
	if err != nil {
		return err
	}
	term, err := opts.Log.GetUint64([]byte("CurrentTerm"))
	if err != nil {
		return err
	}
	if len(metas) > 0 || last > 0 || term > 1 {
		return fmt.Errorf("%w: %d snapshots, entries up to %d, term %d", ErrBootstrapped, len(metas), last, term)
	}
	if err := opts.Log.SetUint64([]byte("CurrentTerm"), 1); err != nil {
		return err
	}
	servers := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: serverID(opts.NodeID), Address: opts.Transport.LocalAddr()}}}
	sink, err := opts.Snapshots.Create(1, 1, 1, servers, 1, opts.Transport)
	if err != nil {
		return err
	}
	s := state{index: 1, image: img}
	if _, err := sink.Write(s.encode()); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Bootstrapped tells whether a node has been a member of a cluster, so that its state is here and not in the catalogue of a single node.
func Bootstrapped(opts Options) (bool, error) {
	metas, err := opts.Snapshots.List()
	if err != nil {
		return false, err
	}
	last, err := opts.Log.LastIndex()
	return len(metas) > 0 || last > 0, err
}
