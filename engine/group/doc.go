// Package group is the classic consumer group as a state machine without a clock, a disk or a socket,
// and the codec of the records that __consumer_offsets holds.
//
// A Group takes one Event at one instant and says what should happen:
//
//	effects := g.Step(now, group.Heartbeat{…})
//	effects.Replies   // answers that may be sent at once, each by the token of the request
//	effects.Writes    // records to append; report each outcome with g.Step(now, Written{…})
//	effects.Notes     // what an operator may want to read in the log
//
// Whatever an answer depends on is not in Replies but comes out of the Step for Written, so a commit
// cannot be acknowledged before its record is durable. Committed offsets change only then, in the order
// of the log; membership changes at once, as in Kafka, because a rebalance is not stored until it ends.
//
// Time enters as an argument. Wake tells by when the next Tick is wanted; a deadline that moves later
// (a heartbeat) leaves Wake alone, and the Tick that comes too early only computes a new one.
//
//	             join                      all joined, or time is up
//	Empty ----------------> PreparingRebalance ---------------> CompletingRebalance
//	  ^                       |    ^       ^                        |        |
//	  |   nobody joined       |    |       | join, leave, expiry    |        | the leader's
//	  +-----------------------+    |       +------------------------+        | assignment is
//	  |                            |                                         v durable
//	  |                            +-------------------------------------- Stable
//	  v                               join with new metadata, leave, expiry
//	Dead (deleted, or expired)
package group
