package segment

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/segment/vfs"
)

// Rounds of one append to each of some logs, straight or through the journal: where the two meet is what directBytes
// should be. MILLRACE_BENCH_DIR chooses the disk.
func BenchmarkRoute(b *testing.B) {
	for _, logs := range []int{1, 6, 100} {
		for _, size := range []int{4 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 1 << 20} {
			for _, route := range []struct {
				name   string
				direct int64
			}{{"straight", 1}, {"journal", 1 << 40}} {
				b.Run(fmt.Sprintf("%d×%dKiB/%s", logs, size>>10, route.name), func(b *testing.B) {
					path, err := os.MkdirTemp(os.Getenv("MILLRACE_BENCH_DIR"), "route")
					if err != nil {
						b.Fatal(err)
					}
					defer os.RemoveAll(path)
					d, err := OpenDir(context.Background(), DirOptions{FS: vfs.OS(), Path: path, Logger: slog.New(slog.DiscardHandler), Now: time.Now, DirectBytes: route.direct})
					if err != nil {
						b.Fatal(err)
					}
					all, batches := make([]*Log, logs), make([][]byte, logs)
					for i := range all {
						if all[i], err = d.Log(testID("route", int32(i)), DefaultLogConfig()); err != nil {
							b.Fatal(err)
						}
						batches[i] = makeBatch(b, 1, strings.Repeat("x", size), 1)
					}
					b.SetBytes(int64(logs * size))
					var done sync.WaitGroup
					for b.Loop() {
						for i, l := range all {
							done.Add(1)
							if err := l.Append(context.Background(), &Append{Batches: batches[i], Done: func(r Result) {
								if r.Err != nil {
									b.Error(r.Err)
								}
								done.Done()
							}}); err != nil {
								b.Fatal(err)
							}
						}
						done.Wait()
					}
					if err := d.Close(context.Background()); err != nil {
						b.Fatal(err)
					}
				})
			}
		}
	}
}
