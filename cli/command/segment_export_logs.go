package command

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/inspect"
	"github.com/millrace/millrace/segment/vfs"
)

// copyBuffer is how much of a partition is written at a time.
const copyBuffer = 1 << 20

// logs copies whole partitions into a log directory as Kafka's. A partition is there under its name once all of it is on the disk.
func (x *exporting) logs(ctx context.Context, fsys vfs.FS, logs []foundLog, to string) error {
	if err := vfs.MkdirAllDurable(fsys, to, 0o755); err != nil {
		return err
	}
	starts := map[string]int64{}
	if there, err := inspect.Find(fsys, to); err == nil { // what an earlier export has left
		if there.Held || there.Kind == inspect.WholeDirectory && there.Layout == inspect.Millrace {
			return fmt.Errorf("%s is a server's: a copy needs a directory of its own ('millrace segment import' brings topics into one of millrace's)", to)
		}
		if starts, err = inspect.KafkaStarts(fsys, there); err != nil {
			return err
		}
	}
	if starts == nil {
		starts = map[string]int64{}
	}
	for _, l := range logs {
		if l.part.Number < 0 {
			return fmt.Errorf("%s: the folder's name does not say which partition it is (TOPIC-NUMBER)", l.part.Path)
		}
		name := filepath.Join(to, l.part.Name())
		if _, err := fsys.Stat(name); err == nil {
			return fmt.Errorf("%s is there already", name)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, l := range logs {
		name := filepath.Join(to, l.part.Name())
		starts[l.part.Name()] = l.opts.Start
		// Before the partition: without it, what was deleted would be there again.
		if err := vfs.WriteFileAtomic(fsys, filepath.Join(to, "log-start-offset-checkpoint"), inspect.EncodeOffsetCheckpoint(starts)); err != nil {
			return err
		}
		temp := name + ".exporting"
		if err := fsys.RemoveAll(temp); err != nil {
			return err
		}
		if err := x.copyLog(ctx, fsys, &l, temp); err != nil {
			return errors.Join(err, fsys.RemoveAll(temp))
		}
		if err := fsys.Rename(temp, name); err != nil {
			return err
		}
		if err := fsys.SyncDir(to); err != nil {
			return err
		}
	}
	return x.report(len(logs), fmt.Sprintf("%s, %s exported to %s\n", count(len(logs), "partition"), count(x.records, "record"), to))
}

// copyLog copies one partition into a folder of its own.
func (x *exporting) copyLog(ctx context.Context, fsys vfs.FS, l *foundLog, folder string) (err error) {
	if err := fsys.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	if l.part.TopicID != ([16]byte{}) {
		text := fmt.Sprintf("version: 0\ntopic_id: %s\n", base64.RawURLEncoding.EncodeToString(l.part.TopicID[:]))
		if err := vfs.WriteFileAtomic(fsys, filepath.Join(folder, "partition.metadata"), []byte(text)); err != nil {
			return err
		}
	}
	log := l.open(func(n int64) { x.read.Add(n) }, false)
	defer log.Close()
	w := logWriter{fs: fsys, folder: folder}
	defer func() { err = errors.Join(err, w.close()) }()
	var epochs []segment.EpochEntry
	file := ""
	for log.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		h := log.Header()
		if h.NextOffset() <= l.opts.Start {
			continue
		}
		if log.File() != file {
			file = log.File()
			base, _, ok := segment.ParseFile(filepath.Base(file))
			if !ok {
				base = h.BaseOffset
			}
			if err := w.next(base); err != nil {
				return err
			}
		}
		whole, err := log.Bytes()
		if err != nil {
			return err
		}
		if err := w.write(whole); err != nil {
			return err
		}
		if n := len(epochs); h.PartitionLeaderEpoch >= 0 && (n == 0 || epochs[n-1].Epoch < h.PartitionLeaderEpoch) {
			epochs = append(epochs, segment.EpochEntry{Epoch: h.PartitionLeaderEpoch, Start: h.BaseOffset})
		}
		if !h.IsControl() {
			x.records += int64(h.RecordCount)
		}
	}
	if log.Err() != nil {
		return log.Err()
	}
	x.damaged += log.Damaged()
	if end := log.NextOffset(); w.file == nil || isEmptyLast(l.part, end) {
		if err := w.next(end); err != nil { // the next record belongs there
			return err
		}
	}
	return vfs.WriteFileAtomic(fsys, filepath.Join(folder, segment.EpochsFile), segment.EncodeEpochs(epochs))
}

// isEmptyLast tells whether a partition's last segment has no records, and begins at its end.
func isEmptyLast(p *inspect.Partition, end int64) bool {
	n := len(p.Segments)
	return n > 0 && p.Segments[n-1].Base == end && p.Segments[n-1].Log.Size == 0
}

// logWriter writes .log files one after the other.
type logWriter struct {
	fs     vfs.FS
	folder string
	file   vfs.File
	base   int64
	at     int64
	buf    []byte
}

func (w *logWriter) next(base int64) error {
	if w.file != nil && w.base == base {
		return nil
	}
	if err := w.close(); err != nil {
		return err
	}
	f, err := w.fs.OpenFile(filepath.Join(w.folder, segment.FileName(base, "log")), vfs.WriteOnly|vfs.Create|vfs.Exclusive, 0o644)
	if err != nil {
		return err
	}
	w.file, w.base, w.at = f, base, 0
	return nil
}

func (w *logWriter) write(b []byte) error {
	if w.buf = append(w.buf, b...); len(w.buf) < copyBuffer {
		return nil
	}
	return w.flush()
}

func (w *logWriter) flush() error {
	n, err := w.file.WriteAt(w.buf, w.at)
	w.at, w.buf = w.at+int64(n), w.buf[:0]
	return err
}

// close makes the file durable.
func (w *logWriter) close() error {
	if w.file == nil {
		return nil
	}
	err := errors.Join(w.flush(), w.file.Sync(), w.file.Close())
	w.file = nil
	return err
}
