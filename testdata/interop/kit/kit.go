// Package kit is what the Go clients of the interop suite share: the command line, the records every client
// produces, the manifests they leave for one another, and checks that end the process.
package kit

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The environment that run.sh hands to every client.
var (
	Bootstrap = env("BOOTSTRAP", "127.0.0.1:9092")
	Nodes     = number(env("NODES", "1")) // brokers, and replicas of each partition
	Session   = 6 * time.Second           // the shortest session timeout that a broker allows by default
	client    string
)

// EmptyIsNull is set by a client that reads an empty value as a null one.
var EmptyIsNull bool

// Scenario is one line of the suite's output.
type Scenario struct {
	Name string
	Run  func(ctx context.Context)
}

// Main runs the scenario named on the command line. "list" prints their names, and "member TOPIC GROUP" runs the
// group member that group-rebalance starts as a process of its own, to kill it.
func Main(name string, member func(ctx context.Context, topic, group string), scenarios ...Scenario) {
	client = name
	log.SetFlags(log.Lmicroseconds)
	seconds, err := strconv.Atoi(env("SCENARIO_SECONDS", "50"))
	Must(err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(seconds)*time.Second)
	defer cancel()
	switch what := os.Args[1]; what {
	case "list":
		for _, s := range scenarios {
			fmt.Println(s.Name)
		}
	case "member":
		member(ctx, os.Args[2], os.Args[3])
	default:
		for _, s := range scenarios {
			if s.Name == what {
				s.Run(ctx)
				return
			}
		}
		Fail("%s has no scenario %q", name, what)
	}
}

// Topic makes a name that is unique to this client and run; groups are named by it too.
func Topic(name string) string { return client + "-" + name + "-" + env("RUN", "0") }

// Fail ends the scenario.
func Fail(format string, args ...any) {
	log.Output(2, "FAILED: "+fmt.Sprintf(format, args...))
	os.Exit(1)
}

// Must fails on an error.
func Must(err error) {
	if err != nil {
		log.SetFlags(log.Lmicroseconds | log.Lshortfile)
		log.Output(2, "FAILED: "+err.Error())
		os.Exit(1)
	}
}

// Check fails when ok is false.
func Check(ok bool, format string, args ...any) {
	if !ok {
		log.SetFlags(log.Lmicroseconds | log.Lshortfile)
		log.Output(2, "FAILED: "+fmt.Sprintf(format, args...))
		os.Exit(1)
	}
}

// Eventually polls until ok, for as long as the context lasts.
func Eventually(ctx context.Context, what string, ok func() bool) {
	for !ok() {
		select {
		case <-ctx.Done():
			Fail("never happened: %s", what)
		case <-time.After(50 * time.Millisecond):
		}
	}
	log.Printf("reached: %s", what)
}

// Header is one record header; a nil value is null.
type Header struct {
	Key   string
	Value []byte
}

// Record is what is produced and compared: nil is null, which an empty slice is not.
type Record struct {
	Key, Value []byte
	Headers    []Header
	Timestamp  int64
}

// Records reads the shared records, in order, stamped from firstTimestamp on in steps of a millisecond.
func Records(firstTimestamp int64) []Record {
	var file []struct {
		Key, Value *string
		Repeat     int
		Headers    [][2]*string
	}
	raw, err := os.ReadFile(env("RECORDS", "records.json"))
	Must(err)
	Must(json.Unmarshal(raw, &file))
	var records []Record
	for i, f := range file {
		r := Record{Key: decode(f.Key), Value: decode(f.Value), Timestamp: firstTimestamp + int64(i)}
		if f.Repeat > 0 {
			r.Value = bytes.Repeat(r.Value, f.Repeat)
		}
		for _, h := range f.Headers {
			r.Headers = append(r.Headers, Header{*h[0], decode(h[1])})
		}
		records = append(records, r)
	}
	return records
}

// Manifest tells the other clients what a topic holds: the shared records once per codec, in this order, all
// stamped from FirstTimestamp on.
type Manifest struct {
	Topic          string   `json:"topic"`
	Codecs         []string `json:"codecs"`
	FirstTimestamp int64    `json:"firstTimestamp"`
	NullHeaders    bool     `json:"nullHeaders"` // false: null values of headers were written as empty ones
}

