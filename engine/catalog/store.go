package catalog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dgraph-io/badger/v4"
	badgeroptions "github.com/dgraph-io/badger/v4/options"
)

const (
	memtableBytes = 8 << 20 // a transaction may have 15 % of it, see DESIGN.md
	vlogFileBytes = 1 << 20 // never holds values, only has to exist

	// flattenAt is the number of level-0 tables that are merged into one. Every start
	// leaves one table behind, so this bounds what a start has to open.
	flattenAt = 6

	// walBytes is how much of its log Badger uses: a memtable, and one transaction that began just below its end.
	walBytes = memtableBytes + memtableBytes/4
	// roomBytes must be free to begin a new log, or to turn an old one into a table.
	roomBytes = 24 << 20
	// turnBytes is how much may be written, generously counted, until Badger may turn to a new log.
	turnBytes = memtableBytes / 2
)

// store keeps the state of an image in Badger. Only the catalog's writer uses it.
type store struct {
	db   *badger.DB
	log  *slog.Logger
	disk Disk // nil: none
	dir  string

	written int64 // since the number of tables last changed
	tables  int
}

// openStore opens or creates the store and reads the whole state.
func openStore(opts Options) (*store, *Image, error) {
	st := &store{log: opts.Logger, disk: opts.Disk, dir: opts.Dir}
	if !st.hasRoom(filepath.Dir(opts.Dir)) {
		return nil, nil, fmt.Errorf("%w: opening %s needs %d MiB", ErrNoSpace, opts.Dir, roomBytes>>20)
	}
	o := badger.DefaultOptions(opts.Dir).
		// commit syncs. Badger itself would sync a file before it touches its memory maps,
		// and leave a disk that stalls then the time to stop the process: see Disk.Probe.
		WithSyncWrites(false).
		WithMemTableSize(memtableBytes).
		WithNumMemtables(1).
		WithValueLogFileSize(vlogFileBytes).
		WithCompression(badgeroptions.None). // compressed blocks would need a cache
		WithBlockCacheSize(0).
		WithIndexCacheSize(0).
		WithBloomFalsePositive(0).
		WithDetectConflicts(false). // there is one writer
		WithMetricsEnabled(false).
		// Badger's own compactors look around 20 times a second each. There are
		// none; tidy compacts when there is something to compact.
		WithNumCompactors(0).
		WithNumLevelZeroTables(flattenAt).
		WithNumLevelZeroTablesStall(1000).
		WithLogger(badgerLogger{opts.Logger})
	db, err := badger.Open(o)
	if err != nil {
		return nil, nil, fmt.Errorf("catalog: open %s: %w", opts.Dir, err)
	}
	st.db, st.tables = db, len(db.Tables())
	img, err := st.load()
	if err == nil {
		err = st.settle()
	}
	if err != nil {
		return nil, nil, errors.Join(err, st.close())
	}
	return st, img, nil
}

// close turns what is in memory into a table and closes Badger. On a full disk that
// would end the process, so then everything is left to Badger's log, as after a kill.
func (st *store) close() error {
	if !st.hasRoom(st.dir) {
		st.log.Warn("the disk is full: the catalogue is left as it is, and recovered at the next start", "dir", st.dir)
		return nil
	}
	end, err := st.begin("close")
	if err != nil {
		return fmt.Errorf("catalog: close: %w", err)
	}
	defer end()
	if err := st.db.Close(); err != nil {
		return fmt.Errorf("catalog: close: %w", err)
	}
	return nil
}

// hasRoom reports whether Badger may begin new files.
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
		return fmt.Errorf("catalog: reserve room: %w", err)
	}
	if err := st.disk.SyncDir(st.dir); err != nil {
		return fmt.Errorf("catalog: sync directory: %w", err)
	}
	return nil
}

// begin comes before whatever makes Badger touch its files. When the disk does not answer,
// it does not return: see Disk.Probe. An error means that Badger is not to be called.
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

