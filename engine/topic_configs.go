package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/engine/config"
)

// resourceLogger is the one kind of config resource that the catalogue does not
// know: the levels of a broker's loggers.
const resourceLogger catalog.ResourceType = 8

// ConfigOp says what to do with a key.
type ConfigOp int8

// The operations of IncrementalAlterConfigs, numbered as there.
const (
	OpSet ConfigOp = iota
	OpDelete
	OpAppend
	OpSubtract
)

// String is the operation's name in Kafka's messages.
func (op ConfigOp) String() string {
	switch op {
	case OpSet:
		return "SET"
	case OpDelete:
		return "DELETE"
	case OpAppend:
		return "APPEND"
	case OpSubtract:
		return "SUBTRACT"
	}
	return strconv.Itoa(int(op))
}

// ConfigEdit is one operation on one key.
type ConfigEdit struct {
	Name  string
	Op    ConfigOp
	Value *string
}

// ConfigResource names what configs belong to.
type ConfigResource struct {
	Type catalog.ResourceType
	Name string
}

// ConfigAlteration is what a client wants done to the configs of a resource.
type ConfigAlteration struct {
	ConfigResource
	Edits   []ConfigEdit
	Replace bool // keys that have no edit lose their value
}

// AlterConfigs changes the configs of resources, all of them in one change, and
// returns an error for each alteration. With validateOnly it only judges them.
func (t Topics) AlterConfigs(ctx context.Context, alterations []ConfigAlteration, validateOnly bool) []error {
	errs := make([]error, len(alterations))
	count := map[ConfigResource]int{}
	for _, a := range alterations {
		count[a.ConfigResource]++
	}
	var open []int
	for i, a := range alterations {
		if count[a.ConfigResource] > 1 {
			errs[i] = refuse(ErrInvalidRequest, "Each resource must appear at most once.")
		} else if errs[i] = t.checkAlteration(a); errs[i] == nil {
			open = append(open, i)
		}
	}
	missing := func(image *catalog.Image) bool {
		return slices.ContainsFunc(alterations, func(a ConfigAlteration) bool {
			return a.Type == catalog.ResourceTopic && image.Topic(a.Name) == nil
		})
	}
	for image := t.settled(ctx, missing); len(open) > 0; image = t.catalog.Image() {
		open = t.alterOnce(ctx, image, alterations, open, errs, validateOnly)
	}
	return errs
}

// alterOnce plans and proposes, and returns those whose resource has changed between the two.
func (t Topics) alterOnce(ctx context.Context, image *catalog.Image, alterations []ConfigAlteration, open []int, errs []error, validateOnly bool) (again []int) {
	command := catalog.AlterConfigs{Base: image.Version()}
	var planned []int
	for _, i := range open {
		a := alterations[i]
		configs, err := t.planConfigs(image, a)
		if errs[i] = err; err == nil {
			command.Changes = append(command.Changes, catalog.ConfigChange{Type: a.Type, Name: a.Name, Configs: configs})
			planned = append(planned, i)
		}
	}
	if validateOnly || len(planned) == 0 {
		return nil
	}
	result, err := t.catalog.Propose(ctx, command)
	for n, i := range planned {
		switch {
		case err != nil:
			errs[i] = proposalError(err)
		case errors.Is(result.Errors[n], catalog.ErrConflict):
			again = append(again, i)
		case errors.Is(result.Errors[n], catalog.ErrUnknownTopic):
			errs[i] = noSuchTopic(alterations[i].Name)
		default:
			errs[i] = result.Errors[n]
		}
	}
	return again
}

func noSuchTopic(name string) error {
	return refuse(ErrUnknownTopic, fmt.Sprintf("The topic '%s' does not exist.", name))
}

