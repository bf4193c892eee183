package raftlog

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/millrace/millrace/segment/vfs"
)

// A snapshot is one file, INDEX-TERM.snap with 20 digits each, little endian:
//
//	+----------+---------+--------+------+--------+-------+-----------+--------+----------+
//	| mrsnap   | version | length | meta | crc32c | state | length of | crc32c | mrsnap   |
//	| 6 bytes  | 1       | 4      | JSON | 4      |       | state 8   | 4      | 6 bytes  |
//	+----------+---------+--------+------+--------+-------+-----------+--------+----------+
//
// The first checksum covers all before it, the second the state. It is written as .tmp, synced, renamed, and
// its directory is synced: a crash leaves it whole or not at all.
const (
	snapshotMagic    = "mrsnap"
	snapshotVersion  = 1
	snapshotSuffix   = ".snap"
	snapshotTemp     = ".tmp"
	snapshotHeader   = len(snapshotMagic) + 1 + 4
	snapshotTrailer  = 8 + 4 + len(snapshotMagic)
	snapshotsKept    = 2
	snapshotMaxMeta  = 1 << 20
	snapshotPartSize = 256 << 10
)

// Snapshots is raft's SnapshotStore on a file system. raft.FileSnapshotStore is not used as it leaves
// its state file without a checksum over its length, does not know our file systems, and logs at every step.
// Calls may be made concurrently; they block for as long as the disk does: see [Bounded].
type Snapshots struct {
	fs  vfs.FS
	dir string
	log *slog.Logger
}

// OpenSnapshots opens or creates the directory, and removes what a crash has left of unfinished snapshots.
func OpenSnapshots(fsys vfs.FS, dir string, log *slog.Logger) (*Snapshots, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := vfs.MkdirAllDurable(fsys, dir, 0o755); err != nil {
		return nil, err
	}
	s := &Snapshots{fs: fsys, dir: dir, log: log}
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), snapshotTemp) {
			if err := fsys.Remove(filepath.Join(dir, e.Name())); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// Create begins a snapshot; it counts once its Close has returned without an error.
func (s *Snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	if version != 1 {
		return nil, fmt.Errorf("raftlog: unsupported snapshot version %d", version)
	}
	k := &sink{store: s, meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%020d-%020d", index, term), Index: index, Term: term,
		Configuration: configuration, ConfigurationIndex: configurationIndex,
	}, sum: crc32.New(castagnoli)}
	meta, err := json.Marshal(k.meta)
	if err != nil {
		return nil, err
	}
	head := binary.LittleEndian.AppendUint32(append([]byte(snapshotMagic), snapshotVersion), uint32(len(meta)))
	head = append(head, meta...)
	head = binary.LittleEndian.AppendUint32(head, crc32.Checksum(head, castagnoli))
	f, err := s.fs.OpenFile(k.temp(), vfs.WriteOnly|vfs.Create|vfs.Trunc, 0o644)
	if err != nil {
		return nil, err
	}
	k.file = f
	if err := k.put(head); err != nil {
		return nil, errors.Join(err, k.Cancel())
	}
	return k, nil
}

