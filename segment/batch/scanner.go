package batch

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// scanner reads records off a stream through one fixed buffer, so that a record of any announced
// size costs no more memory than the buffer. What it reads can be copied to out on the way.
type scanner struct {
	src      io.Reader
	buf      []byte
	pos, end int
	before   int64 // bytes that came before buf[0]
	width    int   // of the last varint
	err      error // why src has no more, io.EOF at its good end
}

const scannerBufferSize = 32 << 10

var scanners = sync.Pool{New: func() any { return &scanner{buf: make([]byte, scannerBufferSize)} }}

func newScanner(src io.Reader) *scanner {
	s := scanners.Get().(*scanner)
	s.src, s.pos, s.end, s.before, s.err = src, 0, 0, 0, nil
	return s
}

func (s *scanner) free() {
	s.src = nil
	scanners.Put(s)
}

// fill makes at least n bytes available, n being a small number, or as many as there are.
func (s *scanner) fill(n int) {
	if s.end-s.pos >= n || s.err != nil {
		return
	}
	copy(s.buf, s.buf[s.pos:s.end])
	s.end -= s.pos
	s.before += int64(s.pos)
	s.pos = 0
	for empty := 0; s.end < n && s.err == nil; {
		var got int
		got, s.err = s.src.Read(s.buf[s.end:])
		s.end += got
		if got > 0 {
			empty = 0
		} else if empty++; empty > 100 && s.err == nil {
			s.err = io.ErrNoProgress
		}
	}
}

func (s *scanner) byte() (byte, error) {
	if s.pos == s.end {
		if s.fill(1); s.pos == s.end {
			return 0, unexpected(s.err)
		}
	}
	s.pos++
	return s.buf[s.pos-1], nil
}

func (s *scanner) varint() (int32, error) {
	s.fill(binary.MaxVarintLen32)
	v, w := varint(s.buf[s.pos:s.end])
	if w <= 0 {
		return 0, s.noVarint(binary.MaxVarintLen32)
	}
	s.pos += w
	s.width = w
	return int32(v), nil
}

func (s *scanner) varlong() (int64, error) {
	s.fill(binary.MaxVarintLen64)
	v, w := binary.Varint(s.buf[s.pos:s.end])
	if w <= 0 {
		return 0, s.noVarint(binary.MaxVarintLen64)
	}
	s.pos += w
	return v, nil
}

// noVarint says why there was none in so many bytes.
func (s *scanner) noVarint(width int) error {
	if s.end-s.pos < width && s.err != nil {
		return unexpected(s.err)
	}
	return fmt.Errorf("%w: a number is longer than it can be", ErrInvalidRecord)
}

// consumed is the number of bytes read so far.
func (s *scanner) consumed() int64 { return s.before + int64(s.pos) }

// copyBytes reads a length and its bytes, and writes both to out unless that is nil.
func (s *scanner) copyBytes(out io.Writer) (size int32, err error) {
	if size, err = s.copyVarint(out); err != nil {
		return 0, err
	}
	return size, s.copy(int64(size), out)
}

func (s *scanner) copyVarint(out io.Writer) (int32, error) {
	v, err := s.varint() // which leaves the bytes it has read right before pos
	if err == nil && out != nil {
		_, err = out.Write(s.buf[s.pos-s.width : s.pos])
	}
	return v, err
}

// copyHeaders reads a record's headers.
func (s *scanner) copyHeaders(out io.Writer) error {
	n, err := s.copyVarint(out)
	if err != nil {
		return err
	}
	if n < 0 {
		return fmt.Errorf("%w: %d headers", ErrInvalidRecord, n)
	}
	for range n {
		key, err := s.copyBytes(out)
		if err == nil && key < 0 {
			err = fmt.Errorf("%w: a header without a name", ErrInvalidRecord)
		}
		if err == nil {
			_, err = s.copyBytes(out)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// copy passes n bytes to out, or over them when out is nil.
func (s *scanner) copy(n int64, out io.Writer) error {
	for n > 0 {
		if s.pos == s.end {
			if s.fill(1); s.pos == s.end {
				return unexpected(s.err)
			}
		}
		part := s.buf[s.pos:s.end]
		if int64(len(part)) > n {
			part = part[:n]
		}
		if out != nil {
			if _, err := out.Write(part); err != nil {
				return err
			}
		}
		s.pos += len(part)
		n -= int64(len(part))
	}
	return nil
}

// record appends the next record's body to dst, growing it only as bytes really arrive.
func (s *scanner) record(dst []byte) ([]byte, error) {
	n, err := s.varint()
	if err != nil {
		return dst, err
	}
	if n < 0 {
		return dst, fmt.Errorf("%w: body of %d bytes", ErrInvalidRecord, n)
	}
	for left := int(n); left > 0; {
		if s.pos == s.end {
			if s.fill(1); s.pos == s.end {
				return dst, unexpected(s.err)
			}
		}
		part := s.buf[s.pos:s.end]
		if len(part) > left {
			part = part[:left]
		}
		dst = append(dst, part...)
		s.pos += len(part)
		left -= len(part)
	}
	return dst, nil
}

// atEnd says whether the stream ends here, as it must after the last record.
func (s *scanner) atEnd() error {
	s.fill(1)
	if s.pos < s.end {
		return fmt.Errorf("%w: bytes after the last record", ErrInvalidRecord)
	}
	if s.err != io.EOF {
		return s.err
	}
	return nil
}
