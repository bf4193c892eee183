package command

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/segment/batch"
)

// TestDumpPipe dumps a log with long and short batches and damage on one goroutine and on two: they say the same.
func TestDumpPipe(t *testing.T) {
	var log []byte
	offset, records := int64(0), 0
	for i := range 400 {
		b := batch.NewBuilder(batch.BuilderOptions{BaseOffset: offset, Compression: batch.Compression{Codec: batch.Codec(i % 5)}})
		n := 1 + i%7
		for j := range n {
			b.Append(1_700_000_000_000+int64(i), fmt.Append(nil, "key ", i), []byte(strings.Repeat(fmt.Sprintf("value %d.%d ", i, j), i*i%50)), nil)
		}
		if i == 200 { // longer than what is handed over
			b.Append(1_700_000_000_000, nil, bytes.Repeat([]byte("long"), 10<<10), nil)
			n++
		}
		out, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		if i == 100 || i == 399 {
			out[len(out)-1] ^= 1
		} else {
			records += n
		}
		log, offset = append(log, out...), offset+int64(n)
	}
	name := filepath.Join(t.TempDir(), "00000000000000000000.log")
	if err := os.WriteFile(name, log, 0o644); err != nil {
		t.Fatal(err)
	}
	usual, most := pipeLeast, pipeMost
	defer func() { pipeLeast, pipeMost = usual, most }()
	run := func(least int64, args []string) (string, int) {
		pipeLeast, pipeMost = least, 32<<10
		var out bytes.Buffer
		code := Main(append([]string{"millrace", "segment", "dump", name}, args...), Streams{Out: &out, Err: &out}, Build{})
		return out.String(), code
	}
	for _, args := range [][]string{{}, {"--output", "json"}, {"--output", "plain"}, {"--max", "300"}, {"--max", "1"}, {"--grep", `value 3\d\d\.2 `, "--keys-only"}, {"--offsets", "500.."}, {"--batches"}, {"--control"}} {
		one, code1 := run(math.MaxInt64, args)
		two, code2 := run(1<<10, args)
		if one != two || code1 != code2 {
			t.Errorf("%v: %d bytes and exit code %d on one goroutine, %d and %d on two", args, len(one), code1, len(two), code2)
		}
	}
	out, code := run(1<<10, []string{"--records"})
	if got := strings.Count(out, " → "); got != records || code != ExitFailed || strings.Count(out, "damage at byte") != 2 {
		t.Errorf("%d records of %d, exit code %d", got, records, code)
	}
}
