package engine

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/vfs"
)

// Trouble is one thing that keeps the node from serving all of what it is asked for.
type Trouble struct {
	What    string  `json:"what"`                // "log directory" or "catalogue"
	State   string  `json:"state"`               // "stalled", which ends by itself, or "fenced", which takes a restart
	Dir     string  `json:"dir"`                 // where it lies
	Op      string  `json:"operation,omitempty"` // that has not come back, when stalled
	File    string  `json:"file,omitempty"`      // of that operation
	Seconds float64 `json:"seconds,omitempty"`   // for how long, by now
	Reason  string  `json:"reason"`              // all of it, for people
}

// Unhealthy lists what is wrong. It is never empty.
type Unhealthy struct{ Troubles []Trouble }

// Error is a line for each trouble.
func (u *Unhealthy) Error() string {
	lines := make([]string, len(u.Troubles))
	for i, t := range u.Troubles {
		lines[i] = fmt.Sprintf("%s %s %s: %s", t.What, t.Dir, t.State, t.Reason)
	}
	return strings.Join(lines, "\n")
}

// Health is nil, or an *Unhealthy. It looks at memory only, and so answers whatever the
// disks do.
func (e *Engine) Health() error {
	var all []Trouble
	if err := e.dir.Err(); err != nil {
		all = append(all, trouble("log directory", e.dir.Path(), errors.Is(err, segment.ErrFenced), err))
	}
	if err := e.catalog.Err(); err != nil {
		all = append(all, trouble("catalogue", e.dataDir(), errors.Is(err, catalog.ErrFailed), err))
	}
	if len(all) == 0 {
		return nil
	}
	return &Unhealthy{all}
}

func trouble(what, dir string, fenced bool, err error) Trouble {
	t := Trouble{What: what, State: "fenced", Dir: dir, Reason: err.Error()}
	var stall *vfs.StallError
	if !fenced && errors.As(err, &stall) {
		t.State, t.Op, t.File, t.Seconds = "stalled", stall.Op.String(), stall.Name, stall.Seconds()
	}
	return t
}

// Stalls counts how often the log directory has become stalled since the start, and tells
// the operation of the write path that is slow now (a second or more), if there is one:
// for those who measure.
func (e *Engine) Stalls() (count int64, op, file string, since time.Time, slow bool) {
	op, file, since, slow = e.dir.Stall()
	return e.dir.Stalls(), op, file, since, slow
}

// Stalled tells whether appends are refused since the disk does not answer.
func (e *Engine) Stalled() bool { return e.dir.Stalled() }

// SlowDisk is nil, or names the disk operation that keeps appends waiting for a second or
// longer: what to answer to a request whose time is up.
func (e *Engine) SlowDisk() error { return e.dir.Slow() }

// OnStall has f called when the log directory stops accepting appends since its disk
// stalls, so that those who wait for one can be told. f must not block. There is one
// such function; the last one given counts.
func (e *Engine) OnStall(f func()) { e.onStall.Store(&f) }

func (e *Engine) tellStall() {
	if f := e.onStall.Load(); f != nil {
		(*f)()
	}
}
