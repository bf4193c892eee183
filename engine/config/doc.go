// Package config knows Kafka's configuration keys: their names, types, defaults,
// bounds and the words in which Kafka refuses a wrong value.
//
// [ParseBroker] turns the properties of a server.properties file into a [Broker],
// whose fields the rest of millrace reads. A Broker is immutable; dynamic configs
// make a new one with [Broker.WithDynamic]. [Broker.Topic] gives the effective
// configs of one topic, and the Describe methods list what a DescribeConfigs request
// is answered with.
//
// Every key says in its [Flags] whether it is honoured. A key that is not is still
// accepted, stored and described where that is harmless; a key that would promise
// something that is not there (encryption, authorisation, tiered storage) is refused.
package config