// WriteManifest leaves a manifest for the other clients.
func WriteManifest(m Manifest) {
	m.NullHeaders = true
	raw, err := json.Marshal(m)
	Must(err)
	Must(os.WriteFile(filepath.Join(env("WORK", "."), "manifest-"+client+".json"), raw, 0o644))
}

// Manifests reads every manifest of this run.
func Manifests() []Manifest {
	files, err := filepath.Glob(filepath.Join(env("WORK", "."), "manifest-*.json"))
	Must(err)
	Check(len(files) > 0, "no manifests: run produce-codecs first")
	manifests := make([]Manifest, len(files))
	for i, f := range files {
		raw, err := os.ReadFile(f)
		Must(err)
		Must(json.Unmarshal(raw, &manifests[i]))
	}
	return manifests
}

// Expected is what reading the manifest's topic from its start must give.
func (m Manifest) Expected() (all []Record) {
	for range m.Codecs {
		for _, r := range Records(m.FirstTimestamp) {
			for i, h := range r.Headers {
				if h.Value == nil && !m.NullHeaders {
					r.Headers[i].Value = []byte{}
				}
			}
			all = append(all, r)
		}
	}
	return all
}

// Same fails unless both lists hold the same records, byte for byte.
func Same(topic string, got, want []Record) {
	Check(len(got) == len(want), "%s: %d records, want %d", topic, len(got), len(want))
	for i := range want {
		g, w := got[i], want[i]
		Check(same(g.Key, w.Key), "%s offset %d: key %q, want %q", topic, i, g.Key, w.Key)
		Check(same(g.Value, w.Value), "%s offset %d: value of %d bytes (null %v) %.40q, want %d bytes (null %v) %.40q",
			topic, i, len(g.Value), g.Value == nil, g.Value, len(w.Value), w.Value == nil, w.Value)
		Check(g.Timestamp == w.Timestamp, "%s offset %d: timestamp %d, want %d", topic, i, g.Timestamp, w.Timestamp)
		Check(len(g.Headers) == len(w.Headers), "%s offset %d: %d headers, want %d", topic, i, len(g.Headers), len(w.Headers))
		for j, h := range w.Headers {
			Check(g.Headers[j].Key == h.Key && same(g.Headers[j].Value, h.Value),
				"%s offset %d: header %v, want %v", topic, i, g.Headers[j], h)
		}
	}
}

func same(a, b []byte) bool {
	return (EmptyIsNull || (a == nil) == (b == nil)) && bytes.Equal(a, b)
}

// Restart kills the broker and starts it again on the same data and port, and returns when it listens.
func Restart(ctx context.Context) {
	out, err := exec.CommandContext(ctx, "sh", "-c", os.Getenv("RESTART_CMD")).CombinedOutput()
	log.Printf("restart: %s", bytes.TrimSpace(out))
	Must(err)
}

// StartMember runs this program as a group member in a process of its own.
func StartMember(topic, group string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "member", topic, group)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	Must(cmd.Start())
	return cmd
}

// Kill ends a member so that it has no time to leave its group.
func Kill(member *exec.Cmd) {
	log.Printf("kill -9 of the second member")
	Must(member.Process.Kill())
	member.Wait()
}

// Numbered is the value of the i-th record of a load.
func Numbered(i int) string { return fmt.Sprintf("%06d", i) }

// InOrder fails unless values are Numbered 0 to n-1, each once.
func InOrder(values []string, n int) {
	for i, v := range values {
		Check(v == Numbered(i), "offset %d holds %s, want %s (%d records read of %d)", i, v, Numbered(i), len(values), n)
	}
	Check(len(values) == n, "%d records, want %d", len(values), n)
}

// Brokers is Bootstrap as a list.
func Brokers() []string { return strings.Split(Bootstrap, ",") }

func env(name, fallback string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return fallback
}

func decode(s *string) []byte {
	if s == nil {
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(*s)
	Must(err)
	if b == nil {
		b = []byte{}
	}
	return b
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	Must(err)
	return n
}
