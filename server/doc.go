// Package server speaks the Kafka protocol: it listens, reads frames within a
// memory budget, decodes requests, lets the engine do the work and writes the
// responses in the order of the requests.
//
// There is one file per API, with the API's key in its name; the list in apis.go
// is what the server offers, and the ApiVersions answer is computed from it.
// The way of a request is: server.go (accept) → conn.go (reader) → frame.go
// (bytes to header and body) → shape.go (is the body what it says it is) → the
// API's own file → conn.go or pipeline.go (writer).
package server
