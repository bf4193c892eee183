package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/millrace/millrace/cli/serve"
	"github.com/millrace/millrace/segment/inspect"
	"github.com/millrace/millrace/segment/vfs"
)

// places finds what lies at the arguments, or in the data directories that serve would take, and says which a server holds.
func (e *env) places(c *cli.Context, fsys vfs.FS) ([]*inspect.Place, error) {
	paths := c.Args().Slice()
	if len(paths) == 0 {
		paths = strings.Split(cmp.Or(os.Getenv("MILLRACE_DATA"), serve.DefaultData), ",")
	}
	var found []*inspect.Place
	for _, p := range paths {
		if p = strings.TrimSpace(p); p == "" {
			return nil, usagef(commandPath(c), "an empty path")
		}
		place, err := inspect.Find(fsys, p)
		if err != nil {
			return nil, err
		}
		if place.Held {
			fmt.Fprintf(e.Err, "millrace: a running server holds %s: what is read may change meanwhile\n", p)
		}
		found = append(found, place)
	}
	return found, nil
}

// exitCannotTell is the exit code of a command that answers with 0 or 1, and could not: what it was to look at is not there, not
// readable, or damaged.
const exitCannotTell = 2

// cannotTell gives an error this code, unless it has one of its own.
func cannotTell(err error) error {
	var exit *exitError
	var usage *usageError
	if err == nil || errors.As(err, &exit) || errors.As(err, &usage) || errors.Is(err, context.Canceled) {
		return err
	}
	return &exitError{exitCannotTell, errors.New(plainCause(err))}
}

// filterFlags choose partitions.
func filterFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "topic", Usage: "only topics of this name, or that `PATTERN` matches, as in 'orders-*'; may be repeated"},
		&cli.IntSliceFlag{Name: "partition", Aliases: []string{"p"}, Usage: "only this partition; may be repeated"},
		&cli.StringSliceFlag{Name: "state", Usage: "only folders that are live, deleted, stray or future; may be repeated"},
	}
}

// filter is what filterFlags say.
type filter struct {
	topics, states []string
	partitions     []int
}

func parseFilter(c *cli.Context) (filter, error) {
	f := filter{topics: c.StringSlice("topic"), states: c.StringSlice("state"), partitions: c.IntSlice("partition")}
	for _, pattern := range f.topics {
		if _, err := path.Match(pattern, ""); err != nil {
			return f, usagef(commandPath(c), "--topic %q is not a pattern", pattern)
		}
	}
	for _, s := range f.states {
		if !slices.Contains([]string{"live", "deleted", "stray", "future"}, s) {
			return f, usagef(commandPath(c), "--state %q is not one of live, deleted, stray, future", s)
		}
	}
	for _, n := range f.partitions {
		if n < 0 || n > 1<<30 {
			return f, usagef(commandPath(c), "--partition %d is not a partition", n)
		}
	}
	return f, nil
}

// takes tells whether a partition is among those that were asked for.
func (f *filter) takes(p *inspect.Partition) bool {
	matches := func(pattern string) bool {
		ok, _ := path.Match(pattern, p.Topic) // parseFilter has tried it
		return ok || pattern == p.Topic
	}
	return (len(f.topics) == 0 || slices.ContainsFunc(f.topics, matches)) &&
		(len(f.partitions) == 0 || slices.Contains(f.partitions, int(p.Number))) &&
		(len(f.states) == 0 || slices.Contains(f.states, p.State.String()))
}

// narrow reports whether anything was asked for by name.
func (f *filter) narrow() bool { return len(f.topics)+len(f.partitions)+len(f.states) > 0 }

// moment is a timestamp of a record, or "-".
func moment(ms int64) string {
	if ms < 0 {
		return "-"
	}
	return time.UnixMilli(ms).UTC().Format(timestampLayout)
}

// sizeOf writes bytes as people do: 512, 1.5K, 20M, 3.2G.
func sizeOf(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10)
	}
	x := float64(n)
	for _, unit := range "KMGTPE" {
		if x /= 1024; x < 10 {
			return fmt.Sprintf("%.1f%c", x, unit)
		} else if x < 1024 || unit == 'E' {
			return fmt.Sprintf("%.0f%c", x, unit)
		}
	}
	return ""
}
