package server

import "github.com/millrace/millrace/engine"

// apisOf are those that an engine can answer.
func apisOf(e *engine.Engine) []*api {
	list := apis()
	if e.Quorum() != nil {
		list = append(list, &describeQuorum)
	}
	return list
}

// apis lists everything that is served always, in the order of the keys. ApiVersions
// answers with this list.
func apis() []*api {
	return []*api{
		&produce,
		&fetch,
		&listOffsets,
		&metadata,
		&offsetCommit,
		&offsetFetch,
		&findCoordinator,
		&joinGroup,
		&heartbeat,
		&leaveGroup,
		&syncGroup,
		&describeGroups,
		&listGroups,
		&saslHandshake,
		&apiVersions,
		&createTopics,
		&deleteTopics,
		&deleteRecords,
		&initProducerID,
		&offsetForLeaderEpoch,
		&describeACLs,
		&createACLs,
		&deleteACLs,
		&describeConfigs,
		&alterConfigs,
		&alterReplicaLogDirs,
		&describeLogDirs,
		&saslAuthenticate,
		&createPartitions,
		&deleteGroups,
		&electLeaders,
		&incrementalAlterConfigs,
		&alterPartitionReassignments,
		&listPartitionReassignments,
		&offsetDelete,
		&describeClientQuotas,
		&describeUserScramCredentials,
		&updateFeatures,
		&describeCluster,
		&describeProducers,
		&unregisterBroker,
		&listTransactions,
		&listConfigResources,
		&describeTopicPartitions,
	}
}
