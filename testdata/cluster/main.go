// Command cluster runs a cluster of three nodes of millrace on this machine, until Ctrl-C: "make cluster".
//
//	go run ./testdata/cluster -millrace bin/millrace [-data ./data] [-port 9092] [-peers 9192] [FLAG OF serve…]
//
// What is in the directory is used again the next time. A node that is killed stays away, so that it can be seen what the others do
// without it; the command that starts it again is printed.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/millrace/millrace/testdata/nodes"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	binary := flag.String("millrace", "bin/millrace", "the binary to run")
	data := flag.String("data", "./data", "the nodes' data are in its folders n1 to n3, their logs in n1.log to n3.log")
	port := flag.Int("port", 9092, "of the first node for clients; the others take those that follow")
	peers := flag.Int("peers", 9192, "of the first node for the other nodes")
	count := flag.Int("nodes", 3, "how many nodes")
	flag.Parse()
	if err := os.MkdirAll(*data, 0o755); err != nil {
		return err
	}
	logs := map[int]*os.File{}
	for id := 1; id <= *count; id++ {
		f, err := os.OpenFile(logOf(*data, id), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		logs[id] = f
	}
	begun := time.Now()
	all, err := nodes.Start(ctx, nodes.Options{
		Binary: *binary, Dir: *data, Nodes: *count, Port: *port, Peers: *peers, Flags: flag.Args(), Logs: func(id int) io.Writer { return logs[id] },
	})
	if err != nil {
		return fmt.Errorf("%w\nlogs are in %s", err, filepath.Join(*data, "n*.log"))
	}
	fmt.Printf("a cluster of %d nodes, ready after %v; every topic has %d replicas, and a record is acknowledged when %d of them have it on the disk\n",
		*count, time.Since(begun).Round(10*time.Millisecond), *count, *count/2+1)
	for _, n := range all {
		fmt.Printf("  node %d     %s  data in %s, log in %s, pid %d\n", n.ID, n.Address, n.Dir, logOf(*data, n.ID), n.PID())
	}
	reach := ""
	if *port != 9092 {
		reach = " --bootstrap " + all[0].Address
	}
	fmt.Printf("  try        echo 'hello' | %[1]s produce demo%[2]s\n             %[1]s consume demo%[2]s\n             %[1]s cluster status%[2]s\n  kill one   kill -9 %[3]d\n  stop       Ctrl-C\n\n",
		*binary, reach, all[len(all)-1].PID())
	status(ctx, *binary, all)

	var watching sync.WaitGroup
	gone := make(chan struct{}, len(all))
	for _, n := range all {
		watching.Go(func() { // ends with the node, or when all are told to end
			select {
			case <-n.Ended:
				fmt.Printf("node %d has ended (%s); start it again with\n  %s %s\n", n.ID, n.End(), *binary, strings.Join(n.Args, " "))
				gone <- struct{}{}
			case <-ctx.Done():
			}
		})
	}
	for left := len(all); left > 0 && ctx.Err() == nil; {
		select {
		case <-ctx.Done():
		case <-gone:
			left--
		}
	}
	watching.Wait()
	begun = time.Now()
	if !nodes.Stop(all) {
		return fmt.Errorf("not every node ended by itself: see the logs in %s", *data)
	}
	fmt.Printf("\nstopped after %v; the data are kept in %s\n", time.Since(begun).Round(10*time.Millisecond), *data)
	return nil
}

func logOf(data string, id int) string { return filepath.Join(data, fmt.Sprintf("n%d.log", id)) }

// status shows what "millrace cluster status" says, as soon as that is that all is well and every node votes, or after five seconds.
func status(ctx context.Context, binary string, all []*nodes.Node) {
	ask := func(form string) []byte {
		out, _ := exec.CommandContext(ctx, binary, "cluster", "status", "--bootstrap", all[0].Address, "--output", form).Output()
		return out
	}
	for range 20 {
		var seen struct {
			Well     bool
			Metadata struct{ Voters []int32 }
		}
		if json.Unmarshal(ask("json"), &seen) == nil && seen.Well && len(seen.Metadata.Voters) == min(len(all), 5) {
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(250 * time.Millisecond):
		}
	}
	fmt.Printf("%s\n", ask("table"))
}