// load reads the whole state into an image.
func (st *store) load() (*Image, error) {
	l := loader{draft: &draft{Image: NewImage()}, partitions: map[TopicID][]Partition{}}
	err := st.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			key := it.Item().Key()
			err := it.Item().Value(func(value []byte) error { return l.entry(key, value) })
			if err != nil {
				return &CorruptError{Key: fmt.Sprintf("%q", key), Err: err}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(l.partitions) > 0 {
		return nil, &CorruptError{Key: "p", Err: fmt.Errorf("partitions of %d topics that do not exist", len(l.partitions))}
	}
	return l.Image, nil
}

// save writes what changed between two images in one synced transaction. When
// it returns ErrTooLarge or ErrNoSpace nothing was written; after any other error
// that is not known.
func (st *store) save(old, img *Image) error {
	if err := st.checkTurn(); err != nil {
		return err
	}
	txn := st.db.NewTransaction(true)
	defer txn.Discard()
	w := &writer{txn: txn}
	if err := w.gather(old, img); err != nil {
		return fmt.Errorf("%w: %.200s", ErrTooLarge, err) // Badger's error may hold the value
	}
	end, err := st.begin("commit")
	if err != nil {
		return fmt.Errorf("catalog: write: %w", err)
	}
	if err = txn.Commit(); err == nil {
		err = st.db.Sync() // a system call
	}
	end()
	if errors.Is(err, badger.ErrTxnTooBig) {
		return ErrTooLarge
	}
	if err != nil {
		return fmt.Errorf("catalog: write: %w", err)
	}
	st.written += w.bytes
	return st.settle()
}

// writer fills a transaction and counts what it takes in Badger's log and memory.
type writer struct {
	txn   *badger.Txn
	bytes int64
}

const entryOverhead = 200 // of one entry, generously

func (w *writer) set(key, value []byte) error {
	w.bytes += int64(len(key) + len(value) + entryOverhead)
	return w.txn.Set(key, value)
}

func (w *writer) delete(key []byte) error {
	w.bytes += int64(len(key) + entryOverhead)
	return w.txn.Delete(key)
}

// gather puts what changed between two images into the transaction. It fails only
// when a value, or all together, is larger than Badger takes.
func (w *writer) gather(old, img *Image) error {
	if err := w.set(keyState, encodeState(img)); err != nil {
		return err
	}
	moved := map[TopicID]bool{} // a command may change many partitions of one
	for _, e := range img.events {
		if e.Kind == DirAssigned || e.Kind == PartitionChanged {
			if moved[e.Topic] {
				continue
			}
			moved[e.Topic] = true
		}
		if err := w.event(old, img, e); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) event(old, img *Image, e Event) error {
	switch e.Kind {
	case TopicCreated, PartitionsAdded, DirAssigned, PartitionChanged:
		return w.topic(old.TopicByID(e.Topic), img.TopicByID(e.Topic))
	case TopicDeleted:
		return w.deleteTopic(old.TopicByID(e.Topic))
	case ConfigsChanged:
		if e.Type == ResourceTopic {
			return w.topic(old.TopicByID(e.Topic), img.TopicByID(e.Topic))
		}
		set, found := img.configs[configKey{e.Type, e.Name}]
		if !found {
			return w.delete(configsKey(e.Type, e.Name))
		}
		return w.set(configsKey(e.Type, e.Name), encodeConfigs(set))
	case BrokerRegistered, BrokerChanged:
		if b := img.broker(e.Broker); b != nil {
			return w.set(brokerKey(b.ID), encodeBroker(*b))
		}
		return w.delete(brokerKey(e.Broker))
	}
	return nil // the rest is in the state value
}

// topic writes the topic's value and the chunks of its partitions that differ.
func (w *writer) topic(old, t *Topic) error {
	if t == nil { // made and removed by the same command
		return nil
	}
	if err := w.set(topicKey(t.ID), encodeTopic(t)); err != nil {
		return err
	}
	for n, chunk := range chunksOf(t.Partitions) {
		if old != nil && slices.EqualFunc(chunk, chunkOf(old.Partitions, n), equalPartitions) {
			continue
		}
		if err := w.set(partitionsKey(t.ID, n), encodePartitions(chunk)); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) deleteTopic(t *Topic) error {
	if t == nil { // made and removed by the same command
		return nil
	}
	if err := w.delete(topicKey(t.ID)); err != nil {
		return err
	}
	for n := range chunksOf(t.Partitions) {
		if err := w.delete(partitionsKey(t.ID, n)); err != nil {
			return err
		}
	}
	return nil
}

// tidy merges level-0 tables once there are several. It does nothing most times.
func (st *store) tidy() {
	if st.db.Levels()[0].NumTables < flattenAt {
		return
	}
	end, err := st.begin("merge")
	if err == nil {
		err = st.db.Flatten(1)
		end()
	}
	if err != nil {
		st.log.Warn("catalog could not merge its tables", "error", err)
	}
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
