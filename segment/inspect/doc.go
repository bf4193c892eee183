// Package inspect looks at a log directory without opening it: what lies there, whether it holds what
// was written, and what its records are. It reads millrace's own directories and Apache Kafka's,
// which keep their records in the same batches.
//
//	Find      a path → a Place: layout, partitions, segments, journal, what has no name that it knows
//	Batches   a .log file → its batches, front to back, in constant memory, past damage when asked
//
// Everything goes through a file system that is handed in, and nothing is written. Nothing is locked either: what a running server
// holds may change while it is read, and the caller, who sees Place.Held, decides what to make of that.
package inspect
