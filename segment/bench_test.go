package segment

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/segment/vfs"
)

// Appends to a real disk, each waiting for its sync: what the committer makes of
// many writers.
func BenchmarkAppend(b *testing.B) {
	for _, shape := range []struct{ writers, logs, records, size int }{
		{1, 1, 1, 1024}, {64, 6, 1, 1024}, {64, 64, 1, 1024}, {6, 6, 256, 1024}, {100, 100, 16, 1024},
	} {
		b.Run(fmt.Sprintf("writers=%d/logs=%d/batch=%dx%d", shape.writers, shape.logs, shape.records, shape.size), func(b *testing.B) {
			d, err := OpenDir(context.Background(), DirOptions{FS: vfs.OS(), Path: b.TempDir(), Now: time.Now, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close(context.Background())
			value := fmt.Sprintf("%0*d", shape.size, 0)
			one := makeBatch(b, shape.records, value, 1)
			logs := make([]*Log, shape.logs)
			for i := range logs {
				if logs[i], err = d.Log(testID("bench", int32(i)), DefaultLogConfig()); err != nil {
					b.Fatal(err)
				}
				logs[i].mustAppend(b, append([]byte(nil), one...))
			}
			b.SetBytes(int64(len(one)))
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for w := range shape.writers {
				wg.Add(1)
				go func() {
					defer wg.Done()
					mine := append([]byte(nil), one...)
					for i := w; i < b.N; i += shape.writers {
						if r := logs[w%len(logs)].appendAndWait(b, mine); r.Err != nil {
							b.Error(r.Err)
							return
						}
					}
				}()
			}
			wg.Wait()
		})
	}
}
