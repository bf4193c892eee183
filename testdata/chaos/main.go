// Command chaos does to a cluster of three real brokers what happens to machines, while producers go on, and looks
// whether everything that was acknowledged is there, once, in order, at its offset, alike on all three.
//
//	go run ./testdata/chaos -millrace bin/millrace              the short run: what needs no root, each once or twice
//	go run ./testdata/chaos -millrace bin/millrace -all         all scenarios, with all their rounds
//	go run ./testdata/chaos -millrace bin/millrace -only cut    those whose name contains the word
//
// Scenarios with networks need root on Linux, ip and /dev/net/tun; those with disks root, loop devices, mkfs.ext4 and
// fsfreeze. Where one is absent they are skipped, and it is said why; with -must that is a failure. What a failed
// scenario leaves behind (logs, data) is kept, and its place is told.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// settling is how long a new cluster is left in peace, so that all nodes have a vote in the metadata: until then it hangs on the first one.
const settling = 2 * time.Second

// scenario is one kind of misfortune.
type scenario struct {
	name        string
	short, long int           // rounds in the short run, 0: none, and in the long one
	needs       func() string // what is missing for it here; nil: nothing can be
	network     bool          // each node has a network namespace
	disk        int64         // node 1 has a file system of its own, of so many bytes
	run         func(ctx context.Context, s *scene) error
}

var scenarios = []scenario{
	{name: "kill-leader", short: 2, long: 6, run: killLeader},
	{name: "kill-controller", short: 1, long: 5, run: killController},
	{name: "rolling-restart", short: 1, long: 3, run: rollingRestart},
	{name: "pause-leader", short: 1, long: 4, run: pauseLeader},
	{name: "pause-controller", short: 1, long: 3, run: pauseController},
	{name: "kill-all", short: 2, long: 10, run: killAll},
	{name: "replace-node", long: 3, run: replaceNode},
	{name: "flip-closed", long: 1, run: flipClosed},
	{name: "flip-active", long: 1, run: flipActive},
	{name: "cut-leader", long: 4, needs: noNetwork, network: true, run: cutLeader},
	{name: "cut-follower", long: 3, needs: noNetwork, network: true, run: cutFollower},
	{name: "cut-one-way", long: 4, needs: noNetwork, network: true, run: cutOneWay},
	{name: "cut-controller", long: 3, needs: noNetwork, network: true, run: cutController},
	{name: "cut-flapping", long: 2, needs: noNetwork, network: true, run: cutFlapping},
	{name: "slow-link", long: 1, needs: noNetwork, network: true, run: slowLink},
	{name: "frozen-disk", long: 3, needs: noDisk, disk: 2 << 30, run: frozenDisk},
	{name: "full-disk", long: 2, needs: noDisk, disk: 512 << 20, run: fullDisk},
}

var options struct {
	binary string
	port   int
	all    bool
	keep   bool
	debug  bool
	rounds int

	timeout time.Duration
}

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	flag.StringVar(&options.binary, "millrace", "bin/millrace", "the broker")
	flag.IntVar(&options.port, "port", 21000, "of the first node, for clients; up to 300 ports from there on are used. Above 32768 they may be taken by clients")
	flag.BoolVar(&options.all, "all", false, "all scenarios, with all their rounds")
	flag.BoolVar(&options.keep, "keep", false, "keep what a scenario leaves behind")
	flag.BoolVar(&options.debug, "debug", false, "have the brokers log more")
	flag.IntVar(&options.rounds, "rounds", 0, "so many rounds of each")
	flag.DurationVar(&options.timeout, "timeout", 1500*time.Millisecond, "of produce requests: what clients wait for answers that do not come; 30s is usual, and hides the brokers' part")
	only := flag.String("only", "", "words, with commas between; those scenarios whose name contains one")
	times := flag.Int("times", 1, "everything so many times")
	must := flag.Bool("must", false, "fail where something cannot be run")
	flag.Parse()
	binary, err := filepath.Abs(options.binary)
	if err != nil {
		log.Fatal(err)
	}
	options.binary = binary
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var total report
	failed := false
	for range *times {
		for _, one := range scenarios {
			rounds := one.short
			if options.all || *only != "" {
				rounds = one.long
			}
			if options.rounds > 0 && rounds > 0 {
				rounds = options.rounds
			}
			if rounds == 0 || !matches(one.name, *only) || ctx.Err() != nil {
				continue
			}
			if one.needs != nil {
				if why := one.needs(); why != "" {
					log.Printf("=== %s skipped: %s", one.name, why)
					failed = failed || *must
					continue
				}
			}
			if err := play(ctx, one, rounds, &total); err != nil {
				failed = true
				total.failed(one.name)
				log.Printf("=== %s FAILED: %v", one.name, err)
			}
		}
	}
	total.print(os.Stdout)
	if failed || ctx.Err() != nil {
		stop()
		os.Exit(1)
	}
}

func matches(name, only string) bool {
	if only == "" {
		return true
	}
	for word := range strings.SplitSeq(only, ",") {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}

// scene is a cluster under load, and what has been measured on it.
type scene struct {
	*cluster
	load   *load
	rounds int
	name   string
	report *report
}

// note keeps a measurement.
func (s *scene) note(what string, took time.Duration) {
	log.Printf("    %s: %s %.2f s", s.name, what, took.Seconds())
	s.report.note(s.name, what, took)
}

// play starts a cluster, loads it, has something happen to it, and checks what has become of the records.
func play(ctx context.Context, sc scenario, rounds int, total *report) (err error) {
	log.Printf("=== %s, %d rounds, load of the machine %s", sc.name, rounds, machineLoad())
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "millrace-chaos-"+sc.name+"-")
	if err != nil {
		return err
	}
	c, err := newCluster(dir, sc)
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	defer func() {
		err = errors.Join(err, c.close())
		if err == nil && !options.keep {
			err = os.RemoveAll(dir)
		} else {
			log.Printf("    logs and data are in %s", dir)
		}
	}()
	begun := time.Now()
	if err := c.startAll(ctx); err != nil {
		return err
	}
	s := &scene{cluster: c, rounds: rounds, name: sc.name, report: total}
	s.note("first start", time.Since(begun))
	if s.load, err = startLoad(ctx, c.addresses()); err != nil {
		return err
	}
	defer s.load.end()
	if err := s.load.await(ctx, time.Now()); err != nil {
		return fmt.Errorf("before anything happened: %w", err)
	}
	time.Sleep(settling)
	err = errors.Join(sc.run(ctx, s), c.unexpected())
	switch {
	case errors.Is(err, errToldNotJudged):
		return nil
	case err != nil:
		return err
	}
	return s.conclude(ctx)
}

// conclude ends the load, and checks everything.
func (s *scene) conclude(ctx context.Context) error {
	if err := s.load.await(ctx, time.Now()); err != nil {
		return fmt.Errorf("after all: %w", err)
	}
	if err := s.load.end(); err != nil {
		return err
	}
	if took, err := s.awaitInSync(ctx, 60*time.Second); err != nil {
		return fmt.Errorf("after all: %w", err)
	} else if took > time.Second {
		s.note("in sync at the end", took)
	}
	stored, err := readAll(ctx, s.addresses())
	if err != nil {
		return err
	}
	if err := s.load.verify(stored); err != nil {
		return err
	}
	if err := errors.Join(s.stopAll(), s.unexpected()); err != nil {
		return err
	}
	return s.compare(ctx)
}
