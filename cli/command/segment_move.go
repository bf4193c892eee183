package command

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/millrace/millrace/segment/inspect"
	"github.com/millrace/millrace/segment/vfs"
)

// segmentMoveCommands are those that compare, measure and move logs.
func segmentMoveCommands(e *env) []*cli.Command {
	return []*cli.Command{segmentDiff(e), segmentStat(e), segmentExport(e), segmentImport(e)}
}

// foundLog is a partition that was asked for, and how to read it.
type foundLog struct {
	fs   vfs.FS
	part *inspect.Partition
	opts inspect.LogOptions
}

// open begins to read it.
func (l *foundLog) open(read func(bytes int64), structure bool) *inspect.Log {
	o := l.opts
	o.Read, o.Structure = read, structure
	return inspect.OpenLog(l.fs, l.part, o)
}

// logs finds the partitions at the arguments: of directories those that the filter takes, live ones unless states are named, and no
// internal topics unless topics are.
func (e *env) logs(c *cli.Context, fsys vfs.FS, f *filter) ([]foundLog, error) {
	places, err := e.places(c, fsys)
	if err != nil {
		return nil, err
	}
	var found []foundLog
	for _, p := range places {
		if p.Kind == inspect.OneFile && (len(p.Partitions) == 0 || filepath.Ext(p.Path) != ".log") {
			return nil, fmt.Errorf("%s is no .log file", p.Path)
		}
		overlay, err := inspect.NewOverlay(fsys, p)
		if err != nil {
			return nil, err
		}
		starts, err := inspect.KafkaStarts(fsys, p)
		if err != nil {
			return nil, err
		}
		for i := range p.Partitions {
			part := &p.Partitions[i]
			if p.Kind == inspect.WholeDirectory {
				internal := strings.HasPrefix(part.Topic, "__") && len(f.topics) == 0
				if !f.takes(part) || internal || part.State != inspect.Live && len(f.states) == 0 {
					continue
				}
			}
			start, err := part.StartOffset(fsys, starts)
			if err != nil {
				return nil, err
			}
			found = append(found, foundLog{overlay.FS(fsys), part, inspect.LogOptions{Start: start, From: start}})
		}
	}
	if len(found) == 0 {
		return nil, &exitError{ExitNotFound, errors.New("there is no such partition")}
	}
	return found, nil
}
