package batch

import (
	"fmt"
	"strings"
)

// Codec is a compression of the records of a batch, by its number in the attributes.
type Codec int8

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
	return None, fmt.Errorf("%w: %q", ErrUnsupportedCompression, name)
}
