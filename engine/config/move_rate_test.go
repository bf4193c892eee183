package config

import (
	"math"
	"testing"
)

func TestMoveBytesPerSecond(t *testing.T) {
	b, _, err := ParseBroker(map[string]string{"log.dirs": "a"})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		own, all string
		want     int64
	}{{"", "", math.MaxInt64}, {"5", "", 5}, {"", "7", 7}, {"5", "7", 5}, {"x", "7", math.MaxInt64}, {"-1", "", math.MaxInt64}, {"0", "", 0}} {
		layer := func(text string) map[string]string {
			if text == "" {
				return nil
			}
			return map[string]string{moveRate: text}
		}
		next, err := b.WithDynamic(layer(test.own), layer(test.all))
		if err != nil {
			t.Fatal(err)
		}
		if have := next.MoveBytesPerSecond(); have != test.want {
			t.Errorf("%+v: %d", test, have)
		}
	}
}
