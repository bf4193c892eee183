package server

// apis lists everything that is served, in the order of the keys. ApiVersions
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
		&apiVersions,
		&createTopics,
		&deleteTopics,
		&deleteRecords,
		&initProducerID,
		&offsetForLeaderEpoch,
		&describeConfigs,
		&alterConfigs,
		&describeLogDirs,
		&createPartitions,
		&deleteGroups,
		&incrementalAlterConfigs,
		&offsetDelete,
		&describeCluster,
		&describeProducers,
		&listConfigResources,
		&describeTopicPartitions,
	}
}
