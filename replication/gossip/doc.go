// Package gossip tells which nodes are there, and hints at those that have gone: hashicorp/memberlist over a hub's UDP socket and its connections of
// kind Gossip. It finds all nodes from the address of one. It decides nothing: who belongs to the cluster is in the catalogue, and
// who is alive is judged by the controller.
package gossip
