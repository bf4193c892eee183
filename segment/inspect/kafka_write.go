package inspect

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// EncodeOffsetCheckpoint is the reverse of DecodeOffsetCheckpoint.
func EncodeOffsetCheckpoint(offsets map[string]int64) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "0\n%d\n", len(offsets))
	for _, name := range slices.Sorted(maps.Keys(offsets)) {
		dash := strings.LastIndexByte(name, '-')
		fmt.Fprintf(&b, "%s %s %d\n", name[:dash], name[dash+1:], offsets[name])
	}
	return b.Bytes()
}
