package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// fill gives every field of a kmsg struct a random value.
func fill(v reflect.Value, r *rand.Rand, depth int) {
	switch v.Kind() {
	case reflect.Pointer:
		if r.IntN(4) == 0 {
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), r, depth+1)
	case reflect.Struct:
		if tags, ok := v.Addr().Interface().(*kmsg.Tags); ok {
			for range r.IntN(3) {
				tags.Set(100+r.Uint32N(1000), make([]byte, r.IntN(200)))
			}
			return
		}
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() && v.Type().Field(i).Name != "Version" {
				fill(f, r, depth+1)
			}
		}
	case reflect.Slice:
		n := r.IntN(4)
		if v.Type().Elem().Kind() == reflect.Uint8 {
			n = r.IntN(300)
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(v.Index(i), r, depth+1)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), r, depth+1)
		}
	case reflect.String:
		v.SetString(fmt.Sprintf("%0*d", r.IntN(200), r.IntN(1000)))
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(r.Int64())
	case reflect.Uint8:
		v.SetUint(uint64(r.Uint32N(256)))
	case reflect.Float64:
		v.SetFloat(r.Float64())
	}
}

// randomRequest makes a request whose every field means something.
func randomRequest(key, version int16, r *rand.Rand) kmsg.Request {
	req := kmsg.RequestForKey(key)
	fill(reflect.ValueOf(req).Elem(), r, 0)
	req.SetVersion(version)
	return req
}

func TestShapesAreThoseOfKmsg(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, a := range newRegistry(apis(), &Metrics{}).list {
		if a.shape == nil {
			t.Errorf("%s has no shape", kmsg.NameForKey(a.key))
			continue
		}
		for v := a.min; v <= a.max; v++ {
			for range 50 {
				body := randomRequest(a.key, v, r).AppendTo(nil)
				w := walker{b: body, version: v, flexible: v >= a.flexible}
				w.structure(a.shape.fields)
				if w.bad || len(w.b) > 0 {
					t.Fatalf("%s v%d: bad=%v, %d of %d bytes left", kmsg.NameForKey(a.key), v, w.bad, len(w.b), len(body))
				}
				cut := r.IntN(len(body) + 1)
				if _, err := a.shape.check(body[:cut], v, v >= a.flexible); cut < len(body) && !errors.Is(err, errMalformed) {
					t.Fatalf("%s v%d: %d of %d bytes pass: %v", kmsg.NameForKey(a.key), v, cut, len(body), err)
				}
			}
		}
	}
}

func TestShapeRefusesCountsWithoutElements(t *testing.T) {
	tests := []struct {
		name    string
		key     int16
		version int16
		body    []byte
		want    error
	}{
		{"a billion topics", 3, 1, binary.BigEndian.AppendUint32(nil, 1<<30), errMalformed},
		{"a string longer than the frame", 10, 0, []byte{0x7f, 0xff, 'a'}, errMalformed},
		{"a compact array of four billion", 3, 9, []byte{0xff, 0xff, 0xff, 0xff, 0x0f}, errMalformed},
		{"a varint without an end", 3, 9, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, errMalformed},
		{"four billion tags", 18, 3, []byte{2, 'a', 2, 'b', 0xff, 0xff, 0xff, 0xff, 0x0f}, errMalformed},
		{"a tag longer than the frame", 18, 3, []byte{2, 'a', 2, 'b', 1, 7, 0xff, 0x01}, errMalformed},
		{"two million empty strings", 42, 0, append(binary.BigEndian.AppendUint32(nil, 2<<20), make([]byte, 4<<20)...), errTooDetailed},
		{"four billion tags inside a tag of Fetch", 1, 15, fetchWithTag(1, append(make([]byte, 12), 0xff, 0xff, 0xff, 0xff, 0x0f)), errMalformed},
		{"a short tag of Fetch", 1, 15, fetchWithTag(1, make([]byte, 5)), errMalformed},
	}
	reg := newRegistry(apis(), &Metrics{})
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a := reg.find(test.key, test.version)
			allocated := testing.AllocsPerRun(1, func() {
				if _, err := a.shape.check(test.body, test.version, test.version >= a.flexible); !errors.Is(err, test.want) {
					t.Errorf("got %v, want %v", err, test.want)
				}
			})
			if allocated > 10 {
				t.Errorf("%v allocations", allocated)
			}
		})
	}
}

// fetchWithTag is a Fetch v15 body that is empty but for one tagged field.
func fetchWithTag(number byte, content []byte) []byte {
	body := make([]byte, 4+4+4+1+4+4)
	body = append(body, 1, 1, 1) // no topics, none forgotten, no rack
	body = append(body, 1, number, byte(len(content)))
	return append(body, content...)
}
