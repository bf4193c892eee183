package server

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// kmsg trusts a request's counts before it has seen the elements, so a few bytes
// could make it allocate gigabytes or spin. Therefore every body is walked along
// the shape of its request first, which allocates nothing: the walk proves that
// each announced element is there, and counts them.
//
// A shape is written as a list of fields, each with the versions that have it:
//
//	1 2 4 8     an integer (or bool, or float) of that many bytes
//	u           a topic id, 16 bytes
//	s           a string, null or not
//	b           bytes, null or not
//	*4 *s …     an array, null or not, of plain values
//	[ … ]       an array, null or not, of structures with these fields
//	( … )       a structure;  ?( … )  one that may be null, after a byte that says so
//	{ 0 … }     a tagged field and its number
//	@3-         from version 3;  @-5  up to version 5;  @3-5  between
//
// In flexible versions lengths are compact and every structure ends with tagged
// fields.

// maxElements bounds what a request may be taken apart into: elements, strings
// and tags together. Decoded, and with its part of the response, each costs
// about elementBytes, which are charged to the budget when there are many.
const (
	maxElements  = 1 << 19
	fewElements  = 1 << 12
	elementBytes = 256
)

// field is one part of a shape.
type field struct {
	kind     byte // '1' '2' '4' '8' 'u' 's' 'b' '*' '[' '(' '?' '{'
	min, max int16
	tag      int // number of a tagged field, -1 otherwise
	fields   []field
}

// shape is a request's body in all its versions.
type shape struct {
	fields []field
}

// parseShape reads the notation above. Shapes are constants, so it panics on a mistake.
func parseShape(text string) *shape {
	tokens := strings.Fields(text)
	fields, rest := parseFields(tokens, "")
	if len(rest) > 0 {
		panic("server: unbalanced shape " + text)
	}
	return &shape{fields: fields}
}

var closing = map[string]string{"[": "]", "(": ")", "?(": ")", "{": "}"}

func parseFields(tokens []string, end string) (fields []field, rest []string) {
	for len(tokens) > 0 {
		token := tokens[0]
		tokens = tokens[1:]
		name, versions, _ := strings.Cut(token, "@")
		if end != "" && name == end {
			return fields, append([]string{versions}, tokens...)
		}
		f := field{kind: name[0], max: math.MaxInt16, tag: -1}
		switch name {
		case "1", "2", "4", "8", "u", "s", "b":
		case "*1", "*2", "*4", "*8", "*u", "*s":
			f.fields = []field{{kind: name[1], max: math.MaxInt16, tag: -1}}
		case "[", "(", "?(", "{":
			if name == "{" {
				f.tag = int(versionOr(tokens[0], -1))
				tokens = tokens[1:]
			}
			f.fields, tokens = parseFields(tokens, closing[name])
			versions, tokens = tokens[0], tokens[1:]
		default:
			panic("server: unknown token in shape: " + token)
		}
		if versions != "" {
			from, to, _ := strings.Cut(versions, "-")
			f.min, f.max = versionOr(from, 0), versionOr(to, math.MaxInt16)
		}
		fields = append(fields, f)
	}
	if end != "" {
		panic("server: shape without " + end)
	}
	return fields, nil
}

func versionOr(text string, or int16) int16 {
	if text == "" {
		return or
	}
	v, err := strconv.ParseInt(text, 10, 16)
	if err != nil {
		panic("server: version in shape: " + text)
	}
	return int16(v)
}

// check walks a body. It returns how many elements the body has.
func (s *shape) check(body []byte, version int16, flexible bool) (elements int, err error) {
	w := walker{b: body, version: version, flexible: flexible}
	w.structure(s.fields)
	switch {
	case w.elements > maxElements:
		return w.elements, errTooDetailed
	case w.bad:
		return w.elements, fmt.Errorf("%w: body of %d bytes ends early or has an impossible length", errMalformed, len(body))
	}
	return w.elements, nil
}

// walker goes over the bytes of one body.
type walker struct {
	b        []byte
	version  int16
	flexible bool
	bad      bool
	elements int
}

func (w *walker) fail() { w.bad, w.b = true, nil }

func (w *walker) skip(n int) {
	if n < 0 || n > len(w.b) {
		w.fail()
		return
	}
	w.b = w.b[n:]
}

func (w *walker) uvarint() int {
	n, size := binary.Uvarint(w.b[:min(len(w.b), 5)])
	if size <= 0 || n > 1<<32-1 {
		w.fail()
		return 0
	}
	w.b = w.b[size:]
	return int(n)
}

// length reads the length of a string, of bytes or of an array; -1 is null.
func (w *walker) length(wide bool) int {
	if w.flexible {
		return w.uvarint() - 1
	}
	if !wide {
		if len(w.b) < 2 {
			w.fail()
			return 0
		}
		n := int(int16(binary.BigEndian.Uint16(w.b)))
		w.b = w.b[2:]
		return max(n, -1)
	}
	if len(w.b) < 4 {
		w.fail()
		return 0
	}
	n := int(int32(binary.BigEndian.Uint32(w.b)))
	w.b = w.b[4:]
	return max(n, -1)
}

func (w *walker) count() {
	if w.elements++; w.elements > maxElements {
		w.fail()
	}
}

// tags skips tagged fields that nothing is known about.
func (w *walker) tags() {
	for n := w.uvarint(); n > 0 && !w.bad; n-- {
		w.count()
		w.uvarint()
		w.skip(w.uvarint())
	}
}

func (w *walker) structure(fields []field) {
	for i := range fields {
		if f := &fields[i]; f.tag < 0 && !w.bad && w.version >= f.min && w.version <= f.max {
			w.field(f)
		}
	}
	if !w.flexible {
		return
	}
	for n := w.uvarint(); n > 0 && !w.bad; n-- {
		w.count()
		number, size := w.uvarint(), w.uvarint()
		if w.bad || size > len(w.b) {
			w.fail()
			return
		}
		w.tagged(fields, number, w.b[:size])
		w.skip(size)
	}
}

// tagged walks the content of a tagged field when it is one that kmsg decodes.
func (w *walker) tagged(fields []field, number int, content []byte) {
	for i := range fields {
		f := &fields[i]
		if f.tag != number || w.version < f.min || w.version > f.max {
			continue
		}
		in := walker{b: content, version: w.version, flexible: true, elements: w.elements}
		for j := range f.fields {
			in.field(&f.fields[j])
		}
		w.elements = in.elements
		if in.bad {
			w.fail()
		}
	}
}

func (w *walker) field(f *field) {
	switch f.kind {
	case '1', '2', '4', '8':
		w.skip(int(f.kind - '0'))
	case 'u':
		w.skip(16)
	case 's':
		w.count()
		w.skip(max(w.length(false), 0))
	case 'b':
		w.skip(max(w.length(true), 0))
	case '(':
		w.structure(f.fields)
	case '?':
		if len(w.b) == 0 {
			w.fail()
			return
		}
		present := int8(w.b[0]) >= 0
		if w.b = w.b[1:]; present {
			w.structure(f.fields)
		}
	case '*':
		for n := w.length(true); n > 0 && !w.bad; n-- {
			w.count()
			w.field(&f.fields[0])
		}
	case '[':
		for n := w.length(true); n > 0 && !w.bad; n-- {
			w.count()
			w.structure(f.fields)
		}
	}
}
