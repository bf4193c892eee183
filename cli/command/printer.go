package command

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
)

// timestampLayout is RFC 3339 with the milliseconds that records have.
const timestampLayout = "2006-01-02T15:04:05.000Z07:00"

// printer writes records as lines.
type printer struct {
	json                               bool
	timestamps, offsets, headers, keys bool
	separator                          string
	null                               string
}

// jsonRecord is a record as one line of JSON. Bytes that are no UTF-8 stand in base64 under a name of their own.
type jsonRecord struct {
	Topic       string       `json:"topic"`
	Partition   int32        `json:"partition"`
	Offset      int64        `json:"offset"`
	Timestamp   string       `json:"timestamp"`
	Key         *string      `json:"key"`
	KeyBase64   string       `json:"key_base64,omitempty"`
	Value       *string      `json:"value"`
	ValueBase64 string       `json:"value_base64,omitempty"`
	Headers     []jsonHeader `json:"headers,omitempty"`
}

type jsonHeader struct {
	Key         string  `json:"key"`
	Value       *string `json:"value"`
	ValueBase64 string  `json:"value_base64,omitempty"`
}

func (p *printer) record(w *bufio.Writer, r *kgo.Record) error {
	if p.json {
		return writeJSONRecord(w, r)
	}
	if p.timestamps {
		w.WriteString(r.Timestamp.UTC().Format(timestampLayout) + p.separator)
	}
	if p.offsets {
		fmt.Fprintf(w, "%d:%d%s", r.Partition, r.Offset, p.separator)
	}
	if p.headers {
		for i, h := range r.Headers {
			if i > 0 {
				w.WriteByte(',')
			}
			w.WriteString(h.Key + "=")
			p.bytes(w, h.Value)
		}
		w.WriteString(p.separator)
	}
	if p.keys {
		p.bytes(w, r.Key)
		w.WriteString(p.separator)
	}
	p.bytes(w, r.Value)
	return w.WriteByte('\n') // a bufio.Writer keeps its first error
}

func (p *printer) bytes(w *bufio.Writer, b []byte) {
	if b == nil {
		w.WriteString(p.null)
		return
	}
	w.Write(b)
}

func writeJSONRecord(w *bufio.Writer, r *kgo.Record) error {
	j := jsonRecord{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp.UTC().Format(timestampLayout)}
	j.Key, j.KeyBase64 = jsonBytes(r.Key)
	j.Value, j.ValueBase64 = jsonBytes(r.Value)
	for _, h := range r.Headers {
		text, raw := jsonBytes(h.Value)
		j.Headers = append(j.Headers, jsonHeader{h.Key, text, raw})
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(j)
}

// jsonBytes returns b as text, or in base64 when it is none; null is neither.
func jsonBytes(b []byte) (text *string, raw string) {
	if b == nil {
		return nil, ""
	}
	if !utf8.Valid(b) {
		return nil, base64.StdEncoding.EncodeToString(b)
	}
	s := string(b)
	return &s, ""
}
