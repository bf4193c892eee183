// Package source reads what is to be taken over into a millrace directory: topics with their ids, settings, partitions and records,
// and the offsets of consumer groups, as they lie in log directories of Apache Kafka's or of millrace's own that no server holds.
//
//	Find     paths → a Source: which topics there are, and what is known of them
//	Check    reads every batch of a partition: its offsets, what is damaged, which transactions were not committed
//	Open     the same batches once more, without those: an engine.BatchSource
//
// Nothing is written. What cannot be taken over is told in [Source.Notes], in words for people.
package source
