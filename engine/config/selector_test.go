package config

import (
	"errors"
	"testing"
)

// TestReplicaSelector: there is Kafka's one class, or none.
func TestReplicaSelector(t *testing.T) {
	for text, want := range map[string]bool{"": false, RackAwareSelector: true} {
		b, _, err := ParseBroker(map[string]string{"replica.selector.class": text})
		if err != nil || b.RackAwareReads != want {
			t.Errorf("%q: %v", text, err)
		}
	}
	var refused *RefusedError
	if _, _, err := ParseBroker(map[string]string{"replica.selector.class": "com.example.Mine"}); !errors.As(err, &refused) {
		t.Errorf("another class: %v", err)
	}
}
