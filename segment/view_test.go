package segment

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// oldBatches makes a log of batches of about these sizes, one record each, that are in
// the file alone.
func oldBatches(t *testing.T, d *testDir, sizes ...int) (l *Log, batches [][]byte) {
	t.Helper()
	l = d.open(t, "old", 0, DefaultLogConfig())
	for i, size := range sizes {
		b := makeBatch(t, 1, fmt.Sprint(i, strings.Repeat("x", size)), 1)
		l.mustAppend(t, b)
		batches = append(batches, b)
	}
	if len(l.active().tailChunks()) > 0 {
		t.Fatal("the tail is not empty")
	}
	return l, batches
}

// untailed keeps nothing in memory.
func untailed(o *DirOptions) { o.DirectBytes, o.TailBytes = 1, 1 }

// What is read ahead may be short, when the batch behind it is large: then it has no buffer of the pool.
func TestLittleIsReadAhead(t *testing.T) {
	d := openDir(t, newMem(t), untailed)
	defer d.close(t)
	l, batches := oldBatches(t, d, 100<<10, 10<<10, 1500<<10)
	for i, want := range batches {
		got, err := l.Read(nil, int64(i), 3, len(want), true)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("at %d: %d bytes, %v; want %d", i, len(got), err, len(want))
		}
	}
}
