package inspect

import "fmt"

// Severity says what a Finding means.
type Severity int

// The severities.
const (
	Note   Severity = iota // worth knowing, and nothing is wrong
	Harm                   // something is not what was written, or is missing
	Untold                 // it could not be read, or is of a later version
)

// String is the severity's name.
func (s Severity) String() string { return [...]string{"note", "damage", "unknown"}[s] }

// Finding is something that Verify has to say about a place.
type Finding struct {
	Severity    Severity
	Partition   string // TOPIC-PARTITION, "" when it is about none
	File        string
	Position    int64  // in the file, -1: the file as a whole
	Bytes       int64  // how many of the file's, 0: none in particular
	FirstOffset int64  // the offsets that are not there, or not readable; -1: none
	LastOffset  int64  // … up to and with this one; -1: nobody knows how far
	What        string // one of segment's sentences, which a server says too when it opens the directory
	Found       string // what exactly was met
	After       int64  // records of the partition that are intact and lie behind the position
}

// Lost is how many offsets are missing or cannot be read, 0 when nobody knows.
func (f Finding) Lost() int64 {
	if f.FirstOffset < 0 || f.LastOffset < f.FirstOffset {
		return 0
	}
	return f.LastOffset - f.FirstOffset + 1
}

// String is the finding on one line.
func (f Finding) String() string {
	s := f.Severity.String() + ": " + f.File
	if f.Position >= 0 {
		s += fmt.Sprintf(" at byte %d", f.Position)
	}
	s += ": " + f.What
	if f.FirstOffset >= 0 {
		s += fmt.Sprintf(" [offset %d", f.FirstOffset)
		switch {
		case f.LastOffset < f.FirstOffset:
			s += " and on"
		case f.LastOffset > f.FirstOffset:
			s += fmt.Sprintf(" to %d", f.LastOffset)
		}
		s += "]"
	}
	if f.Found != "" {
		s += " (" + f.Found + ")"
	}
	return s
}
