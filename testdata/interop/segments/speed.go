package main

import (
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// speedRounds is how often each is measured, one after the other, so that what the machine does meanwhile hits all.
const speedRounds = 5

// speed measures how fast "segment" reads: beside dd with a cold cache, beside the CRC of bytes in memory with a warm one, and how
// long it takes to list 10,000 partitions. Dropping the cache needs root.
func speed(ctx context.Context, work string, gigabytes int) error {
	large, many := filepath.Join(work, "large"), filepath.Join(work, "many")
	if err := with(ctx, large, func(cl *kgo.Client) error { return produceBytes(ctx, cl, "large", int64(gigabytes)<<30) }); err != nil {
		return err
	}
	if err := with(ctx, many, func(cl *kgo.Client) error { return produceMany(ctx, cl) }); err != nil {
		return err
	}
	logs, err := filepath.Glob(filepath.Join(large, "topics", "*", "*.log"))
	if err != nil || len(logs) == 0 {
		return fmt.Errorf("no logs: %w", err)
	}
	segment := logs[0] // the others are read in the same way
	info, err := os.Stat(segment)
	if err != nil {
		return err
	}
	dump := func(args ...string) []string {
		return append([]string{*binary, "segment", "dump", segment, "--offsets", "0..999999999"}, args...)
	}
	commands := []struct {
		name string
		args []string
	}{
		{"dd bs=1M", []string{"dd", "if=" + segment, "of=/dev/null", "bs=1M"}},
		{"dd bs=1M iflag=direct", []string{"dd", "if=" + segment, "of=/dev/null", "bs=1M", "iflag=direct"}},
		{"dump --offsets --batches", dump("--batches")},
		{"dump --offsets --output plain", dump("--output", "plain")},
		{"dump --offsets", dump()},
		{"dump --offsets --output json", dump("--output", "json")},
		{"dump --offsets --grep", dump("--grep", "nowhere")},
	}
	if _, _, err := output(ctx, *binary, "segment", "verify", "--help"); err == nil {
		commands = append(commands, struct {
			name string
			args []string
		}{"verify of its folder", []string{*binary, "segment", "verify", filepath.Dir(segment)}})
	}
	fmt.Printf("%d MiB of records, %d rounds, medians\n", info.Size()>>20, speedRounds)
	for _, cold := range []bool{true, false} {
		taken := make([][]time.Duration, len(commands))
		var crc []time.Duration
		for range speedRounds {
			for i, c := range commands {
				if cold {
					if err := dropCache(); err != nil {
						return err
					}
				} else if err := readAll(segment); err != nil {
					return err
				}
				d, err := run1(ctx, c.args)
				if err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
				taken[i] = append(taken[i], d)
			}
			if !cold {
				d, err := sumInMemory(segment)
				if err != nil {
					return err
				}
				crc = append(crc, d)
			}
		}
		for i, c := range commands {
			size := info.Size()
			if strings.HasPrefix(c.name, "verify") {
				size = sizes(logs)
			}
			fmt.Printf("%-5s %-32s %5.0f MB/s\n", map[bool]string{true: "cold", false: "warm"}[cold], c.name, float64(size)/1e6/median(taken[i]).Seconds())
		}
		if !cold {
			fmt.Printf("warm  %-32s %5.0f MB/s\n", "CRC-32C of the bytes in memory", float64(info.Size())/1e6/median(crc).Seconds())
		}
	}
	var warm, cold []time.Duration
	for range speedRounds {
		if err := dropCache(); err != nil {
			return err
		}
		for _, into := range []*[]time.Duration{&cold, &warm} {
			d, err := run1(ctx, []string{*binary, "segment", "ls", many})
			if err != nil {
				return err
			}
			*into = append(*into, d)
		}
	}
	out, _, err := output(ctx, *binary, "segment", "ls", many)
	if err != nil {
		return err
	}
	list := lines(out)
	fmt.Printf("ls of %d lines (%s): %.2f s warm, %.2f s cold\n", len(list), list[len(list)-1], median(warm).Seconds(), median(cold).Seconds())
	return nil
}

// with runs fn with a client of a millrace that has its data in dir.
func with(ctx context.Context, dir string, fn func(*kgo.Client) error) error {
	b, err := startMillrace(ctx, dir)
	if err != nil {
		return err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.address), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	if err == nil {
		err = fn(cl)
		cl.Close()
	}
	if stopped := b.stop(); err == nil {
		err = stopped
	}
	return err
}

// produceBytes writes records of 1 KiB of text.
func produceBytes(ctx context.Context, cl *kgo.Client, topic string, bytes int64) error {
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, nil, topic); err != nil {
		return err
	}
	values := make([][]byte, 64)
	for i := range values {
		for len(values[i]) < 1024 {
			values[i] = fmt.Appendf(values[i], "%08x ", rand.Uint32())
		}
	}
	var wg sync.WaitGroup
	var once sync.Once
	var failed error
	for i := range int(bytes / 1024) {
		wg.Add(1)
		cl.Produce(ctx, &kgo.Record{Topic: topic, Key: strconv.AppendInt(nil, int64(i), 10), Value: values[i%len(values)]}, func(_ *kgo.Record, err error) {
			if err != nil {
				once.Do(func() { failed = err })
			}
			wg.Done()
		})
	}
	wg.Wait()
	return failed
}

// produceMany makes 10,000 partitions with a record or two in each.
func produceMany(ctx context.Context, cl *kgo.Client) error {
	for topic := range 10 {
		name := fmt.Sprint("many-", topic)
		if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1000, 1, nil, name); err != nil {
			return err
		}
		var records []*kgo.Record
		for i := range 2000 {
			records = append(records, &kgo.Record{Topic: name, Value: fmt.Append(nil, i)})
		}
		if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
			return err
		}
	}
	return nil
}

// dropCache has the kernel forget what it has read.
func dropCache() error {
	if out, err := exec.Command("sync").CombinedOutput(); err != nil {
		return fmt.Errorf("sync: %w: %s", err, out)
	}
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0o200)
}

func readAll(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, f)
	return err
}

// sumInMemory tells how long the CRC of a file's bytes takes once they are in memory.
func sumInMemory(name string) (time.Duration, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	begun := time.Now()
	crc32.Checksum(b, table)
	return time.Since(begun), nil
}

// run1 runs a command with its output going nowhere.
func run1(ctx context.Context, args []string) (time.Duration, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	begun := time.Now()
	err := cmd.Run()
	return time.Since(begun), err
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func sizes(names []string) (n int64) {
	for _, name := range names {
		if info, err := os.Stat(name); err == nil {
			n += info.Size()
		}
	}
	return n
}
