package catalog

import "maps"

// FeatureELR is the feature of eligible leader replicas (KIP-966): 1 keeps them, 0 does not.
const FeatureELR = "eligible.leader.replicas.version"

// FeatureRange is the levels of a feature that a broker supports.
type FeatureRange struct {
	Name     string
	Min, Max int16
}

// initialLevels hold where nothing has been finalised: those of a new cluster of Kafka 4.3.
var initialLevels = map[string]int16{FeatureELR: 1}

// Features are the finalised levels. The map must not be changed.
func (img *Image) Features() map[string]int16 { return img.features }

// Feature is a feature's level: the finalised one, else that of a new cluster.
func (img *Image) Feature(name string) int16 {
	if level, found := img.features[name]; found {
		return level
	}
	return initialLevels[name]
}

// SetFeatures finalises levels of features (Kafka's UpdateFeatures): all of them or, when one is refused, none.
// The proposer has made sure that it knows the features itself.
type SetFeatures struct{ Updates []FeatureUpdate }

// FeatureUpdate finalises one level. It is refused with ErrFeatureUpdate when the level is negative, or a change
// goes the other way than Downgrade says; ErrUnsupportedFeature, when a broker does not support it;
// ErrNotApplied, when another item was refused.
type FeatureUpdate struct {
	Name      string
	Level     int16
	Downgrade bool `json:",omitempty"` // the level is lower
}

func (b *Broker) supports(name string, level int16) bool {
	for _, f := range b.Features {
		if f.Name == name {
			return f.Min <= level && level <= f.Max
		}
	}
	return level == 0
}

func (d *draft) setFeatures(c SetFeatures) []error {
	refused := false
	errs := each(c.Updates, func(u FeatureUpdate) error {
		err := d.checkFeature(u)
		refused = refused || err != nil
		return err
	})
	if refused {
		for i, err := range errs {
			if err == nil {
				errs[i] = ErrNotApplied
			}
		}
		return errs
	}
	features := maps.Clone(d.features)
	if features == nil {
		features = map[string]int16{}
	}
	for _, u := range c.Updates {
		features[u.Name] = u.Level
	}
	if !maps.Equal(features, d.features) {
		d.features = features
		d.note(Event{Kind: FeaturesChanged})
		d.sweep(func(p *Partition) bool { return p.Leader == nobody || len(p.ELR) > 0 }, asItIs)
	}
	return errs
}

func (d *draft) checkFeature(u FeatureUpdate) error {
	have := d.Feature(u.Name)
	if u.Name == "" || u.Level < 0 || u.Level < have && !u.Downgrade || u.Level > have && u.Downgrade {
		return ErrFeatureUpdate
	}
	for i := range d.brokers {
		if !d.brokers[i].supports(u.Name, u.Level) {
			return ErrUnsupportedFeature
		}
	}
	return nil
}
