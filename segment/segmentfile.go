package segment

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// segmentFile is one .log file and its indexes.
//
// The committer (and, before it runs, recovery) is the only writer. What
// readers need is published through the atomics: bytes below size are whole
// durable batches and never change.
type segmentFile struct {
	folder  string
	base    int64
	size    atomic.Int64            // bytes that readers may see
	index   atomic.Pointer[indexes] // nil: sealed and not loaded since the directory was opened
	rebuilt atomic.Bool             // a reader writes the index files, or has written them
	cut     atomic.Bool             // it is out of the log, or its end is; what is read of it now may be anything
	ahead   atomic.Pointer[ahead]   // see readahead.go
	seen    atomic.Pointer[seen]    // see readbuffer.go
	marks   [4]atomic.Pointer[bookmark]
	largest atomic.Int64             // timestamp of the records that readers may see; -1: they have none; see Log.largestTimestamp
	tail    atomic.Pointer[[]*chunk] // see tail.go

	// Of the committer alone.
	chunks   []*chunk // the tail, published or not
	filled   int64    // where the tail ends, which is behind size while a round is under way
	flushed  int64    // bytes that are in the file; the tail has what follows
	created  bool     // the file is there
	named    bool     // … and its name is durable
	unsynced bool     // a sync of the file is owed
	padded   bool     // the file ends with padding, at which tools that read it stumble

	// Of the committer alone, while this is the active segment.
	writer         indexer
	sum            uint32        // CRC-32C of the file as far as it is stamped
	summed         bool          // sum is known
	saved          int64         // bytes that the last checkpoint knows
	firstTimestamp int64         // of the first batch, -1 when empty or without one
	begun          time.Time     // or opened
	jitter         time.Duration // taken off segment.ms

	// Of the janitor alone (and recovery).
	fromIndex bool  // largest was read from a time index, and not compared with the records
	atLeast   int64 // largest is at least that: from the records of a segment whose time index was damaged

	handle handle // for reading, and for writing where there is no direct I/O
	direct handle // past the page cache
}

func newSegmentFile(folder string, base int64) *segmentFile {
	s := &segmentFile{folder: folder, base: base, firstTimestamp: -1, atLeast: -1, writer: newIndexer(), summed: true}
	s.handle = handle{segment: s, flags: vfs.ReadWrite}
	s.direct = handle{segment: s, flags: vfs.ReadWrite | vfs.Direct}
	s.largest.Store(timestampUnknown)
	return s
}

// writeHandle is the way to the file of s past the page cache, if there is one.
func (d *Dir) writeHandle(s *segmentFile) *handle {
	if d.direct {
		return &s.direct
	}
	return &s.handle
}

func (s *segmentFile) name(suffix string) string {
	return filepath.Join(s.folder, fmt.Sprintf("%020d%s", s.base, suffix))
}

// publish lets readers see the first size bytes.
func (s *segmentFile) publish(size int64, indexed bool) {
	if indexed || s.index.Load() == nil {
		x := s.writer.indexes
		s.index.Store(&x)
	}
	s.largest.Store(s.writer.largest.timestamp)
	s.size.Store(size)
}

// note indexes a batch that is (about to be) written at position.
func (s *segmentFile) note(h batch.Header, position int64, interval int) (indexed bool) {
	if s.firstTimestamp < 0 {
		s.firstTimestamp = h.MaxTimestamp
	}
	return s.writer.add(h.LastOffset(), h.MaxTimestamp, position, h.Size(), interval)
}

// writeIndexes writes both index files. Their contents must be durable before
// anything relies on them: one that ends early is found out by nobody, and hides
// the largest timestamps.
func (s *segmentFile) writeIndexes(fs vfs.FS, x *indexes, write func(fs vfs.FS, name string, data []byte) error) error {
	offsets, times := x.encode(s.base)
	if err := write(fs, s.name(".index"), offsets); err != nil {
		return err
	}
	return write(fs, s.name(".timeindex"), times)
}

// overwrite writes a file and syncs its contents, but not its name. A crash in its
// middle leaves anything.
func overwrite(fs vfs.FS, name string, data []byte) error {
	return put(fs, name, data, vfs.File.Sync)
}

// putFile is overwrite without the sync.
func putFile(fs vfs.FS, name string, data []byte) error {
	return put(fs, name, data, func(vfs.File) error { return nil })
}

func put(fs vfs.FS, name string, data []byte, sync func(vfs.File) error) error {
	f, err := fs.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(data, 0); err == nil {
		err = sync(f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// readIndexes loads the index files, nil when they are missing or not to be trusted.
func (s *segmentFile) readIndexes(fs vfs.FS, size int64) *indexes {
	offsets, err := vfs.ReadFile(fs, s.name(".index"))
	if err != nil {
		return nil
	}
	times, err := vfs.ReadFile(fs, s.name(".timeindex"))
	if err != nil {
		return nil
	}
	x, err := decodeIndexes(s.base, size, offsets, times)
	if err != nil {
		return nil
	}
	return x
}
