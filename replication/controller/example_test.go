package controller_test

import (
	"context"

	"github.com/millrace/millrace/engine/catalog"
	"github.com/millrace/millrace/replication/controller"
)

// metadata is what the engine can hold: the catalogue of one node, or a controller.
type metadata interface {
	Image() *catalog.Image
	Propose(ctx context.Context, cmd catalog.Command) (catalog.Result, error)
	Subscribe(fn func(old, new *catalog.Image)) (stop func())
	Err() error
	Close() error
}

var (
	_ metadata = (*catalog.Catalog)(nil)
	_ metadata = (*controller.Controller)(nil)
)
