package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
	"github.com/hashicorp/raft"
)

// reader takes in all that is stored, in the order of the keys: the bounds come first.
type reader struct {
	log     *Log
	surplus [][]byte // keys of entries above the last

	next    uint64 // the entry that has to come
	entry   []byte // what has come of it
	pieces  int
	came    int
	lowest  uint64 // leftover below the first
	haveLow bool
}

func (r *reader) take(key, value []byte) error {
	if len(key) == 0 {
		return &CorruptError{What: "empty key", Err: errors.New("it cannot be")}
	}
	what := fmt.Sprintf("value at %q", key)
	if key[0] == 'l' && len(key) == entryKeyLen {
		index := binary.BigEndian.Uint64(key[1:])
		switch {
		case index > r.log.last:
			r.surplus = append(r.surplus, key)
			return nil
		case index < r.log.first:
			if !r.haveLow {
				r.lowest, r.haveLow = index, true
			}
			return nil
		}
		what = fmt.Sprintf("entry %d", index)
	}
	body, err := unseal(key, value)
	if errors.Is(err, ErrFutureFormat) {
		return err
	}
	if err == nil {
		err = r.body(key, body)
	}
	var corrupt *CorruptError
	if err != nil && !errors.As(err, &corrupt) {
		err = &CorruptError{What: what, Err: err}
	}
	return err
}

func (r *reader) body(key, body []byte) (err error) {
	switch {
	case string(key) == string(keyBounds):
		r.log.first, r.log.last, err = decodeBounds(body)
		r.next = r.log.first
		return err
	case key[0] == 's':
		r.log.stable[string(key[1:])] = append([]byte{}, body...)
		return nil
	case key[0] == 'l' && len(key) == entryKeyLen:
		return r.piece(binary.BigEndian.Uint64(key[1:]), int(binary.BigEndian.Uint16(key[9:])), body)
	}
	return fmt.Errorf("%w: unknown kind of key", ErrFutureFormat)
}

// piece takes the next piece of the next entry; any other is one too many, or tells that one is missing.
func (r *reader) piece(index uint64, piece int, body []byte) error {
	if index != r.next || piece != r.came {
		return r.missing()
	}
	var err error
	if piece == 0 {
		if r.pieces, body, err = firstPiece(body); err != nil {
			return err
		}
	}
	r.entry = append(r.entry, body...)
	if r.came++; r.came < r.pieces {
		return nil
	}
	var l raft.Log
	if err := decodeEntry(index, r.entry, &l); err != nil {
		return err
	}
	r.log.remember([]*raft.Log{&l})
	r.entry, r.came, r.pieces = nil, 0, 0
	r.next++
	return nil
}

func (r *reader) missing() error {
	return &CorruptError{What: fmt.Sprintf("entry %d", r.next),
		Err: fmt.Errorf("piece %d is missing, the log goes from %d to %d", r.came, r.log.first, r.log.last)}
}

func (r *reader) finish() error {
	if r.log.last != 0 && r.next != r.log.last+1 {
		return r.missing()
	}
	if r.haveLow {
		r.log.leftFrom, r.log.leftTo = r.lowest, r.log.first
	}
	return nil
}

func firstPiece(body []byte) (pieces int, rest []byte, err error) {
	if len(body) < 2 {
		return 0, nil, fmt.Errorf("a first piece of %d bytes", len(body))
	}
	if pieces = int(binary.BigEndian.Uint16(body)); pieces == 0 {
		return 0, nil, errors.New("no pieces")
	}
	return pieces, body[2:], nil
}

// read reads one entry.
func (st *store) read(index uint64, out *raft.Log) error {
	err := st.db.View(func(txn *badger.Txn) error {
		var entry []byte
		for piece, pieces := 0, 1; piece < pieces; piece++ {
			key := entryKey(index, piece)
			item, err := txn.Get(key)
			if err != nil {
				return fmt.Errorf("piece %d: %w", piece, err)
			}
			err = item.Value(func(value []byte) error {
				body, err := unseal(key, value)
				if err == nil && piece == 0 {
					pieces, body, err = firstPiece(body)
				}
				entry = append(entry, body...)
				return err
			})
			if err != nil {
				return err
			}
		}
		return decodeEntry(index, entry, out)
	})
	if err != nil {
		return &CorruptError{What: fmt.Sprintf("entry %d", index), Err: err}
	}
	return nil
}

// keys lists the keys from one to another, the first "most" of them unless that is 0.
func (st *store) keys(from, to []byte, most int) (keys [][]byte, err error) {
	err = st.db.View(func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.PrefetchValues = false
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Seek(from); it.Valid() && string(it.Item().Key()) < string(to); it.Next() {
			keys = append(keys, it.Item().KeyCopy(nil))
			if len(keys) == most {
				break
			}
		}
		return nil
	})
	return keys, err
}
