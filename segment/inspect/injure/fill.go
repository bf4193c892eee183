package injure

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// Orders is the partition that Fill makes.
var Orders = segment.LogID{Topic: "orders", TopicID: [16]byte{1, 2, 3}}

// Settings are its settings: small segments, with many index entries.
func Settings() segment.LogConfig {
	cfg := segment.DefaultLogConfig()
	cfg.SegmentBytes, cfg.IndexIntervalBytes = 2000, 100
	return cfg
}

// Fill makes a directory with a partition of several segments, always the same bytes, as an injury presupposes it, or
// closed well when clean is true; whole is what it holds, by offset.
func Fill(fsys vfs.FS, dir string, from From, clean bool) (whole map[int64]string, err error) {
	m := vfs.NewMem()
	if err := vfs.MkdirAllDurable(m, dir, 0o755); err != nil {
		return nil, err
	}
	whole = map[int64]string{}
	left, err := fill(m, dir, 0, 75, whole, 1)
	if err != nil {
		return nil, err
	}
	if from == Journaled {
		if err := remove(latestCheckpoint)(&Patient{FS: m, Dir: dir}); err != nil {
			return nil, err
		}
		if left, err = fill(m, dir, 75, 80, whole, 1<<40); err != nil {
			return nil, err
		}
	}
	if from != Closed && !clean {
		m = left
	} else if !clean {
		if err := m.Remove(filepath.Join(dir, segment.CleanMarker)); err != nil {
			return nil, err
		}
	}
	return whole, copyTree(m, fsys, dir)
}

// latestCheckpoint is of the last segment: an open that believes it does not read what it is about.
func latestCheckpoint(p *Patient) string {
	folder := filepath.Join(p.Dir, segment.TopicsFolder, Orders.FolderName())
	entries, err := p.FS.ReadDir(folder)
	for _, e := range entries {
		if err == nil && filepath.Ext(e.Name()) == segment.CheckpointSuffix {
			return filepath.Join(folder, e.Name())
		}
	}
	return folder
}

// fill appends batches, and gives what a kill leaves behind the last one; then it closes the directory.
func fill(m *vfs.Mem, dir string, from, to int, whole map[int64]string, direct int64) (left *vfs.Mem, err error) {
	d, err := segment.OpenDir(context.Background(), segment.DirOptions{
		FS: m, Path: dir, Now: func() time.Time { return time.Unix(1_700_000_000, 0) }, Logger: slog.New(slog.DiscardHandler),
		DirectBytes: direct, FlushInterval: time.Hour,
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close(context.Background())) }()
	l, err := d.Log(Orders, Settings())
	if err != nil {
		return nil, err
	}
	for i := from; i < to; i++ {
		if err := appendBatch(l, 1+i%3, min(int32(i/20), 3), whole); err != nil {
			return nil, err
		}
	}
	return m.Crash(1, 1), nil
}

// appendBatch appends one batch of an idempotent producer, whose sequence is the offset.
func appendBatch(l *segment.Log, n int, epoch int32, whole map[int64]string) error {
	end := l.LogEndOffset()
	b := batch.NewBuilder(batch.BuilderOptions{Idempotent: true, ProducerID: 7, BaseSequence: int32(end)})
	for i := range int64(n) {
		whole[end+i] = fmt.Sprintf("value-%d", end+i)
		b.Append(1_700_000_000_000+end+i, []byte("key"), []byte(whole[end+i]), nil)
	}
	built, err := b.Build()
	if err != nil {
		return err
	}
	done := make(chan segment.Result, 1)
	if err := l.Append(context.Background(), &segment.Append{Batches: built, LeaderEpoch: epoch, Done: func(r segment.Result) { done <- r }}); err != nil {
		return err
	}
	return (<-done).Err
}

// copyTree copies a directory to the same path of another file system.
func copyTree(from, to vfs.FS, dir string) error {
	if err := vfs.MkdirAllDurable(to, dir, 0o755); err != nil {
		return err
	}
	entries, err := from.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if e.IsDir() {
			err = copyTree(from, to, name)
		} else {
			var b []byte
			if b, err = vfs.ReadFile(from, name); err == nil {
				err = vfs.WriteFileAtomic(to, name, b)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
