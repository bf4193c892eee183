package coordinator

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/engine/group"
	"github.com/millrace/millrace/segment/batch"
)

func TestLoading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1).open()
		member, generation := b.stable("g")
		if err := b.commit("s", "t", 0, 7); err != nil {
			t.Fatal(err)
		}
		b.close()
		b.log.reading = make(chan struct{})
		b.open()
		synctest.Wait()
		if j := b.c.Join(background, "g", joining("")); !errors.Is(j.Err, ErrLoading) {
			t.Errorf("join: %v", j.Err)
		}
		if s := b.c.Sync(background, "g", group.Sync{MemberID: member}); !errors.Is(s.Err, ErrLoading) {
			t.Errorf("sync: %v", s.Err)
		}
		if err := b.c.Heartbeat(background, "g", group.Heartbeat{MemberID: member, Generation: generation}); err != nil {
			t.Errorf("heartbeat: %v", err)
		}
		if err := b.commit("s", "t", 0, 8); !errors.Is(err, ErrLoading) {
			t.Errorf("commit: %v", err)
		}
		if _, err := b.c.FetchOffsets(background, "s", nil, true, true); !errors.Is(err, ErrLoading) {
			t.Errorf("fetch: %v", err)
		}
		if _, err := b.c.Describe("g"); !errors.Is(err, ErrLoading) {
			t.Errorf("describe: %v", err)
		}
		if _, err := b.c.List(nil); !errors.Is(err, ErrLoading) {
			t.Errorf("list: %v", err)
		}
		if errs := b.c.DeleteGroups(background, []string{"s"}); !errors.Is(errs[0], ErrLoading) {
			t.Errorf("delete: %v", errs)
		}
		close(b.log.reading)
		synctest.Wait()
		b.wantOffset("s", "t", 0, 7)
		if err := b.c.Heartbeat(background, "g", group.Heartbeat{MemberID: member, Generation: generation}); err != nil {
			t.Errorf("heartbeat after loading: %v", err)
		}
		// Sessions begin anew with the load.
		time.Sleep(9 * time.Second)
		if d, _ := b.c.Describe("g"); d.State != group.Stable {
			t.Errorf("%+v", d)
		}
		time.Sleep(2 * time.Second)
		if d, _ := b.c.Describe("g"); d.State != group.Empty {
			t.Errorf("%+v", d)
		}
		b.close()
	})
}

// TestLoadingFails: a log that cannot be read costs its groups, not those of others, and the operator learns why.
func TestLoadingFails(t *testing.T) {
	damage := map[string]func(l *fakeLog){
		"a flipped bit":   func(l *fakeLog) { l.batches[0][70] ^= 1 },
		"a missing batch": func(l *fakeLog) { l.batches = nil },
		"a corrupt record": func(l *fakeLog) {
			nb := batch.NewBuilder(batch.BuilderOptions{})
			nb.Append(0, []byte{0, 1, 0}, nil, nil)
			b, err := nb.Build()
			if err != nil {
				t.Fatal(err)
			}
			l.batches = [][]byte{b}
		},
	}
	for name, f := range damage {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, 2).open()
				hurt, well := "g0", "g1"
				if PartitionFor(hurt, 2) != 0 {
					hurt, well = well, hurt
				}
				for _, g := range []string{hurt, well} {
					if err := b.commit(g, "t", 0, 7); err != nil {
						t.Fatal(err)
					}
				}
				b.close()
				f(b.log)
				b.open()
				defer b.close()
				synctest.Wait()
				if err := b.commit(hurt, "t", 0, 8); !errors.Is(err, ErrNotCoordinator) {
					t.Errorf("commit: %v", err)
				}
				if err := b.c.Heartbeat(background, hurt, group.Heartbeat{}); !errors.Is(err, ErrNotCoordinator) {
					t.Errorf("heartbeat: %v", err)
				}
				b.wantOffset(well, "t", 0, 7)
				if l, err := b.c.List(nil); err != nil || len(l) != 1 {
					t.Errorf("list: %v %v", l, err)
				}
				if !strings.Contains(b.said.String(), "could not load groups") {
					t.Errorf("the log says nothing: %s", b.said)
				}
			})
		})
	}
}

// TestForeignRecords: members of other group protocols and transactional commits in the same topic are left out.
func TestForeignRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, 1)
		add := func(opts batch.BuilderOptions, key, value []byte) {
			opts.BaseOffset = b.log.next
			nb := batch.NewBuilder(opts)
			nb.Append(0, key, value, nil)
			one, err := nb.Build()
			if err != nil {
				t.Fatal(err)
			}
			b.log.batches = append(b.log.batches, one)
			b.log.next++
		}
		offset := group.Record{Group: "g", Topic: "t", Offset: &group.Offset{Offset: 4, ExpireTimestampMs: group.NoTimestamp}}
		add(batch.BuilderOptions{}, []byte{0, 3, 0, 1, 'g'}, []byte{0, 0})
		add(batch.BuilderOptions{}, offset.Key(), offset.Value())
		add(batch.BuilderOptions{Idempotent: true, ProducerID: 1, Transactional: true}, offset.Key(), nil)
		add(batch.BuilderOptions{Control: true, Transactional: true, Idempotent: true, ProducerID: 1}, []byte{0, 0, 0, 1}, []byte{0, 0, 0, 0, 0, 0})
		b.open()
		defer b.close()
		synctest.Wait()
		b.wantOffset("g", "t", 0, 4)
		for _, want := range []string{"key version 3", "transactional offset commits"} {
			if !strings.Contains(b.said.String(), want) {
				t.Errorf("the log does not mention %q: %s", want, b.said)
			}
		}
	})
}
