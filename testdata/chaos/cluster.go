package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"time"
)

// cluster is three nodes, and what they stand on.
type cluster struct {
	dir   string
	nodes []*node
	net   *network // nil: all are on loopback
	disk  *disk    // of node 1; nil: it has none of its own
}

func newCluster(dir string, sc scenario) (*cluster, error) {
	c := &cluster{dir: dir}
	for i := range 3 {
		n := &node{
			id: int32(i + 1), host: "127.0.0.1", client: options.port + i + 1, peer: options.port + 100 + i + 1, http: options.port + 200 + i + 1,
			data: filepath.Join(dir, fmt.Sprintf("n%d", i+1)), logFile: filepath.Join(dir, fmt.Sprintf("n%d.log", i+1)),
		}
		c.nodes = append(c.nodes, n)
	}
	if sc.network {
		net, err := openNetwork(len(c.nodes))
		if err != nil {
			return nil, err
		}
		c.net = net
		for i, n := range c.nodes {
			n.host, n.prefix = net.host(i+1), net.prefix(i+1)
		}
	}
	if sc.disk > 0 {
		d, err := mountDisk(dir, sc.disk)
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.disk = d
		c.nodes[0].data = filepath.Join(d.mount, "data")
	}
	return c, nil
}

func (c *cluster) addresses() (all []string) {
	for _, n := range c.nodes {
		all = append(all, n.address())
	}
	return all
}

func (c *cluster) join() string {
	var peers []string
	for _, n := range c.nodes {
		peers = append(peers, fmt.Sprintf("%s:%d", n.host, n.peer))
	}
	return strings.Join(peers, ",")
}

func (c *cluster) start(nodes ...*node) error {
	for _, n := range nodes {
		if err := n.start(c.join()); err != nil {
			return err
		}
	}
	return nil
}

// startAll starts all nodes, and waits until all are ready.
func (c *cluster) startAll(ctx context.Context) error {
	if err := c.start(c.nodes...); err != nil {
		return err
	}
	return c.awaitReady(ctx, c.nodes...)
}

func (c *cluster) awaitReady(ctx context.Context, nodes ...*node) error {
	for _, n := range nodes {
		if err := until(ctx, 40*time.Second, fmt.Sprintf("node %d is ready", n.id), func() bool { return n.ready() || c.unexpected() != nil }); err != nil {
			return err
		}
		if err := c.unexpected(); err != nil {
			return err
		}
	}
	return nil
}

