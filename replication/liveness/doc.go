// Package liveness is the life of brokers in a cluster: each registers itself, says several times a second
// that it is there, and takes its leave; the node that leads the metadata fences those of whom it hears nothing.
//
//   - [Judge] is a pure state machine: who has been heard when, and whose lease has run out.
//   - [Broker] is this node's own part: registration, heartbeats, readiness, controlled shutdown.
//   - [Warden] judges the others while this node leads.
//
// What follows from a fenced broker, new leaders above all, is decided in engine/catalog, in the same command.
package liveness
