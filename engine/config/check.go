package config

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// check judges a parsed value. It returns the value as Kafka's message shows it
// and what is wrong with it, "" when nothing is.
type check func(key string, v value) (shown, reason string)

func atLeast(low float64) check {
	return func(_ string, v value) (string, string) {
		if number(v) < low {
			return format(v), "Value must be at least " + bound(low)
		}
		return "", ""
	}
}

func between(low, high float64) check {
	return func(_ string, v value) (string, string) {
		switch n := number(v); {
		case n < low:
			return format(v), "Value must be at least " + bound(low)
		case n > high:
			return format(v), "Value must be no more than " + bound(high)
		}
		return "", ""
	}
}

func number(v value) float64 {
	if n, isInt := v.(int64); isInt {
		return float64(n)
	}
	return v.(float64)
}

func bound(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func oneOf(allowed ...string) check {
	return func(_ string, v value) (string, string) {
		for _, a := range allowed {
			if v.(string) == a {
				return "", ""
			}
		}
		return v.(string), "String must be one of: " + strings.Join(allowed, ", ")
	}
}

func oneOfFold(allowed ...string) check {
	return func(_ string, v value) (string, string) {
		for _, a := range allowed {
			if strings.EqualFold(v.(string), a) {
				return "", ""
			}
		}
		return v.(string), "String must be one of (case insensitive): " + strings.Join(allowed, ", ")
	}
}

func listOf(allowed ...string) check {
	one := oneOf(allowed...)
	return func(key string, v value) (string, string) {
		for _, element := range v.([]string) {
			if shown, reason := one(key, element); reason != "" {
				return shown, reason
			}
		}
		return "", ""
	}
}

func nonEmpty(_ string, v value) (string, string) {
	if v.(string) == "" {
		return "", "String must be non-empty"
	}
	return "", ""
}

func gzipLevel(_ string, v value) (string, string) {
	if n := v.(int64); n != -1 && (n < 1 || n > 9) {
		return format(v), "Value must be between 1 and 9 or equal to -1"
	}
	return "", ""
}

var replicaPair = regexp.MustCompile(`^[0-9]+:[0-9]+$`)

func throttledReplicas(key string, v value) (string, string) {
	list := v.([]string)
	if len(list) == 1 && list[0] == "*" {
		return "", ""
	}
	for _, pair := range list {
		if pair != "" && !replicaPair.MatchString(pair) {
			return "[" + strings.Join(list, ", ") + "]", key + " must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],..."
		}
	}
	return "", ""
}

var isoDuration = regexp.MustCompile(`^by_duration:P([0-9]+D)?(T([0-9]+H)?([0-9]+M)?([0-9]+(\.[0-9]{1,9})?S)?)?$`)

func shareOffsetReset(key string, v value) (string, string) {
	s := v.(string)
	if s == "earliest" || s == "latest" || isoDuration.MatchString(s) && !strings.HasSuffix(s, "P") && !strings.HasSuffix(s, "T") {
		return "", ""
	}
	return s, fmt.Sprintf("Invalid value `%s` for configuration %s. The value must be either 'earliest', 'latest' or of the format 'by_duration:<PnDTnHnMn.nS>'.", s, key)
}
