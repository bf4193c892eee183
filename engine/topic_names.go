package engine

import (
	"fmt"
	"strings"

	"github.com/millrace/millrace/engine/catalog"
)

// maxTopicName is the longest name of a topic: a folder's name has a partition
// number and an id beside it.
const maxTopicName = 249

// MetadataTopic is a name that Kafka keeps for its own metadata.
const MetadataTopic = "__cluster_metadata"

// CheckTopicName judges the name of a topic by Kafka's rules, in its words.
func CheckTopicName(name string) error {
	invalid := func(why string) error {
		return refuse(ErrInvalidTopicName, "Topic name is invalid: "+why)
	}
	switch {
	case name == "":
		return invalid("the empty string is not allowed")
	case name == "." || name == "..":
		return invalid(fmt.Sprintf("'%s' is not allowed", name))
	case len(name) > maxTopicName:
		return invalid(fmt.Sprintf("the length of '%s' is longer than the max allowed length %d", name, maxTopicName))
	case strings.ContainsFunc(name, illegalInTopicName):
		return invalid(fmt.Sprintf("'%s' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'", name))
	}
	return nil
}

func illegalInTopicName(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
		return false
	}
	return true
}

// collision finds a topic whose name differs from the given one only in dots and
// underscores: the two would have metrics of one name.
func collision(image *catalog.Image, name string) *catalog.Topic {
	if !strings.ContainsAny(name, "._") {
		return nil
	}
	same := strings.ReplaceAll(name, ".", "_")
	for t := range image.EachTopic() {
		if len(t.Name) == len(name) && t.Name != name && strings.ReplaceAll(t.Name, ".", "_") == same {
			return t
		}
	}
	return nil
}
