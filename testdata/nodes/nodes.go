// Package nodes starts and stops millrace's broker, one node alone or several that are a cluster, each a process of its own on the loopback
// address, for the programs beside it. Standard library only.
package nodes

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Options say what to start.
type Options struct {
	Binary string
	Dir    string   // the data of node I is in its folder nI
	Nodes  int      // 1: one alone; more: a cluster that begins with all of them
	Port   int      // node I listens to clients on Port+I-1; 0: any free ones
	Peers  int      // and to the others on Peers+I-1; 0: any free ones
	Flags  []string // further flags of "millrace serve"
	Logs   func(id int) io.Writer
}

// Node is a broker that has been started.
type Node struct {
	ID      int
	Address string // for clients
	Dir     string
	Args    []string // with which it was started
	Ended   chan struct{}
	cmd     *exec.Cmd
}

// startTimeout is how long the nodes may take until they listen; stopTimeout until they have ended.
const (
	startTimeout = time.Minute
	stopTimeout  = 30 * time.Second
)

// PID is the number of its process.
func (n *Node) PID() int { return n.cmd.Process.Pid }

// End says how it ended. Only after Ended is closed.
func (n *Node) End() string { return n.cmd.ProcessState.String() }

// Start starts the nodes and returns when all of them listen. If one does not, all are ended.
func Start(ctx context.Context, o Options) ([]*Node, error) {
	peers := make([]string, o.Nodes)
	for i := range peers {
		var err error
		if peers[i] = fmt.Sprintf("127.0.0.1:%d", o.Peers+i); o.Peers == 0 {
			if peers[i], err = FreeAddress(); err != nil {
				return nil, err
			}
		}
	}
	var all []*Node
	listening := make(chan error, o.Nodes)
	var failed error
	for i := range o.Nodes {
		n := &Node{ID: i + 1, Dir: filepath.Join(o.Dir, fmt.Sprintf("n%d", i+1)), Ended: make(chan struct{})}
		port := 0
		if o.Port != 0 {
			port = o.Port + i
		}
		n.Args = []string{"serve", "--data", n.Dir, "--listen", "127.0.0.1:" + strconv.Itoa(port)}
		if o.Nodes > 1 {
			n.Args = append(n.Args, "--cluster", "--node-id", strconv.Itoa(n.ID), "--peer-listen", peers[i], "--join", strings.Join(peers, ","), "--bootstrap-expect", strconv.Itoa(o.Nodes),
				"--set", "default.replication.factor="+strconv.Itoa(o.Nodes), "--set", "min.insync.replicas="+strconv.Itoa(o.Nodes/2+1))
		}
		n.Args = append(n.Args, o.Flags...)
		if failed = n.start(o.Binary, o.Logs(n.ID), listening); failed != nil {
			break
		}
		all = append(all, n)
	}
	giveUp := time.After(startTimeout)
	for range all {
		select {
		case err := <-listening:
			failed = errors.Join(failed, err)
		case <-giveUp:
			failed = errors.Join(failed, fmt.Errorf("the nodes do not listen after %v", startTimeout))
		case <-ctx.Done():
			failed = errors.Join(failed, ctx.Err())
		}
		if failed != nil {
			Stop(all)
			return nil, failed
		}
	}
	return all, nil
}

// start starts one node; listening is told when its output says where it listens, or that it never will.
func (n *Node) start(binary string, log io.Writer, listening chan<- error) error {
	n.cmd = exec.Command(binary, n.Args...)
	last := &lastLine{to: log}
	n.cmd.Stderr = last
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := n.cmd.Start(); err != nil {
		return err
	}
	go func() { // ends with the process
		defer close(n.Ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if address, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), "listening"); ok && n.Address == "" {
				n.Address = strings.TrimSpace(address)
				listening <- nil
			}
		}
		n.cmd.Wait()
		if n.Address == "" {
			listening <- fmt.Errorf("node %d ended before it listened (%s): %s", n.ID, n.End(), last.text)
		}
	}()
	return nil
}

// lastLine passes on what is written and remembers the last line of it.
type lastLine struct {
	to   io.Writer
	text string
}

func (l *lastLine) Write(b []byte) (int, error) {
	if lines := strings.Split(strings.TrimSpace(string(b)), "\n"); lines[len(lines)-1] != "" {
		l.text = lines[len(lines)-1]
	}
	return l.to.Write(b)
}

// Stop ends nodes, all at once, by force those that do not end by themselves; false if there were any.
func Stop(all []*Node) (clean bool) {
	for _, n := range all {
		n.cmd.Process.Signal(syscall.SIGTERM)
	}
	clean = true
	giveUp := time.After(stopTimeout)
	for _, n := range all {
		select {
		case <-n.Ended:
		case <-giveUp:
			clean = false
			for _, n := range all {
				n.cmd.Process.Kill()
			}
			<-n.Ended
		}
	}
	return clean
}

// FreeAddress returns a loopback address that nothing listens on.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
