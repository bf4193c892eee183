package inspect

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/millrace/millrace/segment"
	"github.com/millrace/millrace/segment/vfs"
)

// DecodeOffsetCheckpoint reads Kafka's …-offset-checkpoint files: an offset for each TOPIC-PARTITION. Errors are segment.ErrFormat.
//
//	0                 version
//	2                 entries
//	orders 0 1500     topic, partition, offset
func DecodeOffsetCheckpoint(b []byte) (map[string]int64, error) {
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if len(bytes.TrimSpace(b)) == 0 {
		return nil, nil // a broker makes them empty
	}
	if len(lines) < 2 || lines[0] != "0" || lines[1] != strconv.Itoa(len(lines)-2) {
		return nil, fmt.Errorf("%w: offset checkpoint of %d lines", segment.ErrFormat, len(lines))
	}
	out := make(map[string]int64, len(lines)-2)
	for _, line := range lines[2:] {
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, fmt.Errorf("%w: offset checkpoint line %q", segment.ErrFormat, line)
		}
		offset, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%w: offset checkpoint line %q", segment.ErrFormat, line)
		}
		out[f[0]+"-"+f[1]] = offset
	}
	return out, nil
}

// KafkaStarts reads the log start offsets of a log directory of Kafka's; nil when it says none.
func KafkaStarts(fsys vfs.FS, p *Place) (map[string]int64, error) {
	for _, f := range p.Checkpoints {
		if filepath.Base(f.Path) == "log-start-offset-checkpoint" {
			text, err := vfs.ReadFile(fsys, f.Path)
			if err != nil {
				return nil, err
			}
			return DecodeOffsetCheckpoint(text)
		}
	}
	return nil, nil
}
