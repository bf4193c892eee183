package batch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/snappy"
)

// Java clients wrap snappy in a framing of their library (xerial), others send one raw snappy block:
//
//	+----------------+---------+------------+   then blocks of at most 32 KiB of input:
//	| 82 S N A P P Y | version | compatible |   +--------------+------------------+
//	| 00             | int32   | int32      |   | length int32 | raw snappy block |  ...
//	+----------------+---------+------------+   +--------------+------------------+
//
// The header may come again between blocks, when two streams were joined.
var xerialMagic = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

const (
	xerialHeaderSize = 16
	xerialBlockSize  = 32 << 10

	// snappyMaxExpansion bounds what a snappy block can grow to: its densest element
	// makes 64 bytes from 3. A block that announces more lies.
	snappyMaxExpansion = 22

	// snappyBlockKept is the largest buffer that a decoder keeps for the next batch.
	snappyBlockKept = 4 << 20
)

// snappyReader decodes either form from memory.
type snappyReader struct {
	src    []byte // not yet decoded
	raw    bool   // src is one raw block
	block  []byte // the block being handed out, reused
	unread []byte // what is left of it
}

func (s *snappyReader) reset(src []byte) {
	s.raw = !bytes.HasPrefix(src, xerialMagic)
	if !s.raw && len(src) < xerialHeaderSize {
		s.raw = true // Kafka's reader too takes a header cut short for a raw block
	}
	s.src, s.unread = src, nil
}

// Read implements io.Reader.
func (s *snappyReader) Read(p []byte) (int, error) {
	for len(s.unread) == 0 {
		if len(s.src) == 0 {
			return 0, io.EOF
		}
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.unread)
	s.unread = s.unread[n:]
	return n, nil
}

// next decodes the next block into s.unread.
func (s *snappyReader) next() error {
	block := s.src
	if s.raw {
		s.src = nil
		return s.decode(block)
	}
	for bytes.HasPrefix(s.src, xerialMagic) {
		if len(s.src) < xerialHeaderSize {
			return fmt.Errorf("%w: snappy header cut short", ErrDecompression)
		}
		s.src = s.src[xerialHeaderSize:]
	}
	if len(s.src) == 0 {
		return nil
	}
	if len(s.src) < 4 {
		return fmt.Errorf("%w: snappy block length cut short", ErrDecompression)
	}
	n := int64(binary.BigEndian.Uint32(s.src))
	if n > int64(len(s.src)-4) {
		return fmt.Errorf("%w: snappy block of %d bytes in %d", ErrDecompression, n, len(s.src)-4)
	}
	block, s.src = s.src[4:4+n], s.src[4+n:]
	return s.decode(block)
}

func (s *snappyReader) decode(block []byte) error {
	n, err := snappy.DecodedLen(block)
	if err != nil || n > snappyMaxExpansion*len(block) {
		return fmt.Errorf("%w: snappy block of %d bytes announces %d", ErrDecompression, len(block), n)
	}
	if cap(s.block) < n {
		s.block = make([]byte, n)
	}
	s.unread, err = snappy.Decode(s.block[:cap(s.block)], block)
	if err != nil {
		return fmt.Errorf("%w: %v", ErrDecompression, err)
	}
	return nil
}

// snappyWriter makes the xerial form, as Kafka's own broker and clients do.
type snappyWriter struct {
	dst     io.Writer
	pending []byte // less than a block
	scratch []byte
	started bool
}

// Write implements io.Writer.
func (s *snappyWriter) Write(p []byte) (int, error) {
	written := len(p)
	for len(p) > 0 {
		n := min(len(p), xerialBlockSize-len(s.pending))
		s.pending = append(s.pending, p[:n]...)
		p = p[n:]
		if len(s.pending) == xerialBlockSize {
			if err := s.flush(); err != nil {
				return 0, err
			}
		}
	}
	return written, nil
}

// Close writes what is pending; it does not close the writer below.
func (s *snappyWriter) Close() error { return s.flush() }

func (s *snappyWriter) flush() error {
	if !s.started {
		s.started = true
		header := append(append([]byte{}, xerialMagic...), 0, 0, 0, 1, 0, 0, 0, 1)
		if _, err := s.dst.Write(header); err != nil {
			return err
		}
	}
	if len(s.pending) == 0 {
		return nil
	}
	if s.scratch == nil {
		s.scratch = make([]byte, 4+snappy.MaxEncodedLen(xerialBlockSize))
	}
	block := snappy.Encode(s.scratch[4:], s.pending)
	binary.BigEndian.PutUint32(s.scratch, uint32(len(block)))
	s.pending = s.pending[:0]
	_, err := s.dst.Write(s.scratch[:4+len(block)])
	return err
}
