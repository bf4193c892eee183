package command

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func TestPosition(t *testing.T) {
	tests := []struct {
		flag              string
		start, end, since int64
		want              int64
		err               string
	}{
		{"start", 5, 20, -1, 5, ""},
		{"end", 5, 20, -1, 20, ""},
		{"7", 5, 20, -1, 7, ""},
		{"20", 5, 20, -1, 20, ""},
		{"4", 5, 20, -1, 0, "outside of what it holds, 5 to 20"},
		{"21", 5, 20, -1, 0, "outside of what it holds"},
		{"-3", 5, 20, -1, 17, ""},
		{"-100", 5, 20, -1, 5, ""},
		{"soon", 0, 0, 0, 0, "is not start, end, an offset or -N"},
	}
	for _, tt := range tests {
		t.Run(tt.flag, func(t *testing.T) {
			p, err := parsePosition(tt.flag)
			var got int64
			if err == nil {
				got, err = p.in(tt.start, tt.end, tt.since)
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Fatalf("got %d, %v; want %d", got, err, tt.want)
			}
		})
	}
	byTime := position{kind: 't'}
	if got, _ := byTime.in(0, 20, 8); got != 8 {
		t.Errorf("by time: %d, want 8", got)
	}
	if got, _ := byTime.in(0, 20, -1); got != 20 {
		t.Errorf("after the last record: %d, want the end, 20", got)
	}
}

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"15m":                       now.Add(-15 * time.Minute),
		"2026-03-01T08:00:00Z":      time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC),
		"2026-03-01T08:00:00+02:00": time.Date(2026, 3, 1, 6, 0, 0, 0, time.UTC),
		"2026-03-01":                time.Date(2026, 3, 1, 0, 0, 0, 0, time.Local),
		"2026-03-01 07:30":          time.Date(2026, 3, 1, 7, 30, 0, 0, time.Local),
	} {
		if got, err := parseTime(text, now); err != nil || !got.Equal(want) {
			t.Errorf("parseTime(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "yesterday", "-5m", "2026-13-01"} {
		if got, err := parseTime(text, now); err == nil {
			t.Errorf("parseTime(%q) = %v, want an error", text, got)
		}
	}
}

func TestPrinter(t *testing.T) {
	rec := &kgo.Record{
		Topic: "t", Partition: 3, Offset: 42, Timestamp: time.UnixMilli(1_700_000_000_123), Key: []byte("k"), Value: nil,
		Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "b", Value: nil}},
	}
	binary := &kgo.Record{Topic: "t", Timestamp: time.UnixMilli(0), Value: []byte{0xff, 0xfe}}
	tests := []struct {
		name string
		p    printer
		rec  *kgo.Record
		want string
	}{
		{"value", printer{null: "null"}, rec, "null\n"},
		{"all", printer{timestamps: true, offsets: true, headers: true, keys: true, separator: "|", null: "-"}, rec, "2023-11-14T22:13:20.123Z|3:42|a=1,b=-|k|-\n"},
		{"json", printer{json: true}, rec, `{"topic":"t","partition":3,"offset":42,"timestamp":"2023-11-14T22:13:20.123Z","key":"k","value":null,"headers":[{"key":"a","value":"1"},{"key":"b","value":null}]}` + "\n"},
		{"json of bytes", printer{json: true}, binary, `{"topic":"t","partition":0,"offset":0,"timestamp":"1970-01-01T00:00:00.000Z","key":null,"value":null,"value_base64":"//4="}` + "\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			w := bufio.NewWriter(&b)
			if err := tt.p.record(w, tt.rec); err != nil {
				t.Fatal(err)
			}
			w.Flush()
			if b.String() != tt.want {
				t.Errorf("got  %swant %s", b.String(), tt.want)
			}
		})
	}
}
