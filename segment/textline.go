package segment

import (
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
)

// errDamaged says that a file does not hold what was written.
var errDamaged = errors.New("damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encodeLine is the form of small files that people read: one line of text that begins with
// the format's version and ends with the CRC-32C of what stands before it, 8 hex digits.
func encodeLine(text string) []byte {
	return fmt.Appendf(nil, "%s %08x\n", text, crc32.Checksum([]byte(text), castagnoli))
}

// decodeLine is the reverse: the fields, without version and CRC. It fails with errDamaged, or
// with ErrFormat for another version.
func decodeLine(line []byte, version string, fields int) ([]string, error) {
	text := strings.TrimSuffix(string(line), "\n")
	space := strings.LastIndexByte(text, ' ')
	if space < 0 {
		return nil, fmt.Errorf("%w: %q", errDamaged, text)
	}
	head := text[:space]
	if text[space+1:] != fmt.Sprintf("%08x", crc32.Checksum([]byte(head), castagnoli)) {
		return nil, fmt.Errorf("%w: %q has a wrong checksum", errDamaged, text)
	}
	words := strings.Split(head, " ")
	if words[0] != version {
		return nil, fmt.Errorf("%w: version %s, this program knows %s", ErrFormat, words[0], version)
	}
	if len(words) != 1+fields {
		return nil, fmt.Errorf("%w: %q", errDamaged, text)
	}
	return words[1:], nil
}
