package raftlog

// What lies in Badger. Numbers are big endian. Every value is
//
//	version(1) crc32c(4) of key and body, body
//
//	key                       body
//	"b"                       first index(8) last index(8): the entries that count, 0 0 for none
//	"l" index(8) piece(2)     a piece of an entry, up to pieceBytes; of piece 0 the first two bytes
//	                          are the number of pieces. The pieces together:
//	                          type(1) term(8) appended at(8, Unix ns, 0 unknown) length(4) extensions data
//	"s" name                  a value of the stable store
//
// Entries outside of the bounds are leftovers: below the first they are removed along with later
// writes, above the last at the next opening.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/hashicorp/raft"
)

// formatVersion is the version byte of every value written here.
const formatVersion = 1

const (
	pieceBytes  = 256 << 10
	entryHeader = 1 + 8 + 8 + 4
	valueHeader = 1 + 4
	entryKeyLen = 1 + 8 + 2
)

var (
	keyBounds  = []byte("b")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

func entryKey(index uint64, piece int) []byte {
	key := binary.BigEndian.AppendUint64(append(make([]byte, 0, entryKeyLen), 'l'), index)
	return binary.BigEndian.AppendUint16(key, uint16(piece))
}

func stableKey(name []byte) []byte { return append([]byte("s"), name...) }

// seal puts version and checksum before a body.
func seal(key []byte, body ...[]byte) []byte {
	size, sum := valueHeader, crc32.Checksum(key, castagnoli)
	for _, part := range body {
		size += len(part)
		sum = crc32.Update(sum, castagnoli, part)
	}
	value := binary.BigEndian.AppendUint32(append(make([]byte, 0, size), formatVersion), sum)
	for _, part := range body {
		value = append(value, part...)
	}
	return value
}

// unseal returns the body of a value, which aliases it.
func unseal(key, value []byte) ([]byte, error) {
	if len(value) < valueHeader {
		return nil, fmt.Errorf("%d bytes", len(value))
	}
	if value[0] > formatVersion {
		return nil, fmt.Errorf("%w: version %d", ErrFutureFormat, value[0])
	}
	body := value[valueHeader:]
	if crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, body) != binary.BigEndian.Uint32(value[1:]) {
		return nil, errors.New("checksum differs")
	}
	return body, nil
}

func encodeBounds(first, last uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, first), last)
}

func decodeBounds(b []byte) (first, last uint64, err error) {
	if len(b) != 16 {
		return 0, 0, fmt.Errorf("%d bytes", len(b))
	}
	first, last = binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	if first > last || first == 0 && last != 0 {
		return 0, 0, fmt.Errorf("from %d to %d", first, last)
	}
	return first, last, nil
}

// encodeEntry writes an entry but for its index, which is in its keys.
func encodeEntry(l *raft.Log) []byte {
	b := make([]byte, 0, entryHeader+len(l.Extensions)+len(l.Data))
	b = binary.BigEndian.AppendUint64(append(b, byte(l.Type)), l.Term)
	var at int64
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(at))
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Extensions)))
	return append(append(b, l.Extensions...), l.Data...)
}

// decodeEntry reads what encodeEntry wrote; the log keeps b.
func decodeEntry(index uint64, b []byte, l *raft.Log) error {
	if len(b) < entryHeader {
		return fmt.Errorf("%d bytes", len(b))
	}
	extensions := uint64(binary.BigEndian.Uint32(b[17:]))
	if extensions > uint64(len(b)-entryHeader) {
		return fmt.Errorf("extensions of %d bytes in %d", extensions, len(b))
	}
	*l = raft.Log{Index: index, Type: raft.LogType(b[0]), Term: binary.BigEndian.Uint64(b[1:])}
	if at := int64(binary.BigEndian.Uint64(b[9:])); at != 0 {
		l.AppendedAt = time.Unix(0, at)
	}
	rest := b[entryHeader:]
	if extensions > 0 {
		l.Extensions = rest[:extensions:extensions]
	}
	if data := rest[extensions:]; len(data) > 0 {
		l.Data = data
	}
	return nil
}

// piecesOf is how many pieces an encoded entry is stored in.
func piecesOf(encoded []byte) int { return max(1, (len(encoded)+pieceBytes-1)/pieceBytes) }
