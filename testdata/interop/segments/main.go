// Command segments proves that "millrace segment" and Kafka's own dump tool read the same out of the same files: line by
// line, of every log, index, time index, transaction index and producer snapshot, written by Kafka and by millrace, with every codec
// and, on Kafka's side, transactions.
//
//	segments -millrace bin/millrace [-libs DIR] [-keep]
//	segments -millrace bin/millrace -speed 2
//
// Both brokers are filled with the same, looked at while they run, ended, and then compared. DIR holds the jars of Kafka's broker;
// without it Maven fetches them. It needs a JDK, and Maven for the jars.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

var (
	binary = flag.String("millrace", "bin/millrace", "the binary")
	libs   = flag.String("libs", "", "a directory with the jars of Kafka's broker")
	pom    = flag.String("pom", "testdata/bench/pom.xml", "what Maven fetches them by")
	golden = flag.String("golden", "", "write small directories of both brokers there, for the command scripts (testdata/segments), instead of comparing")
	fast   = flag.Int("speed", 0, "measure how fast so many GiB are read, instead of comparing; as root")
	keep   = flag.Bool("keep", false, "keep the brokers' directories")
)

func main() {
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	work, err := os.MkdirTemp("", "segments-")
	if err == nil && *fast > 0 {
		err = speed(ctx, work, *fast)
	} else if err == nil && *golden != "" {
		err = writeGolden(ctx, work)
	} else if err == nil {
		err = run(ctx, work)
	}
	if *keep || err != nil {
		fmt.Println("the brokers' directories are in", work)
	} else {
		os.RemoveAll(work)
	}
	if err != nil {
		fmt.Println("FAIL", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, work string) error {
	if err := fetchJars(ctx, work); err != nil {
		return err
	}
	for _, make := range []struct {
		name  string
		start func(ctx context.Context, dir string) (*broker, error)
	}{{"kafka", startKafka}, {"millrace", startMillrace}} {
		b, err := make.start(ctx, filepath.Join(work, make.name))
		if err != nil {
			return fmt.Errorf("%s: %w", make.name, err)
		}
		transacted, err := fill(ctx, b.address, 1)
		if !transacted {
			fmt.Println("SKIP", make.name, "has no transactions")
		}
		if err == nil {
			err = whileRunning(ctx, make.name, b.data)
		}
		if err = errors.Join(err, b.stop()); err != nil {
			return fmt.Errorf("%s: %w", make.name, err)
		}
		if err := compare(ctx, make.name, b.data); err != nil {
			return fmt.Errorf("%s: %w", make.name, err)
		}
	}
	return nil
}

// writeGolden fills both brokers with little and copies what they leave, but for Kafka's metadata and the catalogue.
func writeGolden(ctx context.Context, work string) error {
	if err := fetchJars(ctx, work); err != nil {
		return err
	}
	for name, start := range map[string]func(context.Context, string) (*broker, error){"kafka": startKafka, "millrace": startMillrace} {
		b, err := start(ctx, filepath.Join(work, name))
		if err != nil {
			return err
		}
		_, err = fill(ctx, b.address, 100)
		if err = errors.Join(err, b.stop()); err != nil {
			return err
		}
		for _, left := range []string{"__cluster_metadata-0", "bootstrap.checkpoint", "catalog"} {
			if err := os.RemoveAll(filepath.Join(b.data, left)); err != nil {
				return err
			}
		}
		into := filepath.Join(*golden, name)
		if err := errors.Join(os.RemoveAll(into), os.CopyFS(into, os.DirFS(b.data))); err != nil {
			return err
		}
	}
	return nil
}

// whileRunning expects that what a server holds is read all the same, and said to be held.
func whileRunning(ctx context.Context, name, data string) error {
	for _, args := range [][]string{{"segment", "ls", "--count", data}, {"segment", "dump", data}} {
		out, said, err := output(ctx, *binary, args...)
		if err != nil {
			return err
		}
		if len(out) == 0 || !strings.Contains(said, "a running server holds "+data) {
			return fmt.Errorf("%v of a running broker: %d bytes, %q", args, len(out), said)
		}
	}
	fmt.Println("PASS", name, "is read while it runs")
	return nil
}

// compare has both tools read all files, and compares what they say.
func compare(ctx context.Context, name, data string) error {
	var files []string
	kinds := map[string]int{}
	err := filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if kind := filepath.Ext(path); err == nil && slices.Contains([]string{".log", ".index", ".timeindex", ".txnindex", ".snapshot"}, kind) {
			files = append(files, path)
			kinds[kind]++
		}
		return err
	})
	if err != nil {
		return err
	}
	theirs, complaints, err := output(ctx, "java", java("org.apache.kafka.tools.DumpLogSegments", "--deep-iteration", "--print-data-log", "--files", strings.Join(files, ","))...)
	if err != nil {
		return err
	}
	ours, said, err := output(ctx, *binary, append([]string{"segment", "dump", "--output", "plain"}, files...)...)
	if err != nil {
		return err
	}
	if said != "" {
		return fmt.Errorf("millrace complains: %s", said)
	}
	a, b := lines(theirs), lines(ours)
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			return fmt.Errorf("line %d differs (of %d and %d):\n  Kafka's    %s\n  millrace's %s", i+1, len(a), len(b), at(a, i), at(b, i))
		}
	}
	fmt.Printf("PASS %s: %d lines of %d logs, %d indexes, %d time indexes, %d transaction indexes and %d snapshots are the same: %s\n",
		name, len(a), kinds[".log"], kinds[".index"], kinds[".timeindex"], kinds[".txnindex"], kinds[".snapshot"], census(a))
	if strings.Contains(complaints, "ismatch") || strings.Contains(complaints, "out of order") {
		return fmt.Errorf("Kafka's tool complains: %s", complaints)
	}
	for _, args := range [][]string{{"segment", "ls", data}, {"segment", "ls", "--count", data}, {"segment", "dump", "--what", "all", data}} {
		out, said, err := output(ctx, *binary, args...)
		if err != nil || said != "" || strings.Contains(out, "damage") {
			return fmt.Errorf("%v is not clean: %w: %s", args, err, said)
		}
	}
	fmt.Println("PASS", name, "ls and dump of the whole directory are clean")
	return nil
}

