package batch

import (
	"fmt"
	"strings"
)

// Codec is a compression of the records of a batch, by its number in the attributes.
type Codec int8

// Producer is not a codec of a batch but a compression.type: whatever the producer has used.
const Producer Codec = -1

// The codecs that the format knows.
const (
	None Codec = iota
	Gzip
	Snappy
	LZ4
	Zstd
)

var codecNames = [...]string{"none", "gzip", "snappy", "lz4", "zstd"}

// Known tells whether the number names a codec at all.
func (c Codec) Known() bool { return c >= None && c <= Zstd }

// String is the codec's name as compression.type spells it.
func (c Codec) String() string {
	if c == Producer {
		return "producer"
	}
	if !c.Known() {
		return fmt.Sprintf("codec %d", int8(c))
	}
	return codecNames[c]
}

// ParseCodec reads a codec's name; "uncompressed" is another word for none.
func ParseCodec(name string) (Codec, error) {
	name = strings.ToLower(name)
	if name == "uncompressed" {
		return None, nil
	}
	for c, n := range codecNames {
		if n == name {
			return Codec(c), nil
		}
	}
	return None, fmt.Errorf("%w: %q", ErrUnknownCodec, name)
}

// Levels that Kafka uses when none is configured. Its levels of lz4 are those of lz4's slow variant.
const (
	DefaultGzipLevel = -1
	DefaultLZ4Level  = 9
	DefaultZstdLevel = 3
)

// Compression says how records are to be compressed.
type Compression struct {
	Codec Codec
	Level int // in Kafka's scale for the codec: gzip -1 or 1..9, lz4 1..17, zstd up to 22; 0 is the default
}

// ParseCompression reads a compression.type, with the default level.
func ParseCompression(name string) (Compression, error) {
	if strings.EqualFold(name, Producer.String()) {
		return Compression{Codec: Producer}, nil
	}
	c, err := ParseCodec(name)
	return Compression{Codec: c}, err
}

// level is the configured level, or the codec's default.
func (c Compression) level() int {
	if c.Level != 0 {
		return c.Level
	}
	switch c.Codec {
	case Gzip:
		return DefaultGzipLevel
	case LZ4:
		return DefaultLZ4Level
	case Zstd:
		return DefaultZstdLevel
	}
	return 0
}
