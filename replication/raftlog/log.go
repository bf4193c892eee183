package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/dgraph-io/badger/v4"
	"github.com/hashicorp/raft"
)

// cacheBytes bounds the latest entries that are kept in memory, so that raft, which reads back what
// it has just written, does not read the disk.
const cacheBytes = 4 << 20

// Options say where a log lives.
type Options struct {
	Dir    string // directory of its own; made when missing
	Disk   Disk   // nil does without
	Logger *slog.Logger
}

// Disk is what the log needs of the file system beside what Badger does itself. It is what
// the catalogue of one node needs, see there for the reasons. Methods are called concurrently.
type Disk interface {
	// SyncDir makes the creation of files in a directory durable.
	SyncDir(dir string) error
	// Reserve gives every file of a directory whose name ends in suffix at least size bytes of blocks.
	Reserve(dir, suffix string, size int64) error
	// FreeBytes is the room left on a directory's file system.
	FreeBytes(dir string) (uint64, error)
	// Probe writes something to a directory and syncs it, so that a disk that does not answer
	// is met in a system call and not in one of Badger's memory maps.
	Probe(dir string) error
	// Begin notes that Badger begins something that is to be watched like a file operation, end that it has ended.
	Begin(what, dir string) (end func())
}

// Log is raft's LogStore and StableStore in one Badger. An entry, or a value of the stable store, is on the disk
// when the call that stores it returns without an error. Calls may be made concurrently; writes wait for
// one another, and all of them for the disk without a bound: see [Bounded].
type Log struct {
	store *store
	turn  chan struct{} // holds one token, which the writer takes

	mu          sync.Mutex // guards the fields below; never held across the disk
	first, last uint64     // 0 for no entries
	recent      []raft.Log // the latest entries without a gap, up to last
	recentBytes int
	stable      map[string][]byte
	failure     error

	// Only whoever has the turn touches these.
	leftFrom, leftTo uint64 // entries below first that are still stored, leftFrom = leftTo: none
	tidying          chan struct{}
	closed           bool
}

// Open opens or creates the log in a directory and reads all of it: it fails with a *CorruptError when an
// entry is damaged or missing.
func Open(opts Options) (*Log, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	st, err := openStore(opts)
	if err != nil {
		return nil, err
	}
	l := &Log{store: st, turn: make(chan struct{}, 1), stable: map[string][]byte{}}
	surplus, err := l.load()
	if err == nil && len(surplus) > 0 { // above the last: never acknowledged, and a crash came before their removal
		err = l.removeKeys(surplus)
	}
	if err == nil {
		err = st.settle()
	}
	if err != nil {
		return nil, errors.Join(err, st.close())
	}
	l.turn <- struct{}{}
	return l, nil
}

// Close waits for the write under way and closes Badger.
func (l *Log) Close() error {
	<-l.turn
	defer func() { l.turn <- struct{}{} }()
	if l.closed {
		return nil
	}
	l.closed = true
	if l.tidying != nil {
		<-l.tidying
	}
	return l.store.close()
}

// Err is nil, or why writes are refused from now on.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failure
}

// begin takes the turn to write.
func (l *Log) begin() (end func(), err error) {
	<-l.turn
	if l.closed {
		err = ErrClosed
	} else {
		err = l.Err()
	}
	if err != nil {
		l.turn <- struct{}{}
		return nil, err
	}
	return func() { l.turn <- struct{}{} }, nil
}