// lines splits what a tool has said. Records of Kafka's metadata quorum are compared without what they say, which millrace does not decode.
func lines(out string) []string {
	list := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	for i, line := range list {
		if !strings.HasPrefix(line, "| offset: ") {
			continue
		}
		for _, quorum := range []string{" controlType: ", " LeaderChange: ", " SnapshotHeader ", " SnapshotFooter ", " KRaftVersion ", " KRaftVoters "} {
			if head, _, found := strings.Cut(line, quorum); found {
				list[i] = head
			}
		}
	}
	return list
}

func at(list []string, i int) string {
	if i >= len(list) {
		return "(nothing)"
	}
	return list[i]
}

// census counts what has been compared.
func census(lines []string) string {
	counts := map[string]int{}
	for _, line := range lines {
		if strings.HasPrefix(line, "| offset: ") {
			counts["records"]++
		}
		for _, word := range []string{"endTxnMarker: COMMIT", "endTxnMarker: ABORT"} {
			if strings.Contains(line, word) {
				counts[strings.ToLower(strings.TrimPrefix(word, "endTxnMarker: "))+" markers"]++
			}
		}
		if !strings.HasPrefix(line, "baseOffset: ") {
			continue
		}
		counts["batches"]++
		_, codec, _ := strings.Cut(line, "compresscodec: ")
		codec, _, _ = strings.Cut(codec, " ")
		counts[codec]++
		if strings.Contains(line, "isTransactional: true") {
			counts["transactional"]++
		}
	}
	var parts []string
	for _, what := range []string{"batches", "none", "gzip", "snappy", "lz4", "zstd", "transactional", "commit markers", "abort markers", "records"} {
		parts = append(parts, fmt.Sprintf("%d %s", counts[what], what))
	}
	return strings.Join(parts, ", ")
}

// output runs a command and gives what it wrote; an exit code other than 0 is an error.
func output(ctx context.Context, name string, args ...string) (out, said string, err error) {
	var o, e strings.Builder
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &o, &e
	cmd.Env = append(os.Environ(), "TZ=UTC")
	if err = cmd.Run(); err != nil {
		err = fmt.Errorf("%s: %w: %s", filepath.Base(name), err, e.String())
	}
	return o.String(), e.String(), err
}
