package engine

import (
	"slices"

	"github.com/millrace/millrace/engine/catalog"
)

// CheckReassignment says whether a partition that has these replicas may be given
// wanted ones; nil when it has them already, in that order. Nothing is moved: as
// long as nodes do not replicate, any other assignment is refused. It does not
// block.
func (t Topics) CheckReassignment(image *catalog.Image, replicas, wanted []int32) error {
	if err := checkReplicas(t.registered(image), wanted, 0); err != nil {
		return err
	}
	if !slices.Equal(replicas, wanted) {
		return refuse(ErrInvalidAssignment, "This broker does not move partitions to other brokers.")
	}
	return nil
}
