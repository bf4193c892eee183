package controller

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/millrace/millrace/engine/catalog"
)

// state is all that the log's entries have led to: the image, and what became of the latest commands. It follows from the log
// alone, so it is the same on every node at the same index.
type state struct {
	index uint64 // of the last entry with a proposal
	image *catalog.Image
	done  remembered
}

// The bounds of what is remembered of commands, so that one that comes again is not applied again.
const (
	rememberedCommands = 4096
	rememberedBytes    = 1 << 20
)

// remembered is the outcome of the latest commands, in their order. Its records are never changed, so a copy of the
// value is a snapshot of it; add and outcome are for one goroutine.
type remembered struct {
	records   []record // the oldest first
	bytes     int      // of their results
	forgotten uint64   // index of the latest record that was dropped
	byID      map[proposalID]uint64
	base      uint64 // number of the first record, for byID
}

type record struct {
	id     proposalID
	index  uint64
	result []byte // catalog.EncodeResult
}

// add remembers a record and drops the oldest when there are too many.
func (r *remembered) add(rec record) {
	if r.byID == nil {
		r.byID = map[proposalID]uint64{}
	}
	r.byID[rec.id] = r.base + uint64(len(r.records))
	r.records = append(r.records, rec)
	r.bytes += len(rec.result)
	for len(r.records) > 1 && (len(r.records) > rememberedCommands || r.bytes > rememberedBytes) {
		oldest := r.records[0]
		delete(r.byID, oldest.id)
		r.bytes -= len(oldest.result)
		r.forgotten = oldest.index
		r.records = r.records[1:]
		r.base++
	}
}

// outcome finds what became of a command.
func (r *remembered) outcome(id proposalID) (record, bool) {
	n, found := r.byID[id]
	if !found {
		return record{}, false
	}
	return r.records[n-r.base], true
}

// A snapshot of the state, numbers little endian:
//
//	"mrctrl" version(1) index(8) forgotten(8) number of records(4)
//	for each: id(16) index(8) length(4) result
//	length(8) catalog.EncodeImage
//	crc32c(4) of all before it
const (
	stateMagic   = "mrctrl"
	stateVersion = 1
	recordHeader = 16 + 8 + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (s *state) encode() []byte {
	le := binary.LittleEndian
	b := append([]byte(stateMagic), stateVersion)
	b = le.AppendUint64(le.AppendUint64(b, s.index), s.done.forgotten)
	b = le.AppendUint32(b, uint32(len(s.done.records)))
	for _, r := range s.done.records {
		b = le.AppendUint64(append(b, r.id[:]...), r.index)
		b = append(le.AppendUint32(b, uint32(len(r.result))), r.result...)
	}
	image := catalog.EncodeImage(s.image)
	b = append(le.AppendUint64(b, uint64(len(image))), image...)
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeState(b []byte) (*state, error) {
	le := binary.LittleEndian
	corrupt := func(why error) error { return fmt.Errorf("%w: a snapshot: %w", ErrCorrupt, why) }
	const header = len(stateMagic) + 1 + 8 + 8 + 4
	if len(b) < header+8+4 || string(b[:len(stateMagic)]) != stateMagic {
		return nil, corrupt(fmt.Errorf("%d bytes that are none", len(b)))
	}
	if v := b[len(stateMagic)]; v > stateVersion {
		return nil, fmt.Errorf("%w: snapshot version %d", ErrFutureFormat, v)
	}
	body := b[:len(b)-4]
	if crc32.Checksum(body, castagnoli) != le.Uint32(b[len(body):]) {
		return nil, corrupt(errors.New("checksum differs"))
	}
	rest := body[len(stateMagic)+1:]
	s := &state{index: le.Uint64(rest)}
	forgotten, count := le.Uint64(rest[8:]), le.Uint32(rest[16:])
	rest = rest[20:]
	for range count {
		if len(rest) < recordHeader {
			return nil, corrupt(errors.New("it ends within a record"))
		}
		r := record{id: proposalID(rest[:16]), index: le.Uint64(rest[16:])}
		length := uint64(le.Uint32(rest[24:]))
		if rest = rest[recordHeader:]; length > uint64(len(rest)) {
			return nil, corrupt(errors.New("it ends within a record"))
		}
		r.result = append([]byte(nil), rest[:length]...)
		rest = rest[length:]
		s.done.add(r)
	}
	s.done.forgotten = max(s.done.forgotten, forgotten)
	if len(rest) < 8 || le.Uint64(rest) != uint64(len(rest)-8) {
		return nil, corrupt(errors.New("the image has another length"))
	}
	var err error
	if s.image, err = catalog.DecodeImage(rest[8:]); err != nil {
		return nil, err
	}
	return s, nil
}
