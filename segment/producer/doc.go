// Package producer holds what one partition knows of its idempotent producers: who has written, at
// which epoch, and the last five batches of each, so that a batch sent twice is stored once and a
// batch that comes out of order is refused.
//
// It is a pure state machine. The owner of the partition calls Check before it appends a batch, Update when it
// does, and Undo, in reverse order, when the append then fails. Recovery calls Update alone: what is in the log
// has been checked. Nothing here locks; the owner does.
package producer
