package batch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// DefaultMaxDecompressed bounds the decompressed size of a batch where the caller sets no bound.
// Decoding is streamed, so the bound limits the time that a bomb costs; memory is limited by the decoders' windows.
const DefaultMaxDecompressed = 1 << 30

const (
	// zstdWindow is what Kafka's clients use up to level 19; decoders of that size are pooled.
	zstdWindow = 8 << 20
	// zstdMaxWindow is the largest window that Kafka's own decoder takes.
	zstdMaxWindow = 128 << 20
)

// Decoding a hostile batch takes a window's worth of memory. Decoding is bound by the CPU, so that
// more of it at a time than there are CPUs would only add memory. Large windows go one at a time.
var (
	decoding    = make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))
	largeWindow sync.Mutex
)

// takeDecodingTurn waits until this batch may be decoded; call the result when done.
// Not to be held while calling anybody else's code.
func takeDecodingTurn(codec Codec, payload []byte) (release func()) {
	if codec == None {
		return func() {}
	}
	large := codec == Zstd && zstdNeedsLargeWindow(payload)
	if large {
		largeWindow.Lock()
	}
	decoding <- struct{}{}
	return func() {
		<-decoding
		if large {
			largeWindow.Unlock()
		}
	}
}

// Decompress returns the decompressed records of a batch's payload. It fails with ErrTooManyBytes
// when they are more than max bytes, and never holds more than that.
func Decompress(codec Codec, src []byte, max int64) ([]byte, error) {
	d, err := openDecoder(codec, src, max)
	if err != nil {
		return nil, err
	}
	defer d.close()
	var out bytes.Buffer
	if _, err := out.ReadFrom(d); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// decoder streams decompressed bytes, at most a given number of them, and goes back to its pool when closed.
type decoder struct {
	codec Codec
	r     io.Reader // the one below that is in use
	left  int64     // bytes that may still come

	source bytes.Reader
	gzip   *gzip.Reader
	snappy snappyReader
	lz4    *lz4.Reader
	zstd   *zstd.Decoder // with the usual window
	large  *zstd.Decoder // with the large window, never kept
}

var decoders [Zstd + 1]sync.Pool // of *decoder, by codec, so that each holds one codec's buffers

// openDecoder starts reading src; max <= 0 asks for the default bound.
// Every error of a codec comes out as ErrDecompression.
func openDecoder(codec Codec, src []byte, max int64) (*decoder, error) {
	if !codec.Known() {
		return nil, fmt.Errorf("%w: %v", ErrUnknownCodec, codec)
	}
	if max <= 0 {
		max = DefaultMaxDecompressed
	}
	d, _ := decoders[codec].Get().(*decoder)
	if d == nil {
		d = &decoder{codec: codec}
	}
	d.left = max
	if err := d.start(src); err != nil {
		d.close()
		return nil, fmt.Errorf("%w: %v: %v", ErrDecompression, codec, err)
	}
	return d, nil
}

func (d *decoder) start(src []byte) (err error) {
	d.source.Reset(src)
	switch d.codec {
	case None:
		d.r = &d.source
	case Gzip:
		if d.gzip == nil {
			d.gzip = new(gzip.Reader)
		}
		d.r = d.gzip
		return d.gzip.Reset(&d.source)
	case Snappy:
		d.snappy.reset(src)
		d.r = &d.snappy
	case LZ4:
		if d.lz4 == nil {
			d.lz4 = lz4.NewReader(nil)
			if err := d.lz4.Apply(lz4.ConcurrencyOption(1)); err != nil {
				return err
			}
		}
		d.lz4.Reset(&d.source)
		d.r = d.lz4
	case Zstd:
		z := &d.zstd
		window := uint64(zstdWindow)
		if zstdNeedsLargeWindow(src) {
			z, window = &d.large, zstdMaxWindow
		}
		if *z == nil {
			// Reading as a stream, the decoder takes both options as bounds of the window.
			*z, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
				zstd.WithDecoderMaxWindow(window), zstd.WithDecoderMaxMemory(window))
			if err != nil {
				return err
			}
		}
		d.r = *z
		return (*z).Reset(&d.source)
	}
	return nil
}

// Read implements io.Reader. The source lies in memory, so an error is io.EOF, ErrTooManyBytes or ErrDecompression.
func (d *decoder) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	d.left -= int64(n)
	switch {
	case d.left < 0:
		return 0, ErrTooManyBytes
	case err == nil || err == io.EOF:
		return n, err
	case errors.Is(err, ErrDecompression):
		return n, err
	}
	return n, fmt.Errorf("%w: %v: %v", ErrDecompression, d.codec, err)
}

// close lets go of the source and makes the decoder's buffers available to others.
func (d *decoder) close() {
	d.r = nil
	d.source.Reset(nil)
	d.snappy.reset(nil)
	if cap(d.snappy.block) > snappyBlockKept {
		d.snappy.block = nil
	}
	if d.lz4 != nil {
		d.lz4.Reset(nil)
	}
	if d.zstd != nil {
		_ = d.zstd.Reset(nil) // fails only on a closed decoder
	}
	if d.large != nil {
		d.large.Close()
		d.large = nil
	}
	decoders[d.codec].Put(d)
}

// zstdNeedsLargeWindow looks into the first frame's header.
func zstdNeedsLargeWindow(src []byte) bool {
	var h zstd.Header
	if err := h.Decode(src); err != nil {
		return false
	}
	window := h.WindowSize
	if h.SingleSegment {
		window = h.FrameContentSize
	}
	return window > zstdWindow
}
