package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the test binary be millrace itself when a script calls it.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"millrace": main})
}

// externalBroker names a broker to run the scripts against instead of one of our own; they must hold for Kafka too.
// Scripts that say "[own] …" on a line ask for ours.
const externalBroker = "MILLRACE_TEST_BOOTSTRAP"

// TestScripts runs testdata/script: commands as a user types them, what they print, and how they end.
//
//	serve [FLAG…]        starts a broker on a free port with its data in $WORK/data and sets MILLRACE_BOOTSTRAP to its address
//	end [SIGNAL]         ends it (SIGTERM unless told), expects exit code 0, and leaves its log in $WORK/broker.log
//	                     (stop is testscript's own: it ends the script)
//	fill DIR STATE       makes a data directory whose bytes are always the same: see script_segment_test.go
//	injure DIR NAME      harms it
//	fixture NAME         copies testdata/segments/NAME, a directory that a broker has left, to $WORK/NAME
//	flip FILE POSITION   flips the lowest bit of a byte
//	shorten FILE BYTES   takes bytes off the end of a file
//	tree FROM TO         copies a directory; $KAFKA_DIR is a log directory of Kafka's
//	exits CODE CMD ARG…  runs a command and expects that exit code; stdout and stderr can be looked at afterwards
func TestScripts(t *testing.T) {
	kafkaDir, err := filepath.Abs("../../testdata/kafka-4.3.1")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "../../testdata/script",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(e *testscript.Env) error {
			e.Setenv("TZ", "UTC")
			e.Setenv("KAFKA_DIR", kafkaDir)
			e.Setenv("GORACE", "atexit_sleep_ms=0")       // a race-built process otherwise sleeps a second before it ends
			e.Setenv("MILLRACE_BOOTSTRAP", "127.0.0.1:1") // nothing listens there, unless serve says otherwise
			b := &scriptBroker{}
			e.Values[brokerKey{}] = b
			e.Defer(func() { b.kill() })
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond == "own" {
				return os.Getenv(externalBroker) == "", nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"serve": func(ts *testscript.TestScript, neg bool, args []string) {
				refuse(ts, neg)
				scriptBrokerOf(ts).start(ts, args)
			},
			"end": func(ts *testscript.TestScript, neg bool, args []string) {
				refuse(ts, neg)
				scriptBrokerOf(ts).stop(ts, args)
			},
			"exits":   exits,
			"fill":    fill,
			"shorten": shorten,
			"tree":    copyTree,
			"fixture": fixture,
			"flip":    flip,
			"injure":  inflict,
		},
	})
}

type brokerKey struct{}

func scriptBrokerOf(ts *testscript.TestScript) *scriptBroker {
	return ts.Value(brokerKey{}).(*scriptBroker)
}

func refuse(ts *testscript.TestScript, neg bool) {
	if neg {
		ts.Fatalf("this command cannot be negated")
	}
}

// scriptBroker is the broker of one script, a process of its own.
type scriptBroker struct {
	cmd    *exec.Cmd
	stderr strings.Builder
}

// brokerPatience bounds the start and the end of a broker on a busy machine.
const brokerPatience = 60 * time.Second

func (b *scriptBroker) start(ts *testscript.TestScript, args []string) {
	if external := os.Getenv(externalBroker); external != "" {
		ts.Setenv("MILLRACE_BOOTSTRAP", external)
		return
	}
	if b.cmd != nil {
		ts.Fatalf("a broker is running already")
	}
	self, err := exec.LookPath("millrace") // testscript.Main has put it on PATH
	ts.Check(err)
	b.stderr.Reset()
	cmd := exec.Command(self, append([]string{"serve", "--data", ts.MkAbs("data"), "--listen", "127.0.0.1:0"}, args...)...)
	cmd.Dir, cmd.Stderr = ts.MkAbs("."), &b.stderr
	cmd.Env = append(os.Environ(), "MILLRACE_LOG_LEVEL=info")
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	b.cmd = cmd
	impatient := time.AfterFunc(brokerPatience, func() { cmd.Process.Kill() })
	defer impatient.Stop()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if address, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), "listening"); ok {
			ts.Setenv("MILLRACE_BOOTSTRAP", strings.TrimSpace(address))
			go func() { // ends with the broker
				for lines.Scan() {
				}
			}()
			return
		}
	}
	cmd.Wait()
	b.cmd = nil
	ts.Fatalf("the broker did not start:\n%s", b.stderr.String())
}

func (b *scriptBroker) stop(ts *testscript.TestScript, args []string) {
	if os.Getenv(externalBroker) != "" {
		return
	}
	if b.cmd == nil {
		ts.Fatalf("no broker is running")
	}
	sig, want := syscall.SIGTERM, 0
	if len(args) > 0 {
		switch args[0] {
		case "INT":
			sig = syscall.SIGINT
		case "KILL":
			sig, want = syscall.SIGKILL, -1
		default:
			ts.Fatalf("end with INT, KILL or nothing, not %q", args[0])
		}
	}
	ts.Check(b.cmd.Process.Signal(sig))
	impatient := time.AfterFunc(brokerPatience, func() { b.cmd.Process.Kill() })
	b.cmd.Wait()
	stopped := impatient.Stop()
	code := b.cmd.ProcessState.ExitCode()
	b.cmd = nil
	ts.Check(os.WriteFile(ts.MkAbs("broker.log"), []byte(b.stderr.String()), 0o644))
	if !stopped || code != want {
		ts.Fatalf("the broker ended with %d, want %d:\n%s", code, want, b.stderr.String())
	}
}

func (b *scriptBroker) kill() {
	if b.cmd != nil {
		b.cmd.Process.Kill()
		b.cmd.Wait()
		b.cmd = nil
	}
}

// exits runs a command and compares its exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg)
	if len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARG…]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if code != want {
		ts.Fatalf("%s ended with %d, want %d", strings.Join(args[1:], " "), code, want)
	}
}

// fixture copies a directory that a broker has left.
func fixture(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg)
	if len(args) != 1 {
		ts.Fatalf("usage: fixture NAME")
	}
	ts.Check(os.CopyFS(ts.MkAbs(args[0]), os.DirFS("../../testdata/segments/"+args[0])))
}

// flip flips the lowest bit of a byte of a file.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg)
	if len(args) != 2 {
		ts.Fatalf("usage: flip FILE POSITION")
	}
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	name := ts.MkAbs(args[0])
	if found, _ := filepath.Glob(name); len(found) == 1 { // a topic's id is in the names of its folders
		name = found[0]
	}
	b, err := os.ReadFile(name)
	ts.Check(err)
	b[at] ^= 1
	ts.Check(os.WriteFile(name, b, 0o644))
}
