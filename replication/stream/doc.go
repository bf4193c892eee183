// Package stream carries records from the leaders of partitions to their followers: leaders push.
//
// Between two brokers there is one stream for all partitions that the one leads and the other follows, and a second one,
// bulk, while some are far behind. The leader's side is a [Push], the follower's a [Receiver], of which a
// broker has one. Connections come from outside ([Conn]); so do the logs ([Source], [Sink]), and the decisions about who
// leads what. A partition that is handed to Push.Lead is opened on whatever connection there is, now and after each
// reconnect: the follower says where its log ends and which epochs it has, is told to truncate to where the logs
// part, and gets what follows, batches as stored.
//
// The frames are drawn in frame.go.
package stream
