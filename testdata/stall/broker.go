package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// broker is the program under test.
type broker struct {
	command *exec.Cmd
	address string
	http    string
	logFile string
	ended   chan error
}

func startBroker(binary, data, logFile string, limit time.Duration) (*broker, error) {
	b := &broker{address: freeAddress(), http: freeAddress(), logFile: logFile, ended: make(chan error, 1)}
	out, err := os.Create(logFile)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the broker has its own
	b.command = exec.Command(binary, "serve", "--data", data, "--listen", b.address, "--http", b.http,
		"--set", fmt.Sprintf("log.dir.stall.timeout.ms=%d", limit.Milliseconds()),
		"--set", "group.initial.rebalance.delay.ms=0", "--set", "offsets.topic.num.partitions=3")
	b.command.Stdout, b.command.Stderr = out, out
	if err := b.command.Start(); err != nil {
		return nil, err
	}
	go func() { b.ended <- b.command.Wait() }()
	return b, nil
}

func freeAddress() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// get asks the broker's HTTP, for no longer than a second or two.
func (b *broker) get(path string) (status int, body string, err error) {
	client := http.Client{Timeout: 2 * time.Second}
	resp, err := client.Get("http://" + b.http + path)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, strings.TrimSpace(string(text)), err
}

func (b *broker) awaitReady(ctx context.Context, patience time.Duration) error {
	end := time.Now().Add(patience)
	for {
		status, body, err := b.get("/readyz")
		if err == nil && status == http.StatusOK {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return fmt.Errorf("not ready after %s: %d %s %v", patience, status, body, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// stop ends the broker in peace.
func (b *broker) stop() error {
	select {
	case err := <-b.ended:
		return fmt.Errorf("the broker has ended by itself: %v", err)
	default:
	}
	b.command.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-b.ended:
		if err != nil {
			return fmt.Errorf("the broker's end: %w", err)
		}
		log.Print("the broker has ended cleanly")
		return nil
	case <-time.After(30 * time.Second):
		b.command.Process.Kill()
		return fmt.Errorf("the broker does not end")
	}
}

func (b *broker) showLog() {
	text, err := os.ReadFile(b.logFile)
	if err != nil {
		log.Print(err)
		return
	}
	log.Printf("what the broker said:\n%s", text[max(0, len(text)-20_000):])
}
