package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// node is one broker of the cluster, whether its process runs or not.
type node struct {
	id            int32
	host          string
	client, peer  int // ports
	http          int
	data, logFile string
	prefix        []string // what puts a process into the node's network namespace

	mu      sync.Mutex // guards the fields below
	process *exec.Cmd
	ended   chan struct{} // closed when the process has ended
	ending  bool          // we ended it
	paused  bool
	died    error // it has ended by itself
}

func (n *node) address() string { return fmt.Sprintf("%s:%d", n.host, n.client) }

func (n *node) start(join string) error {
	out, err := os.OpenFile(n.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close() // the broker has its own
	level := "info"
	if options.debug {
		level = "debug"
	}
	command := append(append([]string{}, n.prefix...), options.binary, "serve", "--cluster", "--node-id", fmt.Sprint(n.id), "--data", n.data,
		"--listen", n.address(), "--peer-listen", fmt.Sprintf("%s:%d", n.host, n.peer), "--http", fmt.Sprintf("%s:%d", n.host, n.http),
		"--bootstrap-expect", "3", "--join", join, "--set", "default.replication.factor=3", "--set", "min.insync.replicas=2",
		"--set", "auto.create.topics.enable=false", "--log-level", level)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.process, n.ended, n.ending, n.paused = exec.Command(command[0], command[1:]...), make(chan struct{}), false, false
	n.process.Stdout, n.process.Stderr = out, out
	fmt.Fprintf(out, "--- start %s\n", time.Now().Format(time.RFC3339Nano))
	if err := n.process.Start(); err != nil {
		return err
	}
	go func(process *exec.Cmd, ended chan struct{}) {
		err := process.Wait()
		n.mu.Lock()
		if !n.ending || process.ProcessState.ExitCode() > 0 {
			n.died = fmt.Errorf("node %d has ended: %v, by itself or badly", n.id, err)
		}
		n.mu.Unlock()
		close(ended)
	}(n.process, n.ended)
	return nil
}

// signal sends one; it says that the process is to end with those that end it.
func (n *node) signal(s syscall.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil {
		return
	}
	switch s {
	case syscall.SIGKILL, syscall.SIGTERM:
		n.ending = true
	case syscall.SIGSTOP:
		n.paused = true
	case syscall.SIGCONT:
		n.paused = false
	}
	n.process.Process.Signal(s)
}

// wait waits until the process has ended.
func (n *node) wait(patience time.Duration) error {
	n.mu.Lock()
	ended := n.ended
	n.mu.Unlock()
	if ended == nil {
		return nil
	}
	select {
	case <-ended:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("node %d does not end within %s", n.id, patience)
	}
}

func (n *node) kill() error {
	n.signal(syscall.SIGKILL)
	return n.wait(30 * time.Second)
}

// runs tells whether it has a process that can answer.
func (n *node) runs() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ended == nil || n.paused {
		return false
	}
	select {
	case <-n.ended:
		return false
	default:
		return !n.ending
	}
}

func (n *node) ready() bool {
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(fmt.Sprintf("http://%s:%d/readyz", n.host, n.http))
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// view is the cluster as one node sees it.
type view struct {
	controller int32
	leaders    [partitions]int32
	replicas   [partitions][]int32
	inSync     [partitions][]int32
}

// ask asks this node, and no other, for its view.
func (n *node) ask(ctx context.Context) (v view, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	cl, err := newClient([]string{n.address()}, kgo.RequestRetries(0))
	if err != nil {
		return v, err
	}
	defer cl.Close()
	req := kmsg.NewPtrMetadataRequest()
	one := kmsg.NewMetadataRequestTopic()
	name := topic
	one.Topic = &name
	req.Topics = append(req.Topics, one)
	resp, err := cl.SeedBrokers()[0].Request(ctx, req)
	if err != nil {
		return v, err
	}
	meta := resp.(*kmsg.MetadataResponse)
	v.controller = meta.ControllerID
	for _, t := range meta.Topics {
		for _, p := range t.Partitions {
			if p.Partition < partitions {
				v.leaders[p.Partition], v.replicas[p.Partition], v.inSync[p.Partition] = p.Leader, p.Replicas, p.ISR
			}
		}
	}
	return v, nil
}

// said gives the lines of its log that have one of the words.
func (n *node) said(words ...string) []string {
	text, err := os.ReadFile(n.logFile)
	if err != nil {
		return nil
	}
	var lines []string
	for line := range strings.SplitSeq(string(text), "\n") {
		for _, word := range words {
			if strings.Contains(line, word) {
				lines = append(lines, line)
				break
			}
		}
	}
	return lines
}

// folder is where it keeps a partition of the topic.
func (n *node) folder(partition int) (string, error) {
	found, err := filepath.Glob(filepath.Join(n.data, "topics", fmt.Sprintf("%s-%d.*", topic, partition)))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("node %d has %v for partition %d: %v", n.id, found, partition, err)
	}
	return found[0], nil
}
