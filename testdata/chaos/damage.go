package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// frozenDisk freezes the disk of node 1, whatever it leads.
func frozenDisk(ctx context.Context, s *scene) error {
	const length = 15 * time.Second
	n := s.nodes[0]
	for range s.rounds {
		v, err := s.view(ctx)
		if err != nil {
			return err
		}
		log.Printf("    the disk of node 1 freezes; partitions are led by %v, the metadata by %d", v.leaders, v.controller)
		fault := time.Now()
		if err := s.disk.freeze(length); err != nil {
			return err
		}
		defer s.disk.thaw()
		if err := s.recovered(ctx, fault, n, true); err != nil {
			return err
		}
		time.Sleep(time.Until(fault.Add(length)))
		s.disk.thaw()
		thawed := time.Now()
		if err := s.rejoins(ctx, thawed); err != nil {
			return err
		}
		if err := s.flowsOn(ctx, thawed); err != nil {
			return err
		}
	}
	return nil
}

// fullDisk fills the disk of node 1.
func fullDisk(ctx context.Context, s *scene) error {
	n := s.nodes[0]
	for range s.rounds {
		fault := time.Now()
		filler, err := s.disk.fill()
		if err != nil {
			return err
		}
		s.note("took to fill", time.Since(fault))
		time.Sleep(20 * time.Second)
		if err := s.flows(ctx, fault); err != nil {
			return err
		}
		v, err := s.view(ctx, n)
		log.Printf("    in sync with a full disk are %v, led by %v %v", v.inSync, v.leaders, err)
		if err := os.Remove(filler); err != nil {
			return err
		}
		room := time.Now()
		if err := s.rejoins(ctx, room); err != nil {
			return err
		}
		if err := s.flowsOn(ctx, room); err != nil {
			return err
		}
	}
	return nil
}

func flipClosed(ctx context.Context, s *scene) error { return flip(ctx, s, true) }
func flipActive(ctx context.Context, s *scene) error { return flip(ctx, s, false) }

// flip turns a bit of a follower that is down, in a partition that it leads when all is well, has it lead again, and looks at
// what it serves. What the disks hold at the end is told, not judged.
func flip(ctx context.Context, s *scene, closed bool) error {
	const p = 0
	n, err := s.leader(ctx, p)
	if err != nil {
		return err
	}
	var segments []string
	err = until(ctx, 4*time.Minute, "there are closed segments", func() bool {
		dir, err := n.folder(p)
		if err == nil {
			segments, err = filepath.Glob(filepath.Join(dir, "*.log"))
		}
		return err == nil && len(segments) > 1
	})
	if err != nil {
		return err
	}
	n.signal(syscall.SIGTERM)
	if err := n.wait(40 * time.Second); err != nil {
		return err
	}
	if err := s.load.await(ctx, time.Now()); err != nil {
		return err
	}
	slices.Sort(segments)
	victim := segments[0]
	if !closed {
		victim = segments[len(segments)-1]
	}
	at, err := flipBit(victim)
	if err != nil {
		return err
	}
	log.Printf("    a bit of byte %d of %s is turned on node %d", at, filepath.Base(victim), n.id)
	if err := s.again(ctx, n); err != nil {
		return err
	}
	if err := s.elect(ctx, n, p); err != nil {
		log.Printf("    node %d does not lead: %v", n.id, err)
	}
	if err := s.load.end(); err != nil {
		return err
	}
	stored, err := readAll(ctx, s.addresses())
	if err != nil {
		log.Printf("    reading: %v", err)
	} else if err := s.load.verify(stored); err != nil {
		return fmt.Errorf("what is served with a damaged replica: %w", err)
	}
	for _, line := range n.said("amage", "corrupt", "CRC", "crc") {
		log.Printf("    node %d said: %.300s", n.id, line)
	}
	if err := s.stopAll(); err != nil {
		return err
	}
	log.Printf("    the disks: %v", s.compare(ctx))
	if err := s.unexpected(); err != nil {
		return err
	}
	return errToldNotJudged
}

// errToldNotJudged ends a scenario that has checked all there is to check.
var errToldNotJudged = errors.New("not judged")

func flipBit(file string) (at int64, err error) {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	var b [1]byte
	for at = info.Size() / 3; ; at++ { // in the filler of a record, not in what was preallocated
		if _, err := f.ReadAt(b[:], at); err != nil {
			return 0, err
		}
		if b[0] == 'x' {
			break
		}
	}
	b[0] ^= 1
	_, err = f.WriteAt(b[:], at)
	return at, errors.Join(err, f.Sync())
}

// elect has the preferred leader of a partition lead it, and waits until n does.
func (s *scene) elect(ctx context.Context, n *node, partition int32) error {
	cl, err := newClient(s.addresses())
	if err != nil {
		return err
	}
	defer cl.Close()
	set := kadm.TopicsSet{}
	set.Add(topic, partition)
	results, err := kadm.NewClient(cl).ElectLeaders(ctx, kadm.ElectPreferredReplica, set)
	log.Printf("    election of partition %d: %+v %v", partition, results, err)
	return until(ctx, 10*time.Second, fmt.Sprintf("node %d leads partition %d", n.id, partition), func() bool {
		v, err := s.view(ctx)
		return err == nil && v.leaders[partition] == n.id
	})
}
