package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// readyTimeout is how long a broker may take to listen.
const readyTimeout = time.Minute

// clusterID is any valid one; the nodes never meet.
const clusterID = "bWlsbHJhY2UtYmVuY2gxMg"

// server is a broker under measurement, a process of its own.
type server struct {
	name, address, dir string
	cmd                *exec.Cmd
	ready              time.Duration
}

func (s *server) pid() int { return s.cmd.Process.Pid }

// stop ends the broker, by force when it does not end by itself, and removes its data.
func (s *server) stop() {
	s.cmd.Process.Signal(syscall.SIGTERM)
	killer := time.AfterFunc(20*time.Second, func() { s.cmd.Process.Kill() })
	s.cmd.Wait()
	killer.Stop()
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

// freeAddress returns a loopback address that nothing listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// startKafka formats and starts one combined node with Kafka's own defaults for memory and collector.
func startKafka(ctx context.Context, name, dir, libs string, extra ...string) (*server, error) {
	data, err := os.MkdirTemp(dir, "kafka-")
	if err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	controller, err := freeAddress()
	if err != nil {
		return nil, err
	}
	properties := filepath.Join(data, "server.properties")
	lines := append([]string{
		"process.roles=broker,controller", "node.id=1",
		"controller.quorum.voters=1@" + controller, "controller.listener.names=CONTROLLER",
		"listeners=PLAINTEXT://" + address + ",CONTROLLER://" + controller,
		"advertised.listeners=PLAINTEXT://" + address,
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"log.dirs=" + filepath.Join(data, "log"),
		"offsets.topic.replication.factor=1", "transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1",
		"group.initial.rebalance.delay.ms=0",
	}, extra...)
	if err := os.WriteFile(properties, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		return nil, err
	}
	logging := filepath.Join(data, "log4j2.properties")
	if err := os.WriteFile(logging, []byte("rootLogger.level=error\n"), 0o644); err != nil {
		return nil, err
	}
	java := []string{"-cp", filepath.Join(libs, "*"), "-Dlog4j2.configurationFile=" + logging}
	format := exec.CommandContext(ctx, "java", append(java, "kafka.tools.StorageTool", "format", "-t", clusterID, "-c", properties)...)
	if out, err := format.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("formatting Kafka's storage: %w: %s", err, out)
	}
	heap := []string{"-Xmx1G", "-Xms1G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent"}
	s := &server{name: name, address: address, dir: data, cmd: exec.Command("java", append(append(heap, java...), "kafka.Kafka", properties)...)}
	s.cmd.Stderr = os.Stderr
	begun := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for time.Since(begun) < readyTimeout && ctx.Err() == nil {
		if c, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			c.Close()
			s.ready = time.Since(begun)
			return s, nil
		}
		time.Sleep(20 * time.Millisecond) // Kafka tells nobody when it listens
	}
	s.stop()
	return nil, fmt.Errorf("%s did not listen at %s within %v", name, address, readyTimeout)
}

// startMillrace starts the binary as a user would; it says on its standard output where it listens.
func startMillrace(ctx context.Context, binary, dir string) (*server, error) {
	data, err := os.MkdirTemp(dir, "millrace-")
	if err != nil {
		return nil, err
	}
	s := &server{name: "millrace", dir: data, cmd: exec.Command(binary, "serve", "--data", data, "--listen", "127.0.0.1:0", "--log-level", "warn", "--set", "group.initial.rebalance.delay.ms=0")}
	s.cmd.Stderr = os.Stderr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	giveUp := time.AfterFunc(readyTimeout, func() { s.cmd.Process.Kill() })
	defer giveUp.Stop()
	for lines := bufio.NewScanner(out); lines.Scan() && ctx.Err() == nil; {
		if address, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), "listening"); ok {
			s.address, s.ready = strings.TrimSpace(address), time.Since(begun)
			return s, nil
		}
	}
	s.stop()
	return nil, fmt.Errorf("millrace did not say where it listens")
}