// List describes the snapshots that are there, the latest first. Damaged ones are told of and left out.
func (s *Snapshots) List() ([]*raft.SnapshotMeta, error) {
	entries, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var metas []*raft.SnapshotMeta
	for _, e := range slices.Backward(entries) { // the names sort as the indexes do
		id, found := strings.CutSuffix(e.Name(), snapshotSuffix)
		if !found {
			continue
		}
		meta, f, _, err := s.open(id)
		switch {
		case errors.Is(err, fs.ErrNotExist): // a later one has replaced it meanwhile
			continue
		case errors.Is(err, ErrCorrupt):
			s.log.Error("a snapshot is damaged", "file", filepath.Join(s.dir, e.Name()), "error", err)
			continue
		case err != nil:
			return nil, err
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
		metas = append(metas, meta)
	}
	return metas, nil
}

// Open reads through a snapshot, and gives it out when its checksum holds.
func (s *Snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, f, from, err := s.open(id)
	if err != nil {
		return nil, nil, err
	}
	state := func() *io.SectionReader { return io.NewSectionReader(f, from, meta.Size) }
	if err := s.verify(f, state(), from+meta.Size, id); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return meta, &snapshotReader{state(), f}, nil
}

type snapshotReader struct {
	*io.SectionReader
	io.Closer
}

func (s *Snapshots) corrupt(id string, err error) error {
	return &CorruptError{What: filepath.Join(s.dir, id+snapshotSuffix), Err: err}
}

// open reads the meta of a snapshot and says where its state begins.
func (s *Snapshots) open(id string) (meta *raft.SnapshotMeta, f vfs.File, from int64, err error) {
	f, err = s.fs.OpenFile(filepath.Join(s.dir, filepath.Base(id)+snapshotSuffix), vfs.ReadOnly, 0)
	if err != nil {
		return nil, nil, 0, err
	}
	if meta, from, err = s.readMeta(f, id); err != nil {
		return nil, nil, 0, errors.Join(err, f.Close())
	}
	return meta, f, from, nil
}

func (s *Snapshots) readMeta(f vfs.File, id string) (*raft.SnapshotMeta, int64, error) {
	size, err := f.Size()
	if err != nil {
		return nil, 0, err
	}
	head := make([]byte, snapshotHeader)
	if size < int64(snapshotHeader+4+snapshotTrailer) {
		return nil, 0, s.corrupt(id, fmt.Errorf("%d bytes", size))
	}
	if _, err := f.ReadAt(head, 0); err != nil {
		return nil, 0, err
	}
	if string(head[:len(snapshotMagic)]) != snapshotMagic {
		return nil, 0, s.corrupt(id, errors.New("not a snapshot"))
	}
	if v := head[len(snapshotMagic)]; v > snapshotVersion {
		return nil, 0, fmt.Errorf("%w: snapshot %s has version %d", ErrFutureFormat, id, v)
	}
	length := int64(binary.LittleEndian.Uint32(head[len(snapshotMagic)+1:]))
	from := int64(snapshotHeader) + length + 4
	if length > snapshotMaxMeta || from+int64(snapshotTrailer) > size {
		return nil, 0, s.corrupt(id, fmt.Errorf("a meta of %d bytes in %d", length, size))
	}
	head = append(head, make([]byte, length+4)...)
	if _, err := f.ReadAt(head[snapshotHeader:], int64(snapshotHeader)); err != nil {
		return nil, 0, err
	}
	body := head[:len(head)-4]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(head[len(body):]) {
		return nil, 0, s.corrupt(id, errors.New("checksum of its meta differs"))
	}
	var meta raft.SnapshotMeta
	if err := json.Unmarshal(body[snapshotHeader:], &meta); err != nil {
		return nil, 0, s.corrupt(id, err)
	}
	if meta.ID != id {
		return nil, 0, s.corrupt(id, fmt.Errorf("it is snapshot %s", meta.ID))
	}
	meta.Size = size - from - int64(snapshotTrailer)
	return &meta, from, nil
}

// verify reads the state and compares it with the trailer.
func (s *Snapshots) verify(f vfs.File, state *io.SectionReader, end int64, id string) error {
	sum := crc32.New(castagnoli)
	if _, err := io.CopyBuffer(sum, state, make([]byte, snapshotPartSize)); err != nil {
		return err
	}
	trailer := make([]byte, snapshotTrailer)
	if _, err := f.ReadAt(trailer, end); err != nil {
		return err
	}
	if string(trailer[12:]) != snapshotMagic || binary.LittleEndian.Uint64(trailer) != uint64(state.Size()) ||
		binary.LittleEndian.Uint32(trailer[8:]) != sum.Sum32() {
		return s.corrupt(id, errors.New("checksum or length of its state differs"))
	}
	return nil
}

// reap removes all but the latest snapshots.
func (s *Snapshots) reap() error {
	entries, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return err
	}
	kept := 0
	for _, e := range slices.Backward(entries) {
		if !strings.HasSuffix(e.Name(), snapshotSuffix) {
			continue
		}
		if kept++; kept > snapshotsKept {
			if err := s.fs.Remove(filepath.Join(s.dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// sink is a snapshot being written, by one goroutine.
type sink struct {
	store *Snapshots
	meta  raft.SnapshotMeta
	file  vfs.File // nil once it is closed or given up
	at    int64
	sum   hash.Hash32
}

func (k *sink) name() string { return filepath.Join(k.store.dir, k.meta.ID+snapshotSuffix) }
func (k *sink) temp() string { return k.name() + snapshotTemp }

// ID is what to open it by.
func (k *sink) ID() string { return k.meta.ID }

func (k *sink) put(b []byte) error {
	if k.file == nil {
		return fs.ErrClosed
	}
	_, err := k.file.WriteAt(b, k.at)
	k.at += int64(len(b))
	return err
}

// Write appends to the state. After an error only Cancel is of use.
func (k *sink) Write(b []byte) (int, error) {
	if err := k.put(b); err != nil {
		return 0, err
	}
	k.sum.Write(b)
	k.meta.Size += int64(len(b))
	return len(b), nil
}

// Close makes the snapshot durable, and removes those that are too many. When it fails the snapshot does not count.
// Closing again, or after Cancel, does nothing.
func (k *sink) Close() error {
	if k.file == nil {
		return nil
	}
	trailer := binary.LittleEndian.AppendUint64(nil, uint64(k.meta.Size))
	trailer = append(binary.LittleEndian.AppendUint32(trailer, k.sum.Sum32()), snapshotMagic...)
	err := k.put(trailer)
	if err == nil {
		err = k.file.Sync()
	}
	if err != nil {
		return errors.Join(err, k.Cancel())
	}
	f := k.file
	k.file = nil
	if err := f.Close(); err != nil {
		return errors.Join(err, k.store.fs.Remove(k.temp()))
	}
	if err := k.store.fs.Rename(k.temp(), k.name()); err != nil {
		return errors.Join(err, k.store.fs.Remove(k.temp()))
	}
	if err := k.store.fs.SyncDir(k.store.dir); err != nil {
		return err
	}
	if err := k.store.reap(); err != nil {
		k.store.log.Warn("snapshots that are no longer needed could not be removed", "error", err)
	}
	return nil
}

// Cancel gives the snapshot up.
func (k *sink) Cancel() error {
	if k.file == nil {
		return nil
	}
	f := k.file
	k.file = nil
	return errors.Join(f.Close(), k.store.fs.Remove(k.temp()))
}
