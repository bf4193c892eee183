package engine

import (
	"errors"
	"fmt"
	"strings"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/vfs"
)

// Trouble is one thing that keeps the node from serving all of what it is asked for.
type Trouble struct {
	What    string  `json:"what"`                // "log directory" or "catalogue"
	State   string  `json:"state"`               // "stalled" or "waiting" (for a leader of the metadata), which end by themselves, "fenced" or "offline", which take a restart
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
	for _, d := range e.dirs {
		if err := d.err(); err != nil {
			all = append(all, trouble("log directory", d.path, errors.Is(err, segment.ErrFenced), err))
		}
	}
	if err := e.catalog.Err(); err != nil {
		all = append(all, trouble("catalogue", e.dataDir(), errors.Is(err, catalog.ErrFailed), err))
	}
	if len(all) == 0 {
		return nil
	}
	return &Unhealthy{all}
}

// TakesAppends tells whether there is a log directory that does. It does not block.
func (e *Engine) TakesAppends() bool {
	for _, d := range e.dirs {
		if d.err() == nil {
			return true
		}
	}
	return false
}

func trouble(what, dir string, fenced bool, err error) Trouble {
	t := Trouble{What: what, State: "fenced", Dir: dir, Reason: err.Error()}
	var stall *vfs.StallError
	if errors.Is(err, ErrDirOffline) {
		t.State = "offline"
	} else if errors.Is(err, catalog.ErrNoLeader) {
		t.State = "waiting"
	} else if !fenced && errors.As(err, &stall) {
		t.State, t.Op, t.File, t.Seconds = "stalled", stall.Op.String(), stall.Name, stall.Seconds()
	}
	return t
}
