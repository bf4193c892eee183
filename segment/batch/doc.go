// Package batch reads, checks and builds Kafka's record batches, the unit that is written,
// checksummed, replicated and served. It is pure: bytes in, bytes or errors out.
//
// Reading goes from cheap to thorough: ReadHeader looks at the shape, Check adds the CRC, Records
// walks the records (decompressing with a bound), and Admit does everything that a broker must do
// with a batch that a client produced. Splitting a run of batches is a loop over Check or All.
// Builder makes a batch from records.
//
// Slices that come out of a batch (keys, values, headers) point into its bytes, or into a buffer of
// the iterator that is reused by the next step: copy what must outlive the step.
package batch
