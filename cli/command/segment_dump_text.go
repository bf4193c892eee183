package command

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"time"
	"unicode"
	"unicode/utf8"
)

// plain is how many bytes at the front of b are known to be printable ASCII without quote and backslash: all of them, mostly. It looks at
// eight at a time, since nearly all that is dumped is such text, and gives up early rather than late.
func plain(b []byte) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		// The high bit of a byte is set by: itself, being DEL, being less than a space, being a quote, being a backslash.
		if (x|(x+ones)|(x-' '*ones)|(x^'"'*ones-ones)|(x^'\\'*ones-ones))&highs != 0 {
			break
		}
	}
	return i
}

// plainText is how many bytes at the front of b stand as they are in text for people.
func plainText(b []byte) int {
	i := plain(b)
	for i < len(b) && b[i] >= ' ' && b[i] < 0x7f && b[i] != '"' && b[i] != '\\' {
		i++
	}
	return i
}

// plainJSON is how many bytes at the front of b, which is UTF-8, stand as they are in a JSON string.
func plainJSON(b []byte) int {
	i := plain(b)
	for i < len(b) && b[i] >= ' ' && b[i] != '"' && b[i] != '\\' {
		i++
	}
	return i
}

// appendEscaped writes text for people: letters of any language as they are, what cannot be seen as \n, \x00, \u200b.
func appendEscaped(b, s []byte) []byte {
	for {
		n := plainText(s)
		b = append(b, s[:n]...)
		if s = s[n:]; len(s) == 0 {
			return b
		}
		switch c := s[0]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c == '\t':
			b = append(b, `\t`...)
		case c < utf8.RuneSelf:
			b = append(b, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
		default:
			r, size := utf8.DecodeRune(s)
			switch {
			case r == utf8.RuneError && size == 1:
				b = append(b, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
			case unicode.IsPrint(r):
				b = append(b, s[:size]...)
			case r < 0x10000:
				b = append(b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
			default:
				b = append(b, '\\', 'U', '0', '0', hexDigits[r>>20&15], hexDigits[r>>16&15], hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
			}
			s = s[size:]
			continue
		}
		s = s[1:]
	}
}

// appendJSON writes a JSON string of what is UTF-8.
func appendJSON(b, s []byte) []byte {
	b = append(b, '"')
	for {
		n := plainJSON(s)
		b = append(b, s[:n]...)
		if s = s[n:]; len(s) == 0 {
			return append(b, '"')
		}
		switch c := s[0]; c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		s = s[1:]
	}
}

// appendOneLine writes JSON without the line ends that it may have.
func appendOneLine(b, document []byte) []byte {
	if bytes.IndexByte(document, '\n') < 0 {
		return append(b, bytes.TrimSpace(document)...)
	}
	var line bytes.Buffer
	if json.Compact(&line, document) != nil {
		return append(b, document...) // its caller has looked that it is JSON
	}
	return append(b, line.Bytes()...)
}

// javaText decodes UTF-8 as Java does: one U+FFFD for each longest piece that could have begun a character.
func javaText(data []byte) []byte {
	out := make([]byte, 0, len(data)+16)
	for len(data) > 0 {
		if _, size := utf8.DecodeRune(data); size > 1 || data[0] < utf8.RuneSelf {
			out, data = append(out, data[:size]...), data[size:]
			continue
		}
		out = append(out, "\uFFFD"...)
		data = data[beginning(data):]
	}
	return out
}

// beginning is how many bytes at the front of what is no UTF-8 could have begun one character, 1 at least.
func beginning(b []byte) int {
	low, high, want := byte(0x80), byte(0xbf), 0
	switch c := b[0]; {
	case c >= 0xc2 && c <= 0xdf:
		want = 1
	case c >= 0xe0 && c <= 0xef:
		want = 2
		if c == 0xe0 {
			low = 0xa0
		} // half of a surrogate pair (0xed) is one character to Java, though none that may stand alone
	case c >= 0xf0 && c <= 0xf4:
		want = 3
		if c == 0xf0 {
			low = 0x90
		} else if c == 0xf4 {
			high = 0x8f
		}
	}
	n := 1
	for ; n <= want && n < len(b) && b[n] >= low && b[n] <= high; n++ {
		low, high = 0x80, 0xbf
	}
	return n
}

// clock writes timestamps; it remembers what the last one's second looks like, as most records are of the same.
type clock struct {
	second int64
	text   []byte
}

// append writes a timestamp in UTC, or "-".
func (c *clock) append(b []byte, ms int64) []byte {
	if ms < 0 {
		return append(b, '-')
	}
	if second := ms / 1000; c.text == nil || second != c.second {
		c.second, c.text = second, time.Unix(second, 0).UTC().AppendFormat(c.text[:0], "2006-01-02T15:04:05.")
	}
	milli := ms % 1000
	return append(append(b, c.text...), byte('0'+milli/100), byte('0'+milli/10%10), byte('0'+milli%10), 'Z')
}

// appendJSON is append for JSON: in quotes, or null.
func (c *clock) appendJSON(b []byte, ms int64) []byte {
	if ms < 0 {
		return append(b, "null"...)
	}
	return append(c.append(append(b, '"'), ms), '"')
}
