package raftlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/dgraph-io/badger/v4"
	badgeroptions "github.com/dgraph-io/badger/v4/options"
)

// The sizes are those of the catalogue (engine/catalog), and so are the reasons.
const (
	memtableBytes = 8 << 20
	vlogFileBytes = 1 << 20 // never holds values, only has to exist
	flattenAt     = 6       // level-0 tables that are merged into one
	walBytes      = memtableBytes + memtableBytes/4
	roomBytes     = 24 << 20
	turnBytes     = memtableBytes / 2

	// A transaction may have 15 % of a memtable.
	txnBytes      = 1 << 20
	txnEntries    = 4096
	entryOverhead = 200 // of one entry, generously
)

// store is Badger, and what has to be done around its writes.
type store struct {
	db   *badger.DB
	log  *slog.Logger
	disk Disk
	dir  string

	written int64 // since the number of tables last changed; only the writer touches these
	tables  int
	commits int // transactions that were synced
}

func openStore(opts Options) (*store, error) {
	st := &store{log: opts.Logger, disk: opts.Disk, dir: opts.Dir}
	if !st.hasRoom(filepath.Dir(opts.Dir)) {
		return nil, fmt.Errorf("%w: opening %s needs %d MiB", ErrNoSpace, opts.Dir, roomBytes>>20)
	}
	o := badger.DefaultOptions(opts.Dir).
		WithSyncWrites(false). // commit syncs, after the probe: see Disk
		WithMemTableSize(memtableBytes).
		WithNumMemtables(1).
		WithValueLogFileSize(vlogFileBytes).
		WithCompression(badgeroptions.None).
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithBloomFalsePositive(0).
		WithDetectConflicts(false). // there is one writer
		WithMetricsEnabled(false).
		WithNumCompactors(0). // each would wake 20 times a second; see tidy
		WithNumLevelZeroTables(flattenAt).
		WithNumLevelZeroTablesStall(1000).
		WithLogger(badgerLogger{opts.Logger})
	db, err := badger.Open(o)
	if err != nil {
		return nil, fmt.Errorf("raftlog: open %s: %w", opts.Dir, err)
	}
	st.db, st.tables = db, len(db.Tables())
	return st, nil
}

// close turns what is in memory into a table and closes Badger; on a full disk everything is left to Badger's log.
func (st *store) close() error {
	if !st.hasRoom(st.dir) {
		st.log.Warn("the disk is full: raft's log is left as it is, and recovered at the next start", "dir", st.dir)
		return nil
	}
	end, err := st.begin("close")
	if err != nil {
		return fmt.Errorf("raftlog: close: %w", err)
	}
	defer end()
	if err := st.db.Close(); err != nil {
		return fmt.Errorf("raftlog: close: %w", err)
	}
	return nil
}

func (st *store) hasRoom(dir string) bool {
	if st.disk == nil {
		return true
	}
	free, err := st.disk.FreeBytes(dir)
	return err != nil || free >= roomBytes
}

// settle makes Badger's new files durable and reserves the blocks of its log.
func (st *store) settle() error {
	if st.disk == nil {
		return nil
	}
	if err := st.disk.Reserve(st.dir, ".mem", walBytes); err != nil {
		return fmt.Errorf("raftlog: reserve room: %w", err)
	}
	if err := st.disk.SyncDir(st.dir); err != nil {
		return fmt.Errorf("raftlog: sync directory: %w", err)
	}
	return nil
}

// begin comes before whatever makes Badger touch its files.
func (st *store) begin(what string) (end func(), err error) {
	if st.disk == nil {
		return func() {}, nil
	}
	if err := st.disk.Probe(st.dir); err != nil {
		return nil, err
	}
	return st.disk.Begin(what, st.dir), nil
}

// checkTurn refuses a write that could make Badger turn to a new log on a full disk.
func (st *store) checkTurn() error {
	if n := len(st.db.Tables()); n != st.tables {
		st.tables, st.written = n, 0
	}
	if st.written >= turnBytes && !st.hasRoom(st.dir) {
		return ErrNoSpace
	}
	return nil
}

// writer gathers what is written in one transaction.
type writer struct {
	st      *store
	txn     *badger.Txn
	bytes   int64
	entries int
}

func (st *store) write() *writer { return &writer{st: st, txn: st.db.NewTransaction(true)} }

// fits tells whether a value goes into the transaction, and after it the bounds.
func (w *writer) fits(valueBytes int) bool {
	return w.entries == 0 || w.entries < txnEntries && w.bytes+int64(valueBytes)+2*entryOverhead < txnBytes
}

func (w *writer) set(key, value []byte) error {
	w.count(len(key) + len(value))
	return w.txn.Set(key, value)
}

func (w *writer) delete(key []byte) error {
	w.count(len(key))
	return w.txn.Delete(key)
}

func (w *writer) count(bytes int) {
	w.bytes += int64(bytes + entryOverhead)
	w.entries++
}

func (w *writer) discard() { w.txn.Discard() }

// commit writes and syncs the transaction and begins another. ErrNoSpace means that nothing was
// written; after any other error that is not known.
func (w *writer) commit() error {
	if w.entries == 0 {
		return nil
	}
	st := w.st
	if err := st.checkTurn(); err != nil {
		return err
	}
	end, err := st.begin("commit")
	if err != nil {
		return fmt.Errorf("raftlog: write: %w", err)
	}
	if err = w.txn.Commit(); err == nil {
		err = st.db.Sync() // a system call
	}
	end()
	if err != nil {
		return fmt.Errorf("raftlog: write: %w", err)
	}
	st.commits++
	st.written += w.bytes
	*w = writer{st: st, txn: st.db.NewTransaction(true)}
	return st.settle()
}

// tidy has level-0 tables merged once there are several, beside the writes that follow.
func (l *Log) tidy() {
	if l.tidying != nil {
		select {
		case <-l.tidying:
			l.tidying = nil
		default:
			return
		}
	}
	if l.store.db.Levels()[0].NumTables < flattenAt {
		return
	}
	done := make(chan struct{})
	l.tidying = done
	go func() { // ends when the merge does; Close waits for it
		defer close(done)
		end, err := l.store.begin("merge")
		if err == nil {
			err = l.store.db.Flatten(1)
			end()
		}
		if err != nil && !errors.Is(err, badger.ErrDBClosed) {
			l.store.log.Warn("raft's log could not merge its tables", "error", err)
		}
	}()
}

// badgerLogger hands what Badger says to slog. Its information is for debugging.
type badgerLogger struct{ log *slog.Logger }

func (l badgerLogger) Errorf(format string, args ...any)   { l.log.Error(badgerText(format, args)) }
func (l badgerLogger) Warningf(format string, args ...any) { l.log.Warn(badgerText(format, args)) }
func (l badgerLogger) Infof(format string, args ...any)    { l.debug(format, args) }
func (l badgerLogger) Debugf(format string, args ...any)   { l.debug(format, args) }

func (l badgerLogger) debug(format string, args []any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug(badgerText(format, args))
	}
}

func badgerText(format string, args []any) string {
	return "badger: " + strings.TrimSpace(fmt.Sprintf(format, args...))
}
