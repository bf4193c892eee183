package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/millrace/millrace/testdata/nodes"
)

// readyTimeout is how long a broker may take to listen.
const readyTimeout = time.Minute

// clusterID is any valid one; the nodes never meet.
const clusterID = "bWlsbHJhY2UtYmVuY2gxMg"

// server is what is measured: a broker or a cluster of them, each a process of its own.
type server struct {
	name, address string // all addresses, with commas between them
	dir           string
	pids          []string
	stopNodes     func()
	ready         time.Duration
}

// stop ends the brokers, by force those that do not end by themselves, and removes their data.
func (s *server) stop() {
	s.stopNodes()
	os.RemoveAll(s.dir)
}

// fetchKafka has Maven copy Kafka's jars, unless they are there.
func fetchKafka(ctx context.Context, dir string) (libs string, err error) {
	for _, tool := range []string{"java", "mvn"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", fmt.Errorf("%s is needed to run Kafka beside millrace: install a JDK (17 or later) and Maven", tool)
		}
	}
	libs = filepath.Join(dir, "libs")
	done := filepath.Join(libs, ".complete")
	if _, err := os.Stat(done); err == nil {
		return libs, nil
	}
	fmt.Fprintln(os.Stderr, "fetching Kafka's jars with Maven")
	cmd := exec.CommandContext(ctx, "mvn", "-q", "-B", "-f", "testdata/bench/pom.xml", "dependency:copy-dependencies", "-DoutputDirectory="+libs)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("fetching Kafka's jars: %w", err)
	}
	return libs, os.WriteFile(done, nil, 0o644)
}

// startKafka formats and starts combined nodes with Kafka's own defaults for memory and collector.
func startKafka(ctx context.Context, name string, count int, dir, libs string, extra ...string) (*server, error) {
	data, err := os.MkdirTemp(dir, "kafka-")
	if err != nil {
		return nil, err
	}
	s := &server{name: name, dir: data}
	var addresses, controllers, voters []string
	for i := range count {
		address, err := nodes.FreeAddress()
		if err != nil {
			return nil, err
		}
		controller, err := nodes.FreeAddress()
		if err != nil {
			return nil, err
		}
		addresses, controllers = append(addresses, address), append(controllers, controller)
		voters = append(voters, fmt.Sprintf("%d@%s", i+1, controller))
	}
	s.address = strings.Join(addresses, ",")
	var running []*exec.Cmd
	s.stopNodes = func() { stopAll(running) }
	logging := filepath.Join(data, "log4j2.properties")
	if err := os.WriteFile(logging, []byte("rootLogger.level=error\n"), 0o644); err != nil {
		return nil, err
	}
	java := []string{"-cp", filepath.Join(libs, "*"), "-Dlog4j2.configurationFile=" + logging}
	var files []string
	for i := range count {
		lines := append(kafkaProperties(i+1, count, addresses[i], controllers[i], strings.Join(voters, ","), filepath.Join(data, fmt.Sprintf("n%d", i+1))), extra...)
		file := filepath.Join(data, fmt.Sprintf("server%d.properties", i+1))
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			return nil, err
		}
		format := exec.CommandContext(ctx, "java", append(java, "kafka.tools.StorageTool", "format", "-t", clusterID, "-c", file)...)
		if out, err := format.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("formatting Kafka's storage: %w: %s", err, out)
		}
		files = append(files, file)
	}
	heap := []string{"-Xmx1G", "-Xms1G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent"}
	begun := time.Now()
	for _, file := range files {
		cmd := exec.Command("java", append(append(heap, java...), "kafka.Kafka", file)...)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			s.stop()
			return nil, err
		}
		running = append(running, cmd)
		s.pids = append(s.pids, strconv.Itoa(cmd.Process.Pid))
	}
	for _, address := range addresses {
		if !listens(ctx, address, begun.Add(readyTimeout)) {
			s.stop()
			return nil, fmt.Errorf("%s did not listen at %s within %v", name, address, readyTimeout)
		}
	}
	s.ready = time.Since(begun)
	return s, nil
}

// kafkaProperties are the settings of one combined node.
func kafkaProperties(id, count int, address, controller, voters, dir string) []string {
	factor, inSync := strconv.Itoa(count), strconv.Itoa(count/2+1)
	return []string{
		"process.roles=broker,controller", "node.id=" + strconv.Itoa(id),
		"controller.quorum.voters=" + voters, "controller.listener.names=CONTROLLER",
		"listeners=PLAINTEXT://" + address + ",CONTROLLER://" + controller,
		"advertised.listeners=PLAINTEXT://" + address,
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"log.dirs=" + dir,
		"default.replication.factor=" + factor, "min.insync.replicas=" + inSync,
		"offsets.topic.replication.factor=" + factor, "transaction.state.log.replication.factor=" + factor, "transaction.state.log.min.isr=" + inSync,
		"group.initial.rebalance.delay.ms=0",
	}
}

// listens waits until somebody listens; Kafka tells nobody when it does.
func listens(ctx context.Context, address string, deadline time.Time) bool {
	for time.Now().Before(deadline) && ctx.Err() == nil {
		if c, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			c.Close()
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}

// stopAll ends processes, by force those that do not end by themselves.
func stopAll(running []*exec.Cmd) {
	for _, cmd := range running {
		cmd.Process.Signal(syscall.SIGTERM)
	}
	for _, cmd := range running {
		killer := time.AfterFunc(20*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		killer.Stop()
	}
}

// startMillrace starts the binary as a user would; it says on its standard output where it listens.
func startMillrace(ctx context.Context, binary string, count int, dir string) (*server, error) {
	data, err := os.MkdirTemp(dir, "millrace-")
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	all, err := nodes.Start(ctx, nodes.Options{
		Binary: binary, Dir: data, Nodes: count, Logs: func(int) io.Writer { return os.Stderr },
		Flags: []string{"--log-level", "warn", "--set", "group.initial.rebalance.delay.ms=0"},
	})
	if err != nil {
		return nil, err
	}
	s := &server{name: "millrace", dir: data, ready: time.Since(begun), stopNodes: func() { nodes.Stop(all) }}
	var addresses []string
	for _, n := range all {
		addresses = append(addresses, n.Address)
		s.pids = append(s.pids, strconv.Itoa(n.PID()))
	}
	s.address = strings.Join(addresses, ",")
	return s, nil
}
