package inspect

import (
	"errors"
	"io"
	"sort"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/batch"
	"github.com/millrace/millrace/segment/vfs"
)

// Seek gives a position of a segment's .log where a batch begins that ends before an offset, as far as the index knows: 0 without
// one, and when it does not point at a batch that ends where it says.
func Seek(fsys vfs.FS, s *Segment, offset int64) (int64, error) {
	if !s.Index.There() || offset <= s.Base {
		return 0, nil
	}
	index, err := fsys.OpenFile(s.Index.Path, vfs.ReadOnly, 0)
	if err != nil {
		return 0, err
	}
	defer index.Close()
	var failed error
	entry := func(i int) (e segment.OffsetEntry, filled bool) {
		var b [segment.OffsetEntrySize]byte
		if _, err := index.ReadAt(b[:], int64(i)*segment.OffsetEntrySize); err != nil && !errors.Is(err, io.EOF) {
			failed = err
		}
		return segment.DecodeOffsetEntry(s.Base, b[:]), !segment.IsZero(b[:])
	}
	n := int(s.Index.Size / segment.OffsetEntrySize)
	i := sort.Search(n, func(i int) bool { e, filled := entry(i); return !filled || e.Offset >= offset })
	if failed != nil || i == 0 {
		return 0, failed
	}
	e, _ := entry(i - 1)
	if failed != nil || e.Position+batch.HeaderSize > s.Log.Size {
		return 0, failed
	}
	log, err := fsys.OpenFile(s.Log.Path, vfs.ReadOnly, 0)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	var head [batch.HeaderSize]byte
	if _, err := log.ReadAt(head[:], e.Position); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if h, err := batch.ReadHeader(head[:]); err != nil || h.LastOffset() != e.Offset {
		return 0, nil
	}
	return e.Position, nil
}

// Entries reads an index file of a segment, of entries of a size, and hands each to visit. It ends at entries of zeros, which stand
// behind what is filled of a live segment's in Kafka. left is how many bytes at the end are no entry. Constant memory.
func Entries(fsys vfs.FS, f File, size int, visit func(entry []byte) error) (left int, err error) {
	file, err := fsys.OpenFile(f.Path, vfs.ReadOnly, 0)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	buf := make([]byte, 64<<10/size*size)
	for at := int64(0); ; {
		n, err := file.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		for b := buf[:n]; len(b) >= size; b = b[size:] {
			if segment.IsZero(b[:size]) && (at > 0 || len(b) < n) {
				return 0, nil
			}
			if err := visit(b[:size]); err != nil {
				return 0, err
			}
		}
		if n < len(buf) {
			return n % size, nil
		}
		at += int64(n)
	}
}

// TxnEntrySize are the bytes of an entry of a .txnindex, Kafka's list of aborted transactions.
const TxnEntrySize = 34

// TxnEntry is an aborted transaction.
type TxnEntry struct {
	Version          int16
	ProducerID       int64
	FirstOffset      int64
	LastOffset       int64
	LastStableOffset int64
}

// DecodeTxnEntry takes the entry at the front of b as it is:
//
//	| version int16 = 0 | producer id int64 | first offset int64 | last offset int64 | last stable offset int64 |
func DecodeTxnEntry(b []byte) TxnEntry {
	return TxnEntry{Version: int16(be.Uint16(b)), ProducerID: int64(be.Uint64(b[2:])), FirstOffset: int64(be.Uint64(b[10:])),
		LastOffset: int64(be.Uint64(b[18:])), LastStableOffset: int64(be.Uint64(b[26:]))}
}

// AppendTxnEntry is the reverse of DecodeTxnEntry.
func AppendTxnEntry(b []byte, e TxnEntry) []byte {
	b = be.AppendUint16(b, uint16(e.Version))
	for _, v := range [...]int64{e.ProducerID, e.FirstOffset, e.LastOffset, e.LastStableOffset} {
		b = be.AppendUint64(b, uint64(v))
	}
	return b
}
