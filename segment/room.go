package segment

import (
	"fmt"
	"syscall"
	"time"
)

// The disk is never filled to the last byte: behind the reserve appends are
// refused, so that what was acknowledged can be brought from the journal into the
// segments, and catalogue, log start offsets and removals go on.
const (
	mostReserve = 128 << 20
	// reserveShare is the part of a small disk that is kept.
	reserveShare = 20
	// Between two looks at the free space.
	lookEveryBytes = 8 << 20
	lookEvery      = time.Second
)

// room remembers the last look at the free space. It is the committer's.
type room struct {
	at    time.Time
	since int64 // bytes of appends since then
	err   error
}

// check is nil while there is room for appends; it looks at the disk now and then,
// and each time while there is none.
func (r *room) check(d *Dir) error {
	now := d.opts.Now()
	if r.err == nil && !r.at.IsZero() && r.since < lookEveryBytes && now.Sub(r.at) < lookEvery {
		return nil
	}
	r.at, r.since = now, 0
	free, total, err := d.Space()
	if err != nil {
		return nil // a disk that does not tell how full it is
	}
	reserve := min(mostReserve, total/reserveShare)
	if free >= reserve {
		if r.err != nil {
			d.log.Info("there is room again in the log directory: appends are accepted", "free", free)
		}
		r.err = nil
		return nil
	}
	cause := fmt.Errorf("%d bytes free, of which %d are kept for what is not records: %w", free, reserve, syscall.ENOSPC)
	r.err = d.failed("append", d.opts.Path, cause)
	return r.err
}
