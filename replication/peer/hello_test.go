package peer

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

var someHello = hello{lowest: 1, highest: 3, kind: Push, secret: true, target: -1,
	from: Identity{ClusterID: "c-1", NodeID: 7, Incarnation: [16]byte{1, 15: 2}}, nonce: [nonceBytes]byte{9, 31: 8}}

// TestHandshakeBytes: what is decoded is what was encoded, and anything shorter is an error.
func TestHandshakeBytes(t *testing.T) {
	long := someHello
	long.from.ClusterID, long.from.NodeID, long.target = strings.Repeat("x", 255), -1, 1<<31-1
	for _, h := range []hello{someHello, long} {
		b := h.encode()
		if got, err := decodeHello(append(b, 1, 2, 3)); err != nil || got != h {
			t.Errorf("%+v %v", got, err)
		}
		for n := range b {
			if _, err := decodeHello(b[:n]); !errors.Is(err, ErrProtocol) {
				t.Errorf("%d of %d bytes: %v", n, len(b), err)
			}
		}
		if len(b) > maxMessage {
			t.Errorf("%d bytes", len(b))
		}
	}
	c := challenge{version: 2, secret: true, nonce: [nonceBytes]byte{4, 31: 5}}
	if got, err := decodeChallenge(c.encode()); err != nil || got != c {
		t.Errorf("%+v %v", got, err)
	}
	w := welcome{from: someHello.from, proof: [proofBytes]byte{3, 31: 6}}
	if got, err := decodeWelcome(w.encode()); err != nil || got != w {
		t.Errorf("%+v %v", got, err)
	}
	r := refuse(ReasonSecret, "%s", strings.Repeat("no ", 200)+"\x1b[31m")
	if got := decodeRefused(r.encode()); got.Reason != r.Reason || got.Text != r.Text[:maxText] {
		t.Errorf("%+v", got)
	}
	if got := decodeRefused([]byte("\x02a\x1b[31m\n\xff")); strings.ContainsAny(got.Text, "\x1b\n") || !utf8.ValidString(got.Text) {
		t.Errorf("%q", got.Text)
	}
}

// TestMessages: not a byte is read beyond a message, and what is none is an error.
func TestMessages(t *testing.T) {
	var b bytes.Buffer
	if err := writeMessage(&b, typeProof, []byte("body")); err != nil {
		t.Fatal(err)
	}
	whole := bytes.Clone(b.Bytes())
	b.WriteString("next")
	got, err := readMessage(iotest.OneByteReader(&b), typeProof)
	if err != nil || string(got) != "body" || b.String() != "next" {
		t.Errorf("%q %v, left %q", got, err, b.String())
	}
	tests := []struct {
		name  string
		bytes []byte
		want  error
	}{
		{"another type", whole, ErrProtocol},
		{"an HTTP request", []byte("GET / HTTP/1.1\r\n\r\n"), ErrProtocol},
		{"a TLS alert", []byte{21, 3, 3, 0, 2, 2, 40}, ErrProtocol},
		{"too long", []byte("mrpeer\x01\x04\x01"), ErrProtocol},
		{"a refusal", append([]byte("mrpeer\x05\x00\x03\x03"), "no"...), ErrRefused},
	}
	for _, tt := range tests {
		if _, err := readMessage(bytes.NewReader(tt.bytes), typeHello); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestProofs: a proof depends on everything.
func TestProofs(t *testing.T) {
	seen := map[[proofBytes]byte]bool{}
	for _, secret := range []string{"a", "b"} {
		for _, role := range []string{"dialler", "acceptor"} {
			for _, binding := range []string{"", "x"} {
				for _, parts := range [][][]byte{{[]byte("ab"), []byte("c")}, {[]byte("a"), []byte("bc")}, {[]byte("abc")}} {
					seen[prove([]byte(secret), role, []byte(binding), parts...)] = true
				}
			}
		}
	}
	if len(seen) != 24 {
		t.Errorf("%d different proofs of 24", len(seen))
	}
}

// FuzzHandshake: no decoder panics, and what it takes it would write likewise.
func FuzzHandshake(f *testing.F) {
	for t, body := range map[messageType][]byte{typeHello: someHello.encode(), typeChallenge: (&challenge{version: 1}).encode(),
		typeWelcome: (&welcome{from: someHello.from}).encode(), typeRefused: refuse(ReasonInUse, "in use").encode(), typeProof: make([]byte, proofBytes)} {
		var b bytes.Buffer
		_ = writeMessage(&b, t, body)
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for want := typeHello; want <= typeRefused; want++ {
			body, err := readMessage(bytes.NewReader(b), want)
			if err != nil {
				continue
			}
			if len(body) > maxMessage {
				t.Fatal("too long")
			}
			var again []byte
			switch want {
			case typeHello:
				h, err := decodeHello(body)
				if err != nil {
					continue
				}
				again = h.encode()
				again[3] = body[3] // flags of later versions
			case typeChallenge:
				c, err := decodeChallenge(body)
				if err != nil {
					continue
				}
				again = c.encode()
				again[1] = body[1]
			case typeWelcome:
				w, err := decodeWelcome(body)
				if err != nil {
					continue
				}
				again = w.encode()
			}
			if !bytes.HasPrefix(body, again) {
				t.Fatalf("%x became %x", body, again)
			}
		}
	})
}
