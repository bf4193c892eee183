package vfs

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"testing"
)

// What is written to an overlay is read from it, as from a file system that was written to, and the one below stays as it is.
func TestOverlay(t *testing.T) {
	base, twin := NewMem(), NewMem()
	for _, m := range []*Mem{base, twin} {
		if err := MkdirAllDurable(m, "d/sub", 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"d/a", "d/b"} {
			if err := WriteFileAtomic(m, name, []byte("what was there before, in "+name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	base.Record()
	over := NewOverlay(base)
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		name := []string{"d/a", "d/b", "d/new", "d/more/c"}[random.IntN(4)]
		off, b := random.Int64N(200), make([]byte, random.IntN(40))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		for _, f := range []FS{over, twin} {
			if err := f.MkdirAll("d/more", 0o755); err != nil {
				t.Fatal(err)
			}
			file, err := f.OpenFile(name, ReadWrite|Create, 0o644)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := file.WriteVAt([][]byte{b[:len(b)/2], b[len(b)/2:]}, off); err != nil || n != len(b) {
				t.Fatal(n, err)
			}
			if err := file.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	one, two := &script{t: t, fs: over, root: "d"}, &script{t: t, fs: twin, root: "d"}
	one.tree(".")
	two.tree(".")
	if one.log.String() != two.log.String() {
		t.Errorf("the overlay has\n%s\nnot\n%s", one.log.String(), two.log.String())
	}
	for _, name := range []string{"d/a", "d/new", "d/more", "d/none"} {
		got, gotErr := over.Stat(name)
		want, wantErr := twin.Stat(name)
		if (gotErr == nil) != (wantErr == nil) || gotErr == nil && (got.IsDir() != want.IsDir() || !got.IsDir() && got.Size() != want.Size()) {
			t.Errorf("%s: %v, %v; want %v, %v", name, got, gotErr, want, wantErr)
		}
	}
	if base.Ops() > 0 {
		t.Errorf("below it there was %s", base.Op(1))
	}
	if err := over.Rename("d/a", "d/z"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("rename: %v", err)
	}
	if _, err := over.OpenFile("d/a", ReadWrite|Direct, 0); !errors.Is(err, ErrNoDirect) {
		t.Errorf("direct: %v", err)
	}
}
