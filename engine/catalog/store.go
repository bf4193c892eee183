package catalog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
)

// store keeps the state of an image in Badger. Only the catalog's writer uses it.
type store struct {
	db      *badger.DB
	log     *slog.Logger
	syncDir func() error // makes new files in the directory durable
}

// openStore opens or creates the store and reads the whole state.
func openStore(opts Options) (*store, *Image, error) {
	o := badger.DefaultOptions(opts.Dir).
		WithSyncWrites(true).
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
	st := &store{db: db, log: opts.Logger, syncDir: func() error { return nil }}
	if opts.SyncDir != nil {
		st.syncDir = func() error { return opts.SyncDir(opts.Dir) }
	}
	img, err := st.load()
	if err != nil {
		return nil, nil, errors.Join(err, st.close())
	}
	return st, img, nil
}

func (st *store) close() error {
	if err := st.db.Close(); err != nil {
		return fmt.Errorf("catalog: close: %w", err)
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
// it returns ErrTooLarge nothing was written; after any other error that is not known.
func (st *store) save(old, img *Image) error {
	txn := st.db.NewTransaction(true)
	defer txn.Discard()
	if err := gather(txn, old, img); err != nil {
		return fmt.Errorf("%w: %.200s", ErrTooLarge, err) // Badger's error may hold the value
	}
	err := txn.Commit()
	if errors.Is(err, badger.ErrTxnTooBig) {
		return ErrTooLarge
	}
	if err != nil {
		return fmt.Errorf("catalog: write: %w", err)
	}
	if err := st.syncDir(); err != nil {
		return fmt.Errorf("catalog: sync directory: %w", err)
	}
	return nil
}

// gather puts what changed between two images into a transaction. It fails only
// when a value, or all together, is larger than Badger takes.
func gather(txn *badger.Txn, old, img *Image) error {
	if err := txn.Set(keyState, encodeState(img)); err != nil {
		return err
	}
	for _, e := range img.events {
		if err := saveEvent(txn, old, img, e); err != nil {
			return err
		}
	}
	return nil
}

func saveEvent(txn *badger.Txn, old, img *Image, e Event) error {
	switch e.Kind {
	case TopicCreated, PartitionsAdded:
		return saveTopic(txn, old.TopicByID(e.Topic), img.TopicByID(e.Topic))
	case TopicDeleted:
		return deleteTopic(txn, old.TopicByID(e.Topic))
	case ConfigsChanged:
		if e.Type == ResourceTopic {
			return saveTopic(txn, old.TopicByID(e.Topic), img.TopicByID(e.Topic))
		}
		set, found := img.configs[configKey{e.Type, e.Name}]
		if !found {
			return txn.Delete(configsKey(e.Type, e.Name))
		}
		return txn.Set(configsKey(e.Type, e.Name), encodeConfigs(set))
	case BrokerRegistered:
		for _, b := range img.brokers {
			if have, found := old.Broker(b.ID); !found || have.Epoch != b.Epoch {
				if err := txn.Set(brokerKey(b.ID), encodeBroker(b)); err != nil {
					return err
				}
			}
		}
	}
	return nil // the rest is in the state value
}

// saveTopic writes the topic's value and the chunks of its partitions that differ.
func saveTopic(txn *badger.Txn, old, t *Topic) error {
	if t == nil { // made and removed by the same command
		return nil
	}
	if err := txn.Set(topicKey(t.ID), encodeTopic(t)); err != nil {
		return err
	}
	for n, chunk := range chunksOf(t.Partitions) {
		if old != nil && slices.EqualFunc(chunk, chunkOf(old.Partitions, n), equalPartitions) {
			continue
		}
		if err := txn.Set(partitionsKey(t.ID, n), encodePartitions(chunk)); err != nil {
			return err
		}
	}
	return nil
}

func deleteTopic(txn *badger.Txn, t *Topic) error {
	if t == nil { // made and removed by the same command
		return nil
	}
	if err := txn.Delete(topicKey(t.ID)); err != nil {
		return err
	}
	for n := range chunksOf(t.Partitions) {
		if err := txn.Delete(partitionsKey(t.ID, n)); err != nil {
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
	if err := st.db.Flatten(1); err != nil {
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
