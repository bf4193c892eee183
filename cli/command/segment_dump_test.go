package command

import (
	"encoding/json"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// TestEscapes compares with the standard library, on text with every kind of byte at every place of eight.
func TestEscapes(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pieces := []string{"a", "bc", " ", "\"", "\\", "\n", "\r", "\t", "\x00", "\x1f", "\x7f", "\x80", "\xff", "ü", "世", "\U0001F30D", "\u200b", "\U000e0001", "~", "abcdefgh"}
	for range 20000 {
		var text strings.Builder
		for range random.IntN(24) {
			text.WriteString(pieces[random.IntN(len(pieces))])
		}
		s := text.String()
		quoted := `"` + string(appendEscaped(nil, []byte(s))) + `"`
		if back, err := strconv.Unquote(quoted); err != nil || back != s {
			t.Fatalf("%q became %s: %v", s, quoted, err)
		}
		if strings.ContainsFunc(quoted, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x200b }) {
			t.Fatalf("%q", quoted)
		}
		if utf8.ValidString(s) {
			var back string
			if err := json.Unmarshal(appendJSON(nil, []byte(s)), &back); err != nil || back != s {
				t.Fatalf("%q became %q: %v", s, back, err)
			}
		} else if out := javaText([]byte(s)); !utf8.Valid(out) {
			t.Fatalf("%q became %q", s, out)
		}
	}
}

// TestJavaText has what Java 17 makes of these.
func TestJavaText(t *testing.T) {
	for in, want := range map[string]string{
		"a\x80b": "a\uFFFDb", "\xe4\xb8": "\uFFFD", "\xe4\xb8x": "\uFFFDx", "\xf0\x9f\x8c": "\uFFFD", "\xc0\xaf": "\uFFFD\uFFFD",
		"\xed\xa0\x80": "\uFFFD", "\xed\xb0\xf2\x19": "\uFFFD\uFFFD\x19", "\xf0\x90xx": "\uFFFDxx", "\x80\xf8": "\uFFFD\uFFFD", "\xf5\x80": "\uFFFD\uFFFD", "\xe0\x80\x80": "\uFFFD\uFFFD\uFFFD", "世\xff": "世\uFFFD",
	} {
		if got := string(javaText([]byte(in))); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestClock(t *testing.T) {
	var c clock
	for _, ms := range []int64{0, 1, 999, 1000, 1700000000123, 1700000000999, 1700000001000, 4102444800000} {
		if got, want := string(c.append(nil, ms)), time.UnixMilli(ms).UTC().Format(timestampLayout); got != want {
			t.Errorf("%d is %s, want %s", ms, got, want)
		}
	}
	if got := string(c.appendJSON(nil, -1)); got != "null" {
		t.Error(got)
	}
}

func TestParseOffsets(t *testing.T) {
	for in, want := range map[string][2]int64{"3..7": {3, 7}, "3..": {3, 1<<63 - 1}, "..7": {0, 7}, "5": {5, 5}, "..": {0, 1<<63 - 1}} {
		if from, to, err := parseOffsets(in); err != nil || from != want[0] || to != want[1] {
			t.Errorf("%s: %d %d %v", in, from, to, err)
		}
	}
	for _, in := range []string{"", "a..b", "7..3", "-1..2", "1...2"} {
		if _, _, err := parseOffsets(in); err == nil {
			t.Errorf("%q is taken", in)
		}
	}
}