// fail remembers a write of which nobody knows what it did.
func (l *Log) fail(err error) error {
	if err == nil || errors.Is(err, ErrNoSpace) || errors.Is(err, ErrGap) {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failure == nil {
		l.failure = fmt.Errorf("%w: %w", ErrFailed, err)
		l.store.log.Error("raft's log refuses writes from now on", "error", err)
	}
	return l.failure
}

// FirstIndex is the index of the first entry, 0 without entries. It does not touch the disk.
func (l *Log) FirstIndex() (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first, nil
}

// LastIndex is the index of the last entry, 0 without entries. It does not touch the disk.
func (l *Log) LastIndex() (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last, nil
}

// GetLog reads an entry: ErrLogNotFound outside of first and last, a *CorruptError within
// when it cannot be read. The latest come from memory; their bytes are shared and must not be changed.
func (l *Log) GetLog(index uint64, out *raft.Log) error {
	l.mu.Lock()
	if index == 0 || index < l.first || index > l.last {
		l.mu.Unlock()
		return raft.ErrLogNotFound
	}
	if back := l.last - index; back < uint64(len(l.recent)) {
		*out = l.recent[uint64(len(l.recent))-1-back]
		l.mu.Unlock()
		return nil
	}
	l.mu.Unlock()
	err := l.store.read(index, out)
	if err != nil && !l.has(index) { // removed meanwhile
		return raft.ErrLogNotFound
	}
	return err
}

func (l *Log) has(index uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return index >= l.first && index <= l.last && index > 0
}

// StoreLog is StoreLogs of one entry.
func (l *Log) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs appends entries with one write and one sync for every transaction of Badger's that they fill (about a megabyte):
// a crash leaves all of them, none, or as many of the first as filled a transaction. They must
// follow one another. They may begin before the end of the log: what is there from their first on is
// removed, as raft counts on when an earlier call came back with an error and was carried out nevertheless.
func (l *Log) StoreLogs(entries []*raft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	end, err := l.begin()
	if err != nil {
		return err
	}
	defer end()
	if err := l.place(entries); err != nil {
		return l.fail(err)
	}
	return l.fail(l.append(entries))
}

// place checks that entries follow one another and the log, and makes room for them.
func (l *Log) place(entries []*raft.Log) error {
	for i, e := range entries {
		if want := entries[0].Index + uint64(i); e.Index != want || e.Index == 0 {
			return fmt.Errorf("%w: %d where %d has to be", ErrGap, e.Index, want)
		}
	}
	from, first, last := entries[0].Index, l.first, l.last // only the writer changes them
	switch {
	case last == 0 && from < l.leftTo: // a log that was emptied begins again before its old end
		return l.purgeAll()
	case last == 0 || from == last+1:
		return nil
	case from > last+1 || from < first:
		return fmt.Errorf("%w: %d to %d are there, %d comes", ErrGap, first, last, from)
	}
	return l.cutTail(from)
}

// append writes entries that follow the log.
func (l *Log) append(entries []*raft.Log) error {
	w := l.store.write()
	defer w.discard()
	first, counted := l.first, 0
	if first == 0 {
		first = entries[0].Index
	}
	for i, e := range entries {
		encoded := encodeEntry(e)
		pieces := piecesOf(encoded)
		for piece := range pieces {
			part := encoded[piece*pieceBytes : min((piece+1)*pieceBytes, len(encoded))]
			if !w.fits(len(part)) { // what is complete so far counts once it is synced
				if err := l.commit(w, first, e.Index-1, entries[counted:i]); err != nil {
					return err
				}
				counted = i
			}
			key, head := entryKey(e.Index, piece), []byte(nil)
			if piece == 0 {
				head = binary.BigEndian.AppendUint16(nil, uint16(pieces))
			}
			if err := w.set(key, seal(key, head, part)); err != nil {
				return err
			}
		}
	}
	if err := l.purge(w, 2*len(entries)+16); err != nil {
		return err
	}
	return l.commit(w, first, entries[len(entries)-1].Index, entries[counted:])
}

// commit makes what was gathered durable and lets it count. The writer is empty afterwards.
func (l *Log) commit(w *writer, first, last uint64, entries []*raft.Log) error {
	if last < first {
		first, last = 0, 0
	}
	if err := w.set(keyBounds, seal(keyBounds, encodeBounds(first, last))); err != nil {
		return err
	}
	if err := w.commit(); err != nil {
		return err
	}
	l.mu.Lock()
	l.first, l.last = first, last
	l.remember(entries)
	l.mu.Unlock()
	l.tidy()
	return nil
}

// remember keeps the latest entries in memory, and forgets what no longer counts; mu is held.
func (l *Log) remember(entries []*raft.Log) {
	for n := len(l.recent); n > 0 && l.recent[n-1].Index > l.last; n-- {
		l.recentBytes -= sizeOf(&l.recent[n-1])
		l.recent = l.recent[: n-1 : n-1]
	}
	for _, e := range entries {
		l.recent = append(l.recent, *e)
		l.recentBytes += sizeOf(e)
	}
	drop := 0
	for drop < len(l.recent) && (l.recentBytes > cacheBytes || l.recent[drop].Index < l.first) {
		l.recentBytes -= sizeOf(&l.recent[drop])
		l.recent[drop] = raft.Log{}
		drop++
	}
	if l.recent = l.recent[drop:]; len(l.recent) == 0 {
		l.recent = nil
	}
}

func sizeOf(e *raft.Log) int { return 128 + len(e.Data) + len(e.Extensions) }

// DeleteRange removes entries at the beginning or at the end of the log; a hole in its middle is refused.
// At the beginning it writes new bounds and nothing else, whatever the number: the entries
// themselves are removed a few at a time along with later writes.
func (l *Log) DeleteRange(from, to uint64) error {
	end, err := l.begin()
	if err != nil {
		return err
	}
	defer end()
	first, last := l.first, l.last
	from, to = max(from, first), min(to, last)
	if last == 0 || from > to {
		return nil
	}
	switch {
	case from == first:
		return l.fail(l.cutHead(to))
	case to == last:
		return l.fail(l.cutTail(from))
	}
	return fmt.Errorf("%w: removing %d to %d would leave a hole in %d to %d", ErrGap, from, to, first, last)
}

// cutHead removes the entries up to one of them.
func (l *Log) cutHead(to uint64) error {
	from := l.leftFrom
	if l.leftFrom == l.leftTo {
		from = l.first
	}
	w := l.store.write()
	defer w.discard()
	if err := l.commit(w, to+1, l.last, nil); err != nil {
		return err
	}
	l.leftFrom, l.leftTo = from, to+1
	return nil
}

// cutTail removes the entries from one of them on. The new bounds are durable first, so that none of them
// counts again after a crash.
func (l *Log) cutTail(from uint64) error {
	to := l.last
	w := l.store.write()
	defer w.discard()
	if err := l.commit(w, l.first, from-1, nil); err != nil {
		return err
	}
	keys, err := l.store.keys(entryKey(from, 0), entryKey(to+1, 0), 0)
	if err != nil {
		return err
	}
	return l.removeKeys(keys)
}

// purge removes some of the entries that no longer count, along with what else is written.
func (l *Log) purge(w *writer, most int) error {
	if l.leftFrom == l.leftTo {
		return nil
	}
	keys, err := l.store.keys(entryKey(l.leftFrom, 0), entryKey(l.leftTo, 0), most)
	if err != nil {
		return err
	}
	for _, key := range keys {
		if !w.fits(0) {
			return nil // next time
		}
		if err := w.delete(key); err != nil {
			return err
		}
		l.leftFrom = binary.BigEndian.Uint64(key[1:])
	}
	if len(keys) < most {
		l.leftFrom = l.leftTo
	}
	return nil
}

// purgeAll removes all of them.
func (l *Log) purgeAll() error {
	keys, err := l.store.keys(entryKey(l.leftFrom, 0), entryKey(l.leftTo, 0), 0)
	if err != nil {
		return err
	}
	l.leftFrom = l.leftTo
	return l.removeKeys(keys)
}

func (l *Log) removeKeys(keys [][]byte) error {
	w := l.store.write()
	defer w.discard()
	for _, key := range keys {
		if !w.fits(0) {
			if err := w.commit(); err != nil {
				return err
			}
		}
		if err := w.delete(key); err != nil {
			return err
		}
	}
	return w.commit()
}

// Set stores a value.
func (l *Log) Set(name, value []byte) error {
	end, err := l.begin()
	if err != nil {
		return err
	}
	defer end()
	if have, known := l.value(name); known && string(have) == string(value) {
		return nil
	}
	w := l.store.write()
	defer w.discard()
	key := stableKey(name)
	if err := w.set(key, seal(key, value)); err != nil {
		return l.fail(err)
	}
	if err := w.commit(); err != nil {
		return l.fail(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stable[string(name)] = append([]byte{}, value...)
	return nil
}

func (l *Log) value(name []byte) ([]byte, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	value, known := l.stable[string(name)]
	return value, known
}

// Get returns a value, nil when it was never set. It does not touch the disk.
func (l *Log) Get(name []byte) ([]byte, error) {
	value, _ := l.value(name)
	return value, nil
}

// SetUint64 stores a number.
func (l *Log) SetUint64(name []byte, value uint64) error {
	return l.Set(name, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 returns a number, 0 when it was never set. It does not touch the disk.
func (l *Log) GetUint64(name []byte) (uint64, error) {
	value, known := l.value(name)
	if !known {
		return 0, nil
	}
	if len(value) != 8 {
		return 0, &CorruptError{What: fmt.Sprintf("value %q", name), Err: fmt.Errorf("%d bytes, not a number", len(value))}
	}
	return binary.BigEndian.Uint64(value), nil
}

// load reads everything. It returns the keys of entries above the last.
func (l *Log) load() (surplus [][]byte, err error) {
	r := reader{log: l}
	err = l.store.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			key := it.Item().KeyCopy(nil)
			if err := it.Item().Value(func(value []byte) error { return r.take(key, value) }); err != nil {
				return err
			}
		}
		return r.finish()
	})
	return r.surplus, err
}
