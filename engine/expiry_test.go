package engine

import (
	"context"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/segment/batch"
)

// producer.id.expiration.ms holds, also when it is changed while the broker runs.
func TestIdleProducersAreForgotten(t *testing.T) {
	e := openEngine(t, t.TempDir(), map[string]string{"producer.id.expiration.ms": "3600000"})
	p := partitionOf(e, createTopic(t, e, "orders", 1, nil), 0)
	send := func(producerID int64, age time.Duration) {
		t.Helper()
		b := batch.NewBuilder(batch.BuilderOptions{Idempotent: true, ProducerID: producerID})
		b.Append(time.Now().Add(-age).UnixMilli(), nil, []byte("x"), nil)
		records, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan ProduceResult, 1)
		p.Produce(t.Context(), Produce{Records: records, Acks: -1, RequestVersion: 9}, func(r ProduceResult) { done <- r })
		if r := <-done; r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	remembered := func() int {
		t.Helper()
		list, err := p.Producers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	send(1, 50*time.Minute)
	send(2, time.Minute)
	if n := remembered(); n != 2 {
		t.Errorf("%d producers are remembered, want 2", n)
	}
	result, err := e.Catalog().Propose(context.Background(), catalog.AlterConfigs{Base: e.Image().Version(), Changes: []catalog.ConfigChange{{
		Type: catalog.ResourceBroker, Configs: map[string]string{"producer.id.expiration.ms": "1800000"},
	}}})
	if err != nil || result.Errors[0] != nil {
		t.Fatal(err, result.Errors)
	}
	if n := remembered(); n != 1 {
		t.Errorf("%d producers are remembered with a shorter setting, want 1", n)
	}
}
