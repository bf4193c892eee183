package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/millrace/millrace/engine/catalog"
)

// SupportedFeatures are the features of this version whose levels can be finalised, by name. A broker names them when it registers.
func SupportedFeatures() []catalog.FeatureRange {
	return []catalog.FeatureRange{{Name: catalog.FeatureELR, Min: 0, Max: 1}}
}

// UpgradeType says which way a feature's level may go. The numbers are those of Kafka's protocol.
type UpgradeType int8

// The ways that a level may go.
const (
	Upgrade         UpgradeType = 1
	SafeDowngrade   UpgradeType = 2
	UnsafeDowngrade UpgradeType = 3
)

// FeatureUpdate is the level that a client wants finalised.
type FeatureUpdate struct {
	Name  string
	Level int16
	Type  UpgradeType
}

// UpdateFeatures finalises levels of features, all or none; with validateOnly it only judges them. It is refused with
// catalog.ErrFeatureUpdate. It waits for the catalogue until ctx ends.
func (t Topics) UpdateFeatures(ctx context.Context, updates []FeatureUpdate, validateOnly bool) error {
	image := t.catalog.Image()
	var command catalog.SetFeatures
	for _, u := range updates {
		if why := t.checkFeature(image, u); why != "" {
			return featureError(u, why)
		}
		command.Updates = append(command.Updates, catalog.FeatureUpdate{Name: u.Name, Level: u.Level, Downgrade: u.Level < image.Feature(u.Name)})
	}
	if validateOnly || len(command.Updates) == 0 {
		return nil
	}
	result, err := t.catalog.Propose(ctx, command)
	if err != nil {
		return proposalError(err)
	}
	for i, err := range result.Errors {
		if err != nil && !errors.Is(err, catalog.ErrNotApplied) { // it was good a moment ago
			return featureError(updates[i], "Features or brokers have changed meanwhile.")
		}
	}
	return nil
}

func featureError(u FeatureUpdate, why string) error {
	return refuse(catalog.ErrFeatureUpdate, fmt.Sprintf("Invalid update version %d for feature %s. %s", u.Level, u.Name, why))
}

// checkFeature says in Kafka's words why a level cannot be finalised, "" when it can.
func (t Topics) checkFeature(image *catalog.Image, u FeatureUpdate) string {
	switch {
	case u.Type < Upgrade || u.Type > UnsafeDowngrade:
		return "The controller does not support the given upgrade type."
	case u.Level < 0:
		return "A feature version cannot be less than 0."
	}
	var here []catalog.FeatureRange // a node that is alone has nothing to finalise
	if len(image.Brokers()) > 0 {
		here = SupportedFeatures()
	}
	if why := notSupported(here, u, "Local controller "+strconv.Itoa(int(t.nodeID))); why != "" {
		return why
	}
	for _, b := range image.Brokers() {
		if why := notSupported(b.Features, u, "Broker "+strconv.Itoa(int(b.ID))); why != "" {
			return why
		}
	}
	switch have := image.Feature(u.Name); {
	case u.Level < have && u.Type == Upgrade:
		return "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe downgrade."
	case u.Level > have && u.Type != Upgrade:
		return "Can't downgrade to a newer version."
	}
	if !slices.ContainsFunc(here, func(r catalog.FeatureRange) bool { return r.Name == u.Name }) {
		return "Feature " + u.Name + " not found."
	}
	return ""
}

func notSupported(ranges []catalog.FeatureRange, u FeatureUpdate, who string) string {
	at := slices.IndexFunc(ranges, func(r catalog.FeatureRange) bool { return r.Name == u.Name })
	switch {
	case at < 0 && u.Level == 0: // who does not know it has it at 0
		return ""
	case at < 0:
		return who + " does not support this feature."
	}
	r := ranges[at]
	if u.Level >= r.Min && u.Level <= r.Max {
		return ""
	}
	return fmt.Sprintf("%s only supports versions %d-%d", who, r.Min, r.Max)
}

// UnregisterBroker forgets a broker, which stays among the replicas of its partitions. catalog.ErrUnknownBroker when none is registered
// under the id. It waits for the catalogue until ctx ends.
func (t Topics) UnregisterBroker(ctx context.Context, id int32) error {
	result, err := t.catalog.Propose(ctx, catalog.UnregisterBroker{ID: id})
	if err != nil {
		return proposalError(err)
	}
	if errors.Is(result.Errors[0], catalog.ErrUnknownBroker) {
		return refuse(catalog.ErrUnknownBroker, fmt.Sprintf("Broker ID %d is not currently registered", id))
	}
	return result.Errors[0]
}

// syncer is metadata that other nodes change too.
type syncer interface {
	// Sync returns when the image shows everything that had been acknowledged, by whatever node, before it was called.
	Sync(ctx context.Context) error
}

// settled is an image to judge a request on. When what it shows is in doubt, as other nodes may have changed that a moment
// ago, it is brought up to date first, so that a client may send one request to one broker and the next to another. When that fails the
// image stays as it is.
func (t Topics) settled(ctx context.Context, doubt func(*catalog.Image) bool) *catalog.Image {
	image := t.catalog.Image()
	if s, several := t.catalog.(syncer); several && doubt(image) && s.Sync(ctx) == nil {
		return t.catalog.Image()
	}
	return image
}
