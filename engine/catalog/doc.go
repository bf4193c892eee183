// Package catalog holds what exists and how it is configured: topics with their
// partitions and their leaders, brokers, dynamic configuration, finalised features and
// the producer ids handed out.
//
// It is one deterministic state machine. A [Command] says what is to change;
// [Apply] turns an [Image] and a command into the next image, without a clock, a
// random number, a disk or a lock, so the same commands give the same images on
// every machine. Whatever has to be drawn (topic ids, assignments) is drawn by
// the proposer and travels inside the command.
//
// In a cluster the commands of brokers.go, isr.go, elect.go and reassign.go are all that
// its controller decides: who is alive, in sync, elected, moved. Elections are part of
// the commands that make them necessary.
//
// [Catalog] drives the state machine on one node: it writes what a command
// changed into Badger in one synced transaction, then publishes the new image
// and tells the subscribers. Readers take [Catalog.Image] and hold it for as long as
// they like; they never wait for a writer.
package catalog
