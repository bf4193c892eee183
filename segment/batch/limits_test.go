package batch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// allocated runs f and tells how many bytes it has allocated.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Lengths and counts that announce more than there is must not be believed before it has arrived.
func TestLiesCostNoMemory(t *testing.T) {
	manyHeaders := rawRecord(0, 0, -1, -1, 1<<30)
	manyHeaders = append(manyHeaders[1:], make([]byte, 1<<20)...) // a body with room for a million empty names
	manyHeaders = append(binary.AppendVarint(nil, int64(len(manyHeaders))), manyHeaders...)
	hugeBody := binary.AppendVarint(nil, 1<<30)
	cases := map[string][]byte{"header count": manyHeaders, "body length": hugeBody, "key length": rawRecord(0, 0, 1<<30, -1, 0)}
	for name, records := range cases {
		for _, codec := range []Codec{None, Snappy} {
			t.Run(name+" "+codec.String(), func(t *testing.T) {
				raw := withPayload(codec, 1, records)
				rules := baseRules()
				rules.MaxMessageBytes = 2 << 20
				var admitErr, readErr error
				used := allocated(func() {
					_, admitErr = Admit(bytes.Clone(raw), rules)
					for _, readErr = range Records(raw, 0) {
					}
				})
				if !errors.Is(admitErr, ErrInvalidRecord) || !errors.Is(readErr, ErrInvalidRecord) {
					t.Errorf("admit %v, read %v", admitErr, readErr)
				}
				if limit := uint64(6<<20 + 4*len(raw)); used > limit {
					t.Errorf("%d KiB of memory for a batch of %d KiB", used>>10, len(raw)>>10)
				}
			})
		}
	}
}

func TestSnappyReservesOnlyWhatABlockCanHold(t *testing.T) {
	lie := append([]byte{0xff, 0xff, 0xff, 0x7f}, make([]byte, 1000)...) // announces 256 MiB
	used := allocated(func() {
		if _, err := Decompress(Snappy, lie, 0); !errors.Is(err, ErrDecompression) {
			t.Error(err)
		}
	})
	if used > 1<<20 {
		t.Errorf("%d MiB for a block of %d bytes", used>>20, len(lie))
	}
}

// A bomb of 64 MiB, admitted with and without re-encoding, costs what the topic's limit and the decoders allow.
func TestAdmitABomb(t *testing.T) {
	bomb := func() []byte {
		b := NewBuilder(BuilderOptions{LeaderEpoch: -1, Compression: Compression{Codec: Zstd}})
		b.Append(1, nil, make([]byte, 64<<20), nil)
		return mustBuild(b)
	}()
	for _, target := range []Codec{Producer, None, Gzip} {
		t.Run(target.String(), func(t *testing.T) {
			rules := baseRules()
			rules.Compression.Codec, rules.MaxMessageBytes = target, 20<<10
			var err error
			used := allocated(func() { _, err = Admit(bytes.Clone(bomb), rules) })
			if target == Producer && err != nil || target != Producer && !errors.Is(err, ErrTooLarge) {
				t.Error(err)
			}
			if used > 24<<20 {
				t.Errorf("allocated %d MiB", used>>20)
			}
			rules.MaxDecompressed = 32 << 20
			if _, err := Admit(bytes.Clone(bomb), rules); !errors.Is(err, ErrTooManyBytes) {
				t.Errorf("over the bound: %v", err)
			}
		})
	}
}

func TestRecordErrorsAreBounded(t *testing.T) {
	for name, damage := range map[string]func(*Rules){
		"keys":       compacted,
		"timestamps": func(r *Rules) { r.TimestampBeforeMaxMs = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBuilder(BuilderOptions{LeaderEpoch: -1})
			for range maxRecordErrors + 500 {
				b.Append(1, nil, nil, nil)
			}
			rules := baseRules()
			damage(&rules)
			_, err := Admit(mustBuild(b), rules)
			var refused *RecordErrors
			if !errors.As(err, &refused) || len(refused.Records) != maxRecordErrors {
				t.Fatalf("%v", err)
			}
			if name == "keys" && !strings.Contains(refused.Message, fmt.Sprint(maxRecordErrors+500, " record errors in total")) {
				t.Error(refused.Message)
			}
		})
	}
}

// Re-encoding gives a batch whose last offset delta fits its records, whatever gaps the client has left.
func TestReencodeClosesGaps(t *testing.T) {
	gaps := append(rawRecord(7, 0, -1, -1, 0), rawRecord(-3, 0, -1, -1, 0)...)
	rules := baseRules()
	rules.Compression.Codec = Zstd
	got, err := Admit(withPayload(Gzip, 2, gaps), rules)
	if err != nil {
		t.Fatal(err)
	}
	want := "delta 0 timestamp 1000 key \"\" null true value \"\" null true headers []\n" +
		"delta 1 timestamp 1000 key \"\" null true value \"\" null true headers []\n"
	if records := consumed(t, got.Batch); records != want || got.Header.LastOffsetDelta != 1 {
		t.Errorf("%+v\n%s", got.Header, records)
	}
}

func TestManyAtOnce(t *testing.T) {
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := range 40 {
				codec, target := Codec((worker+i)%5), Codec(i%5)
				rules := baseRules()
				rules.Compression.Codec = target
				got, err := Admit(produced(codec), rules)
				if err != nil {
					t.Error(err)
					return
				}
				n := 0
				for r, err := range Records(got.Batch, 0) {
					if err != nil || n == 0 && string(r.Value) != "v0" {
						t.Errorf("record %d of %v as %v: %+v, %v", n, codec, target, r, err)
						return
					}
					n++
				}
				if n != 3 {
					t.Errorf("%d records", n)
				}
			}
		})
	}
	all.Wait()
}
