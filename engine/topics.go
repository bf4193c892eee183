package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strconv"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/engine/config"
)

// Kafka's bounds on one request.
const (
	maxNewPartitions = 10_000 // partitions of all topics together
	maxNewRecords    = 10_000 // topics, configs and partitions together
)

const (
	tooManyPartitions = "Excessively large number of partitions per request."
	tooManyRecords    = "Unable to perform excessively large batch operation."
)

// Topics administers topics and configs by Kafka's rules. It needs the catalogue
// and the configuration only; whoever holds partitions follows the catalogue.
type Topics struct {
	catalog Metadata
	config  func() *config.Broker
	nodeID  int32
	dirs    func(count int) []catalog.DirID // chooses this node's log directories for new partitions; nil for none
}

// Topics is the administration of topics and configs.
func (e *Engine) Topics() Topics {
	return Topics{catalog: e.catalog, config: e.Config, nodeID: e.NodeID(), dirs: e.chooseDirs}
}

// NewTopic is a topic that a client wants.
type NewTopic struct {
	Name              string
	Partitions        int32 // -1: num.partitions
	ReplicationFactor int16 // -1: default.replication.factor
	Assignments       []Assignment
	Configs           []ConfigValue
}

// Assignment is where a client wants a partition to lie.
type Assignment struct {
	Partition int32
	Replicas  []int32
}

// ConfigValue is a key and the value that a client sent for it, nil for null.
type ConfigValue struct {
	Name  string
	Value *string
}

// CreatedTopic is what became of a [NewTopic].
type CreatedTopic struct {
	Name              string
	ID                catalog.TopicID
	Partitions        int32
	ReplicationFactor int16
	Configs           []config.Entry // every key, in the order of the names
	Err               error
}

// Create creates topics, all of them in one change, or with validateOnly says
// what would become of them. It returns once the topics can be used, or ctx ends; in
// that case they may still come into being. Results are in the order of the
// topics; those named more than once come last, once each.
func (t Topics) Create(ctx context.Context, topics []NewTopic, validateOnly bool) []CreatedTopic {
	topics, results := setRepeatedAside(topics)
	created := make([]CreatedTopic, len(topics))
	open := make([]int, len(topics))
	for i := range open {
		open[i] = i
	}
	tooMuch := exceeds(topics, t.config())
	exists := func(image *catalog.Image) bool {
		return slices.ContainsFunc(topics, func(n NewTopic) bool { return image.Topic(n.Name) != nil })
	}
	for image := t.settled(ctx, exists); len(open) > 0; image = t.catalog.Image() {
		broker := t.config()
		command, planned := catalog.CreateTopics{}, []int{}
		for _, i := range open {
			plan, err := catalog.NewTopic{}, tooMuch
			if err == nil {
				plan, err = t.planTopic(image, broker, topics[i])
			}
			if err != nil {
				created[i] = CreatedTopic{Name: topics[i].Name, Err: err}
				continue
			}
			created[i] = CreatedTopic{
				Name: plan.Name, ID: plan.ID, Partitions: int32(len(plan.Partitions)), ReplicationFactor: int16(len(plan.Partitions[0].Replicas)),
				Configs: broker.DescribeNewTopic(plan.Configs),
			}
			command.Topics = append(command.Topics, plan)
			planned = append(planned, i)
		}
		open = nil
		for n, err := range t.commitTopics(ctx, command, validateOnly) {
			i := planned[n]
			switch {
			case errors.Is(err, catalog.ErrConflict): // a broker was fenced meanwhile
				open = append(open, i)
			case err != nil:
				created[i] = CreatedTopic{Name: created[i].Name, Err: err}
			}
		}
	}
	return append(created, results...)
}

