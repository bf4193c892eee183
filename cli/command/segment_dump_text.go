package command

import (
	"bytes"
	"encoding/json"
	"unicode"
	"unicode/utf8"
)

// What is copied as it is, by byte: in text for people, and in JSON.
var plainInText, plainInJSON = func() (text, js [256]bool) {
	for c := range 256 {
		text[c] = c >= 0x20 && c < 0x7f && c != '"' && c != '\\'
		js[c] = text[c] || c >= 0x80 || c == 0x7f // it has been looked at whether it is UTF-8
	}
	return text, js
}()

// run is how many bytes at the front of s are copied as they are.
func run[T string | []byte](s T, plain *[256]bool) int {
	i := 0
	for ; i+8 <= len(s); i += 8 { // most of what is dumped is plain text
		if !(plain[s[i]] && plain[s[i+1]] && plain[s[i+2]] && plain[s[i+3]] && plain[s[i+4]] && plain[s[i+5]] && plain[s[i+6]] && plain[s[i+7]]) {
			break
		}
	}
	for i < len(s) && plain[s[i]] {
		i++
	}
	return i
}

// appendEscaped writes text for people: letters of any language as they are, what cannot be seen as \n, \x00, \u200b.
func appendEscaped[T string | []byte](b []byte, s T) []byte {
	for {
		n := run(s, &plainInText)
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
			var seq [utf8.UTFMax]byte
			r, size := utf8.DecodeRune(seq[:copy(seq[:], s)])
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
func appendJSON[T string | []byte](b []byte, s T) []byte {
	b = append(b, '"')
	for {
		n := run(s, &plainInJSON)
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
		} else if c == 0xed {
			high = 0x9f
		}
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