// checkAlteration judges what can be judged without knowing the present configs.
func (t Topics) checkAlteration(a ConfigAlteration) error {
	seen, null := map[string]bool{}, []string{}
	for _, e := range a.Edits {
		if seen[e.Name] {
			return refuse(ErrInvalidRequest, "Error due to duplicate config keys")
		}
		seen[e.Name] = true
		if e.Op < OpSet || e.Op > OpSubtract {
			return refuse(ErrInvalidRequest, fmt.Sprintf("Unknown operations type %d", e.Op))
		}
		if e.Value == nil && e.Op != OpDelete {
			null = append(null, e.Name)
		}
	}
	if len(null) > 0 {
		return refuse(ErrInvalidRequest, "Null value not supported for : "+strings.Join(null, ", "))
	}
	switch a.Type {
	case catalog.ResourceTopic:
		if a.Name == "" {
			return refuse(ErrInvalidRequest, "Default topic resources are not allowed.")
		}
		return CheckTopicName(a.Name)
	case catalog.ResourceGroup:
		if a.Name == "" {
			return refuse(ErrInvalidRequest, "Default group resources are not allowed.")
		}
	case catalog.ResourceBroker:
		if a.Name != "" {
			return t.checkNode(a.Name, "Node id must be an integer, but it is: %s", "Unexpected broker id, expected %d, but received %s")
		}
	case resourceLogger:
		if !a.Replace {
			return refuse(ErrInvalidRequest, "This broker has no loggers whose level can be changed.")
		}
		return unknownResource(a.Type)
	case catalog.ResourceClientMetrics:
		return refuse(ErrInvalidRequest, "This broker does not collect client metrics.")
	default:
		return unknownResource(a.Type)
	}
	return nil
}

func unknownResource(kind catalog.ResourceType) error {
	return refuse(ErrInvalidRequest, fmt.Sprintf("Unknown resource type %d", kind))
}

// checkNode judges the name of a broker resource, which is this node's number.
func (t Topics) checkNode(name, notNumber, notThis string) error {
	id, err := strconv.ParseInt(name, 10, 32)
	if err != nil {
		return refuse(ErrInvalidRequest, fmt.Sprintf(notNumber, name))
	}
	if int32(id) != t.nodeID {
		return refuse(ErrInvalidRequest, fmt.Sprintf(notThis, t.nodeID, name))
	}
	return nil
}

// planConfigs works out and judges the configs that a resource is to have.
func (t Topics) planConfigs(image *catalog.Image, a ConfigAlteration) (map[string]string, error) {
	now := image.Config(a.Type, a.Name)
	next := map[string]string{}
	if !a.Replace {
		maps.Copy(next, now)
	}
	for _, e := range a.Edits {
		switch e.Op {
		case OpSet:
			next[e.Name] = *e.Value
		case OpDelete:
			delete(next, e.Name)
		case OpAppend, OpSubtract:
			if !isList(a.Type, e.Name) {
				return nil, refuse(ErrInvalidConfig, fmt.Sprintf("Can't %s to key %s because its type is not LIST.", e.Op, e.Name))
			}
			text, found := now[e.Name]
			if !found {
				text = config.DefaultOf(a.Type == catalog.ResourceTopic, e.Name)
			}
			next[e.Name] = editList(text, e.Op, *e.Value)
		}
	}
	return next, t.judgeConfigs(image, a, next)
}

func (t Topics) judgeConfigs(image *catalog.Image, a ConfigAlteration, next map[string]string) error {
	broker := t.config()
	switch a.Type {
	case catalog.ResourceTopic:
		if err := broker.ValidateTopic(next); err != nil {
			return refuse(ErrInvalidConfig, err.Error())
		}
		if image.Topic(a.Name) == nil {
			return noSuchTopic(a.Name)
		}
	case catalog.ResourceGroup:
		if err := broker.ValidateGroup(next); err != nil {
			return refuse(ErrInvalidConfig, err.Error())
		}
	case catalog.ResourceBroker:
		if err := broker.ValidateDynamic(next, a.Name != ""); err != nil {
			return refuse(ErrInvalidRequest, err.Error())
		}
	}
	return nil
}