// until waits until something is so.
func until(ctx context.Context, patience time.Duration, what string, is func() bool) error {
	end := time.Now().Add(patience)
	for !is() {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(end) {
			return fmt.Errorf("not so within %s: %s", patience, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

// errDisagree says that nodes that run see different things.
var errDisagree = errors.New("the nodes do not see the same yet")

// view is what those see that run and are not among the absent: all of them alike, since one that was cut off sees what has been.
func (c *cluster) view(ctx context.Context, absent ...*node) (seen view, err error) {
	asked := 0
	for _, n := range c.nodes {
		if !n.runs() || slices.Contains(absent, n) {
			continue
		}
		v, err := n.ask(ctx)
		switch {
		case err != nil:
			return v, fmt.Errorf("node %d: %w", n.id, err)
		case asked > 0 && !reflect.DeepEqual(seen, v):
			return v, errDisagree
		}
		seen = v
		asked++
	}
	if asked == 0 {
		return seen, errors.New("nobody runs")
	}
	return seen, nil
}

// leader is the node that leads a partition.
func (c *cluster) leader(ctx context.Context, partition int) (leader *node, err error) {
	err = until(ctx, 30*time.Second, fmt.Sprintf("all agree who leads partition %d", partition), func() bool {
		v, err := c.view(ctx)
		leader = c.byID(v.leaders[partition])
		return err == nil && leader != nil
	})
	return leader, err
}

// controller is the node that leads the metadata.
func (c *cluster) controller(ctx context.Context) (leader *node, err error) {
	err = until(ctx, 30*time.Second, "all agree who leads the metadata", func() bool {
		v, err := c.view(ctx)
		leader = c.byID(v.controller)
		return err == nil && leader != nil
	})
	return leader, err
}

func (c *cluster) byID(id int32) *node {
	for _, n := range c.nodes {
		if n.id == id {
			return n
		}
	}
	return nil
}

// awaitOthersLead waits until the others see none of the partitions led by n, nor the metadata if that is asked.
func (c *cluster) awaitOthersLead(ctx context.Context, n *node, metadata bool) error {
	return until(ctx, 40*time.Second, fmt.Sprintf("others lead what node %d led", n.id), func() bool {
		v, err := c.view(ctx, n)
		if err != nil || metadata && (v.controller == n.id || v.controller < 0) {
			return false
		}
		for _, leader := range v.leaders {
			if leader == n.id || leader < 0 {
				return false
			}
		}
		return true
	})
}

// awaitInSync waits until all replicas of all partitions are in sync.
func (c *cluster) awaitInSync(ctx context.Context, patience time.Duration) (time.Duration, error) {
	begun := time.Now()
	var last view
	var asked error
	err := until(ctx, patience, "all replicas are in sync", func() bool {
		v, err := c.view(ctx)
		last, asked = v, err
		if err != nil {
			return false
		}
		for _, in := range v.inSync {
			if len(in) < len(c.nodes) {
				return false
			}
		}
		return true
	})
	if err != nil {
		err = fmt.Errorf("%w (%v); in sync are %v of %v, led by %v", err, asked, last.inSync, last.replicas, last.leaders)
	}
	return time.Since(begun), err
}

// unexpected tells of processes that ended by themselves, and of panics.
func (c *cluster) unexpected() error {
	var wrong []error
	for _, n := range c.nodes {
		n.mu.Lock()
		wrong = append(wrong, n.died)
		n.mu.Unlock()
		for _, line := range n.said("panic:", "fatal error:", "DATA RACE") {
			wrong = append(wrong, fmt.Errorf("node %d: %s", n.id, line))
		}
	}
	return errors.Join(wrong...)
}

// stopAll ends all in peace, one after the other.
func (c *cluster) stopAll() error {
	var wrong []error
	for _, n := range c.nodes {
		n.signal(syscall.SIGTERM)
	}
	for _, n := range c.nodes {
		wrong = append(wrong, n.wait(40*time.Second))
	}
	return errors.Join(wrong...)
}

// compare has "segment diff" compare what all three have on their disks.
func (c *cluster) compare(ctx context.Context) error {
	for _, other := range c.nodes[1:] {
		out, err := exec.CommandContext(ctx, options.binary, "segment", "diff", "--topic", topic, c.nodes[0].data, other.data).CombinedOutput()
		if err != nil {
			return fmt.Errorf("DIVERGED: nodes %d and %d: %w\n%s", c.nodes[0].id, other.id, err, out)
		}
	}
	log.Print("    all three are the same, byte for byte")
	return nil
}

// close ends what still runs, and removes networks and mounts.
func (c *cluster) close() error {
	if c.disk != nil {
		c.disk.thaw()
	}
	var wrong []error
	for _, n := range c.nodes {
		n.signal(syscall.SIGKILL)
	}
	for _, n := range c.nodes {
		wrong = append(wrong, n.wait(30*time.Second))
	}
	if c.net != nil {
		wrong = append(wrong, c.net.close())
	}
	if c.disk != nil {
		if options.keep {
			exec.Command("cp", "-r", "--sparse=always", c.disk.mount, filepath.Join(c.dir, "disk")).Run()
		}
		wrong = append(wrong, c.disk.unmount())
	}
	return errors.Join(wrong...)
}

func tool(command ...string) error {
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, out)
	}
	return nil
}

func isRoot() bool { return os.Geteuid() == 0 }
