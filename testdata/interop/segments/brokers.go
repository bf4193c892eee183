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

// broker is a process with a directory.
type broker struct {
	address, data string
	cmd           *exec.Cmd
}

// stop ends the broker as its operator would, so that its files are all written.
func (b *broker) stop() error {
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	impatient := time.AfterFunc(30*time.Second, func() { b.cmd.Process.Kill() })
	defer impatient.Stop()
	b.cmd.Wait() // Java answers a signal with 143
	if b.cmd.ProcessState.ExitCode() == -1 {
		return fmt.Errorf("%s had to be killed", b.cmd.Path)
	}
	return nil
}

// java is the command line of a class of Kafka's.
func java(class string, args ...string) []string {
	return append([]string{"-Xmx512M", "-Dstdout.encoding=UTF-8", "-Dlog4j2.level=ERROR", "-cp", filepath.Join(*libs, "*"), class}, args...)
}

func fetchJars(ctx context.Context, work string) error {
	if *libs != "" {
		return nil
	}
	*libs = filepath.Join(work, "libs")
	out, err := exec.CommandContext(ctx, "mvn", "-q", "-B", "-f", *pom, "dependency:copy-dependencies", "-DoutputDirectory="+*libs).CombinedOutput()
	if err != nil {
		return fmt.Errorf("fetching Kafka's jars: %w: %s", err, out)
	}
	return nil
}

// freeAddress is a loopback address that nothing listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func startKafka(ctx context.Context, dir string) (*broker, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	controller, err := freeAddress()
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	b := &broker{address: address, data: filepath.Join(dir, "data")}
	properties := filepath.Join(dir, "server.properties")
	text := strings.Join([]string{
		"process.roles=broker,controller", "node.id=1", "controller.quorum.voters=1@" + controller, "controller.listener.names=CONTROLLER",
		"listeners=PLAINTEXT://" + address + ",CONTROLLER://" + controller, "advertised.listeners=PLAINTEXT://" + address,
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT", "log.dirs=" + b.data,
		"offsets.topic.replication.factor=1", "offsets.topic.num.partitions=3", "transaction.state.log.replication.factor=1",
		"transaction.state.log.min.isr=1", "transaction.state.log.num.partitions=3", "group.initial.rebalance.delay.ms=0", "",
	}, "\n")
	if err := os.WriteFile(properties, []byte(text), 0o644); err != nil {
		return nil, err
	}
	if _, _, err := output(ctx, "java", java("kafka.tools.StorageTool", "format", "-t", "bWlsbHJhY2UtYmVuY2gxMg", "-c", properties)...); err != nil {
		return nil, err
	}
	b.cmd = exec.Command("java", java("kafka.Kafka", properties)...)
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	for begun := time.Now(); time.Since(begun) < time.Minute && ctx.Err() == nil; time.Sleep(50 * time.Millisecond) { // Kafka tells nobody when it listens
		if c, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			c.Close()
			return b, nil
		}
	}
	b.cmd.Process.Kill()
	return nil, fmt.Errorf("Kafka does not listen at %s", address)
}

func startMillrace(ctx context.Context, dir string) (*broker, error) {
	b := &broker{data: dir}
	b.cmd = exec.Command(*binary, "serve", "--data", dir, "--listen", "127.0.0.1:0", "--log-level", "warn", "--set", "group.initial.rebalance.delay.ms=0", "--set", "offsets.topic.num.partitions=3")
	b.cmd.Stderr = os.Stderr
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	impatient := time.AfterFunc(time.Minute, func() { b.cmd.Process.Kill() })
	defer impatient.Stop()
	for lines := bufio.NewScanner(out); lines.Scan() && ctx.Err() == nil; {
		if address, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), "listening"); ok {
			b.address = strings.TrimSpace(address)
			return b, nil
		}
	}
	b.cmd.Process.Kill()
	return nil, fmt.Errorf("millrace did not say where it listens")
}