func isList(kind catalog.ResourceType, key string) bool {
	switch kind {
	case catalog.ResourceTopic:
		return config.IsTopicList(key)
	case catalog.ResourceBroker:
		return config.IsBrokerList(key)
	}
	return config.IsGroupList(key)
}

// editList adds elements to a list, or takes them out.
func editList(text string, op ConfigOp, elements string) string {
	list := slices.DeleteFunc(strings.Split(text, ","), func(s string) bool { return s == "" })
	for element := range strings.SplitSeq(elements, ",") {
		at := slices.Index(list, element)
		switch {
		case op == OpAppend && at < 0:
			list = append(list, element)
		case op == OpSubtract && at >= 0:
			list = slices.Delete(list, at, at+1)
		}
	}
	return strings.Join(list, ",")
}

// DescribeConfigs lists the configs of a resource by name, only those of the given
// keys when there are any.
func (t Topics) DescribeConfigs(resource ConfigResource, keys []string) ([]config.Entry, error) {
	entries, err := t.describe(resource)
	if err != nil || len(keys) == 0 {
		return entries, err
	}
	return slices.DeleteFunc(entries, func(e config.Entry) bool { return !slices.Contains(keys, e.Name) }), nil
}

func (t Topics) describe(resource ConfigResource) ([]config.Entry, error) {
	image, broker := t.catalog.Image(), t.config()
	switch resource.Type {
	case catalog.ResourceTopic:
		if err := CheckTopicName(resource.Name); err != nil {
			return nil, err
		}
		topic := image.Topic(resource.Name)
		if topic == nil {
			return nil, refuse(ErrUnknownTopic, "")
		}
		return broker.DescribeTopic(topic.Configs)
	case catalog.ResourceBroker:
		if resource.Name == "" {
			return broker.DescribeBrokerDefaults(), nil
		}
		if err := t.checkNode(resource.Name, "Broker id must be an integer, but it is: %s", "Unexpected broker id, expected %d or empty string, but received %s"); err != nil {
			return nil, err
		}
		return broker.DescribeBroker(), nil
	case catalog.ResourceGroup:
		if resource.Name == "" {
			return nil, refuse(ErrInvalidRequest, "Group name must not be empty")
		}
		return broker.DescribeGroup(image.Config(catalog.ResourceGroup, resource.Name))
	case catalog.ResourceClientMetrics:
		if resource.Name == "" {
			return nil, refuse(ErrInvalidRequest, "Client metrics subscription name must not be empty")
		}
		return nil, nil // nobody can have made a subscription
	case resourceLogger:
		return nil, refuse(ErrInvalidRequest, "This broker has no loggers that can be described.")
	}
	return nil, refuse(ErrInvalidRequest, "This most likely occurs because of a request being malformed by the client library "+
		"or the message was sent to an incompatible broker. See the broker logs for more details.")
}

// listed are the kinds of resources in a list that names no kinds, in Kafka's order.
var listed = []catalog.ResourceType{catalog.ResourceGroup, catalog.ResourceClientMetrics, resourceLogger, catalog.ResourceBroker, catalog.ResourceTopic}

// ListConfigResources lists the resources that configs can be asked for. known
// is false when one of the kinds is not.
func (t Topics) ListConfigResources(kinds []catalog.ResourceType) (resources []ConfigResource, known bool) {
	for _, kind := range kinds {
		if !slices.Contains(listed, kind) {
			return nil, false
		}
	}
	image := t.catalog.Image()
	for _, kind := range listed {
		if len(kinds) > 0 && !slices.Contains(kinds, kind) {
			continue
		}
		switch kind {
		case catalog.ResourceTopic:
			for _, topic := range image.Topics() {
				resources = append(resources, ConfigResource{kind, topic.Name})
			}
		case catalog.ResourceBroker:
			for _, id := range t.brokers(image) {
				resources = append(resources, ConfigResource{kind, strconv.Itoa(int(id))})
			}
		case catalog.ResourceGroup:
			for _, name := range image.ConfigNames(kind) {
				resources = append(resources, ConfigResource{kind, name})
			}
		}
	}
	return resources, true
}