// commitTopics proposes planned topics and returns an error for each of them.
func (t Topics) commitTopics(ctx context.Context, command catalog.CreateTopics, validateOnly bool) []error {
	errs := make([]error, len(command.Topics))
	fill := func(err error) []error {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	records := 0
	for _, plan := range command.Topics {
		records += 1 + len(plan.Configs) + len(plan.Partitions)
	}
	switch {
	case records > maxNewRecords:
		return fill(refuse(ErrTooMuchAtOnce, tooManyRecords))
	case validateOnly || len(errs) == 0:
		return errs
	}
	result, err := t.catalog.Propose(ctx, command)
	if err != nil {
		return fill(proposalError(err))
	}
	for i, err := range result.Errors {
		if errors.Is(err, catalog.ErrTopicExists) {
			err = topicExists(command.Topics[i].Name)
		}
		errs[i] = err
	}
	return errs
}

// proposalError turns the failure of a whole proposal into words for a client.
func proposalError(err error) error {
	if errors.Is(err, catalog.ErrTooLarge) {
		return refuse(ErrTooMuchAtOnce, tooManyRecords)
	}
	return err
}

func topicExists(name string) error {
	return refuse(ErrTopicExists, fmt.Sprintf("Topic '%s' already exists.", name))
}

// setRepeatedAside takes out topics that are named more than once, and the one
// whose name Kafka keeps to itself, and makes their results.
func setRepeatedAside(topics []NewTopic) (single []NewTopic, aside []CreatedTopic) {
	count := map[string]int{}
	for _, topic := range topics {
		count[topic.Name]++
	}
	for _, topic := range topics {
		switch {
		case count[topic.Name] == 0: // its result is made
		case count[topic.Name] > 1:
			count[topic.Name] = 0
			aside = append(aside, CreatedTopic{Name: topic.Name, Err: refuse(ErrInvalidRequest, "Duplicate topic name.")})
		case topic.Name == MetadataTopic:
			aside = append(aside, CreatedTopic{Name: topic.Name, Err: refuse(ErrInvalidRequest, "Creation of internal topic "+MetadataTopic+" is prohibited.")})
		default:
			single = append(single, topic)
		}
	}
	return single, aside
}

// exceeds judges the number of partitions of a whole request, before anything is made of it.
func exceeds(topics []NewTopic, broker *config.Broker) error {
	total := int64(0)
	for _, topic := range topics {
		switch {
		case len(topic.Assignments) > 0:
			total += int64(len(topic.Assignments))
		case topic.Partitions == -1:
			total += int64(broker.NumPartitions)
		default:
			total += max(int64(topic.Partitions), 0)
		}
	}
	if total > maxNewPartitions {
		return refuse(ErrTooMuchAtOnce, tooManyPartitions)
	}
	return nil
}

// planTopic judges one topic and draws what has to be drawn.
func (t Topics) planTopic(image *catalog.Image, broker *config.Broker, topic NewTopic) (catalog.NewTopic, error) {
	plan := catalog.NewTopic{Name: topic.Name, ID: newTopicID()}
	if err := CheckTopicName(topic.Name); err != nil {
		return plan, err
	}
	if image.Topic(topic.Name) != nil {
		return plan, topicExists(topic.Name)
	}
	if other := collision(image, topic.Name); other != nil {
		return plan, refuse(ErrInvalidTopicName, fmt.Sprintf("Topic '%s' collides with existing topic: %s", topic.Name, other.Name))
	}
	var err error
	if plan.Configs, err = newConfigs(broker, topic.Configs); err != nil {
		return plan, err
	}
	if len(topic.Assignments) > 0 {
		plan.Partitions, err = t.placeAsAssigned(image, topic)
	} else {
		plan.Partitions, err = t.placeNew(image, broker, topic)
	}
	t.chooseDirs(plan.Partitions)
	return plan, err
}

// chooseDirs chooses the log directories of those replicas that are to lie on this node.
func (t Topics) chooseDirs(partitions []catalog.Partition) {
	if t.dirs == nil {
		return
	}
	chosen := t.dirs(len(partitions))
	for i := range chosen {
		p := &partitions[i]
		if at := slices.Index(p.Replicas, t.nodeID); at >= 0 {
			p.Dirs = make([]catalog.DirID, len(p.Replicas))
			p.Dirs[at] = chosen[i]
		}
	}
}

// newConfigs judges the configs of a new topic. Of a key that comes twice the last counts.
func newConfigs(broker *config.Broker, values []ConfigValue) (map[string]string, error) {
	configs, null := map[string]string{}, ""
	for _, v := range values {
		if v.Value == nil {
			null += "," + v.Name
			continue
		}
		configs[v.Name] = *v.Value
	}
	if null != "" {
		return nil, refuse(ErrInvalidConfig, "Null value not supported for topic configs: "+null[1:])
	}
	if err := broker.ValidateTopic(configs); err != nil {
		return nil, refuse(ErrInvalidConfig, err.Error())
	}
	if len(configs) == 0 {
		return nil, nil
	}
	return configs, nil
}

// placeNew chooses the brokers of a new topic's partitions.
func (t Topics) placeNew(image *catalog.Image, broker *config.Broker, topic NewTopic) ([]catalog.Partition, error) {
	switch {
	case topic.ReplicationFactor < -1 || topic.ReplicationFactor == 0:
		return nil, refuse(ErrInvalidReplicationFactor, "Replication factor must be larger than 0, or -1 to use the default value.")
	case topic.Partitions < -1 || topic.Partitions == 0:
		return nil, refuse(ErrInvalidPartitions, "Number of partitions was set to an invalid non-positive value.")
	}
	count, factor := topic.Partitions, topic.ReplicationFactor
	if count == -1 {
		count = broker.NumPartitions
	}
	if factor == -1 {
		factor = broker.DefaultReplicationFactor
	}
	partitions, why := t.place(image, int(count), int(factor))
	if why != "" {
		return nil, refuse(ErrInvalidReplicationFactor, fmt.Sprintf("Unable to replicate the partition %d time(s): %s", factor, why))
	}
	return partitions, nil
}

// place chooses brokers for partitions, or says why it cannot.
func (t Topics) place(image *catalog.Image, count, factor int) (partitions []catalog.Partition, why string) {
	p := newPlacer(mathrand.New(mathrand.NewPCG(mathrand.Uint64(), mathrand.Uint64())), candidates(image, t.nodeID), factor)
	if why := p.check(); why != "" {
		return nil, why
	}
	partitions = make([]catalog.Partition, count)
	for i := range partitions {
		partitions[i] = partitionOn(image, p.next())
	}
	return partitions, ""
}

// assigned takes the replicas that a client wants for one partition; factor is how many the
// partitions before it have, 0 when there is none.
func (t Topics) assigned(image *catalog.Image, partition int32, replicas []int32, factor int) (catalog.Partition, error) {
	if err := checkReplicas(t.registered(image), replicas, factor); err != nil {
		return catalog.Partition{}, err
	}
	p := partitionOn(image, replicas)
	if len(p.ISR) == 0 {
		return p, refuse(ErrInvalidAssignment, fmt.Sprintf("All brokers specified in the manual partition assignment for partition %d are fenced or in controlled shutdown.", partition))
	}
	return p, nil
}

// registered are the brokers that may be named for partitions: this one where none has registered.
func (t Topics) registered(image *catalog.Image) []int32 {
	if len(image.Brokers()) == 0 {
		return []int32{t.nodeID}
	}
	var ids []int32
	for _, b := range image.Brokers() {
		ids = append(ids, b.ID)
	}
	return ids
}

// brokers are the nodes that are known: this one is always there.
func (t Topics) brokers(image *catalog.Image) []int32 {
	ids := []int32{t.nodeID}
	for _, b := range image.Brokers() {
		if b.ID != t.nodeID {
			ids = append(ids, b.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// placeAsAssigned takes the placement that the client sent.
func (t Topics) placeAsAssigned(image *catalog.Image, topic NewTopic) ([]catalog.Partition, error) {
	switch {
	case topic.ReplicationFactor != -1:
		return nil, refuse(ErrInvalidRequest, "A manual partition assignment was specified, but replication factor was not set to -1.")
	case topic.Partitions != -1:
		return nil, refuse(ErrInvalidRequest, "A manual partition assignment was specified, but numPartitions was not set to -1.")
	}
	factor := 0
	byPartition := map[int32]catalog.Partition{}
	for _, a := range topic.Assignments {
		if _, found := byPartition[a.Partition]; found {
			return nil, refuse(ErrInvalidAssignment, fmt.Sprintf("Found multiple manual partition assignments for partition %d", a.Partition))
		}
		p, err := t.assigned(image, a.Partition, a.Replicas, factor)
		if err != nil {
			return nil, err
		}
		factor = len(a.Replicas)
		byPartition[a.Partition] = p
	}
	partitions := make([]catalog.Partition, len(byPartition))
	for i := range partitions {
		p, found := byPartition[int32(i)]
		if !found {
			return nil, refuse(ErrInvalidAssignment, "partitions should be a consecutive 0-based integer sequence")
		}
		partitions[i] = p
	}
	return partitions, nil
}

// checkReplicas judges the replicas that a client wants for one partition; factor
// is how many the partitions before it have, 0 when there is none.
func checkReplicas(brokers, replicas []int32, factor int) error {
	invalid := func(format string, args ...any) error {
		return refuse(ErrInvalidAssignment, "The manual partition assignment includes "+fmt.Sprintf(format, args...))
	}
	if len(replicas) == 0 {
		return invalid("an empty replica list.")
	}
	sorted := slices.Sorted(slices.Values(replicas))
	for i, id := range sorted {
		if !slices.Contains(brokers, id) {
			return invalid("broker %d, but no such broker is registered.", id)
		}
		if i > 0 && sorted[i-1] == id {
			return invalid("the broker %d more than once.", id)
		}
	}
	if factor != 0 && len(replicas) != factor {
		return invalid("a partition with %d replica(s), but this is not consistent with previous partitions, which have %d replica(s).", len(replicas), factor)
	}
	return nil
}

// AutoCreate creates topics that clients asked for by name, with the broker's
// defaults. An internal topic gets the form that it must have.
func (t Topics) AutoCreate(ctx context.Context, names []string) []CreatedTopic {
	topics := make([]NewTopic, len(names))
	for i, name := range names {
		topics[i] = NewTopic{Name: name, Partitions: -1, ReplicationFactor: -1}
		if name == OffsetsTopic {
			topics[i] = t.offsetsTopic()
		}
	}
	return t.Create(ctx, topics, false)
}

// offsetsTopic is the form of __consumer_offsets. It takes as many replicas as there
// are brokers, up to offsets.topic.replication.factor, so that groups work on a single node.
func (t Topics) offsetsTopic() NewTopic {
	broker := t.config()
	value := func(s string) *string { return &s }
	return NewTopic{
		Name:              OffsetsTopic,
		Partitions:        broker.OffsetsTopicPartitions,
		ReplicationFactor: min(broker.OffsetsTopicReplication, int16(len(t.brokers(t.catalog.Image())))),
		Configs: []ConfigValue{
			{"cleanup.policy", value("compact")},
			{"compression.type", value("producer")},
			{"segment.bytes", value(strconv.Itoa(broker.OffsetsTopicSegmentBytes))},
		},
	}
}

func newTopicID() catalog.TopicID {
	for {
		var id catalog.TopicID
		rand.Read(id[:]) // never fails
		// One that begins with a dash would look like a flag on a command line.
		if id.String()[0] != '-' {
			return id
		}
	}
}
