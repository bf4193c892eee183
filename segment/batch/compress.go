package batch

import (
	"bytes"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Compress returns the compressed form of src. It is what Kafka's own clients would take, not the same bytes.
func Compress(c Compression, src []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := openEncoder(c, &out)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(src); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// encoderKey tells encoders apart: one made for a level stays with it.
type encoderKey struct {
	codec Codec
	level int
}

// encoders holds a *sync.Pool of encoder per encoderKey; there are at most some dozens of keys.
var encoders sync.Map

// encoder is what the compression libraries have in common.
type encoder interface {
	io.WriteCloser
	Reset(io.Writer)
}

// pooledEncoder goes back to its pool when closed.
type pooledEncoder struct {
	encoder
	pool *sync.Pool
}

// Close flushes and gives the encoder back.
func (p *pooledEncoder) Close() error {
	err := p.encoder.Close()
	p.encoder.Reset(nil)
	p.pool.Put(p.encoder)
	return err
}

// plainWriter passes bytes through.
type plainWriter struct{ io.Writer }

// Close does nothing; there is nothing to flush.
func (plainWriter) Close() error { return nil }

// openEncoder starts compressing into dst. Close writes what is pending, and must be called once.
func openEncoder(c Compression, dst io.Writer) (io.WriteCloser, error) {
	switch c.Codec {
	case None:
		return plainWriter{dst}, nil
	case Snappy:
		return &snappyWriter{dst: dst}, nil
	}
	key := encoderKey{c.Codec, normalLevel(c)}
	p, _ := encoders.LoadOrStore(key, new(sync.Pool))
	pool := p.(*sync.Pool)
	e, ok := pool.Get().(encoder)
	if !ok {
		var err error
		if e, err = newEncoder(key); err != nil {
			return nil, err
		}
	}
	e.Reset(dst)
	return &pooledEncoder{e, pool}, nil
}

// normalLevel brings Kafka's scale of levels to what the libraries have.
func normalLevel(c Compression) int {
	level := c.level()
	switch c.Codec {
	case Gzip:
		return min(max(level, DefaultGzipLevel), gzip.BestCompression)
	case LZ4:
		return min(max(level, 1), 9)
	case Zstd:
		return int(zstd.EncoderLevelFromZstd(level))
	}
	return 0
}

var lz4Levels = [...]lz4.CompressionLevel{lz4.Fast, lz4.Level1, lz4.Level2, lz4.Level3, lz4.Level4,
	lz4.Level5, lz4.Level6, lz4.Level7, lz4.Level8, lz4.Level9}

func newEncoder(key encoderKey) (encoder, error) {
	switch key.codec {
	case Gzip:
		return gzip.NewWriterLevel(nil, key.level)
	case LZ4:
		w := lz4.NewWriter(nil)
		// Blocks of 64 KiB that stand alone are what Kafka's clients write; its reader takes no others that depend.
		err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ConcurrencyOption(1),
			lz4.ChecksumOption(false), lz4.CompressionLevelOption(lz4Levels[key.level]))
		return w, err
	case Zstd:
		return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevel(key.level)),
			zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	}
	return nil, ErrUnknownCodec
}
