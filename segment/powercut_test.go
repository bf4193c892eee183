package segment

import (
	"math/rand/v2"
	"os"
	"path"
	"strconv"
	"testing"

	"github.com/millrace/millrace/segment/vfs"
)

// seedRange is which seeds to try: MILLRACE_SEEDS=FROM-TO, or so many from 1 on.
func seedRange(t *testing.T, count uint64) (from, to uint64) {
	t.Helper()
	given := os.Getenv("MILLRACE_SEEDS")
	if given == "" {
		return 1, count + 1
	}
	for i := range given {
		if given[i] == '-' {
			a, err1 := strconv.ParseUint(given[:i], 10, 64)
			b, err2 := strconv.ParseUint(given[i+1:], 10, 64)
			if err1 == nil && err2 == nil {
				return a, b + 1
			}
		}
	}
	t.Fatalf("MILLRACE_SEEDS=%q, want FROM-TO", given)
	return 0, 0
}

// cutPower runs a workload and takes the power away at some instant of it; what was
// not synced is lost, or a part of it.
func cutPower(t *testing.T, seed uint64, wrap func(vfs.FS) vfs.FS) error {
	h := runWorkloadOn(t, seed, 30, wrap)
	random := rand.New(rand.NewPCG(seed, 99))
	for range 3 {
		n := 1 + random.IntN(h.fs.Ops())
		keep := []float64{0, 0.1, 0.5, 0.9, 1}[random.IntN(5)]
		if err := h.check(t, h.fs.Replay(n).Crash(seed, keep), n); err != nil {
			t.Logf("seed %d, keep %v, power cut after operation %d (%s): %v", seed, keep, n, h.fs.Op(n), err)
			return err
		}
	}
	return nil
}

// A random workload under many seeds: after a power cut everything that was
// acknowledged is there, in order, and nothing that was not sent. MILLRACE_SEEDS=1-100000
// tries more; the seed of a failure shows it again.
func TestPowerCuts(t *testing.T) {
	from, to := seedRange(t, 300)
	if testing.Short() {
		to = min(to, from+100)
	}
	for seed := from; seed < to; seed++ {
		if cutPower(t, seed, func(fs vfs.FS) vfs.FS { return fs }) != nil {
			t.FailNow()
		}
	}
}

// Every kind of sync is needed: without it some seed loses something. So the test
// above can fail.
func TestPowerCutsWithoutASync(t *testing.T) {
	for _, missing := range []string{"*.journal", "*.log", "topics", "orders-*", "journal", "all"} {
		t.Run(missing, func(t *testing.T) {
			for seed := uint64(1); seed < 3000; seed++ {
				if cutPower(t, seed, func(fs vfs.FS) vfs.FS { return &forgetful{fs, missing} }) != nil {
					return
				}
			}
			t.Error("nobody has noticed")
		})
	}
}

// What a truncation writes down is needed, too.
func TestPowerCutsWithoutANote(t *testing.T) {
	for _, missing := range []string{voidFile, cutFile} {
		t.Run(missing, func(t *testing.T) {
			for seed := uint64(1); seed < 3000; seed++ {
				if cutPower(t, seed, func(fs vfs.FS) vfs.FS { return &forgettingRenames{fs, missing} }) != nil {
					return
				}
			}
			t.Error("nobody has noticed")
		})
	}
}

// forgetful does not sync what matches; "all" is SyncAll.
type forgetful struct {
	vfs.FS
	pattern string
}

func (f *forgetful) match(name string) bool {
	ok, _ := path.Match(f.pattern, path.Base(name)) // the patterns are well formed
	return ok
}

func (f *forgetful) SyncDir(name string) error {
	if f.match(name) {
		return nil
	}
	return f.FS.SyncDir(name)
}

func (f *forgetful) SyncAll(name string) error {
	if f.match("all") {
		return nil
	}
	return f.FS.SyncAll(name)
}

func (f *forgetful) OpenFile(name string, flag int, perm os.FileMode) (vfs.File, error) {
	file, err := f.FS.OpenFile(name, flag, perm)
	if err != nil || !f.match(name) {
		return file, err
	}
	return unsyncedFile{file}, nil
}

type unsyncedFile struct{ vfs.File }

func (unsyncedFile) Sync() error { return nil }
