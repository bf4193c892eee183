// Package peer is how nodes of a cluster reach one another: one listener, a handshake that tells who is there and proves it,
// connections of several kinds, requests with answers, and raft's transport. It is the only room of replication that opens sockets.
//
// A [Hub] is one node's part. What is to be done with a connection of a kind is given to [Hub.Handle], what a request
// does to [Hub.Register]; [Hub.Dial] and [Hub.Call] reach others. The package knows nothing of what is said over its connections.
package peer
