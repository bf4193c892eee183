package config

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// value is a parsed value: nil, bool, string, int64, float64 or []string.
type value any

// parse reads a value as Kafka does: numbers and booleans are trimmed, strings are not.
func (k *Key) parse(text string) (value, error) {
	v, reason := parseAs(k.Type, text)
	if reason != "" {
		return nil, &ValueError{Key: k.Name, Value: text, Reason: reason}
	}
	if k.check == nil {
		return v, nil
	}
	if shown, reason := k.check(k.Name, v); reason != "" {
		return nil, &ValueError{Key: k.Name, Value: shown, Reason: reason}
	}
	return v, nil
}

// parseAs reads a value of a type; reason says what is wrong with it, "" when nothing is.
func parseAs(t Type, text string) (v value, reason string) {
	trimmed := strings.TrimSpace(text)
	switch t {
	case Boolean:
		switch {
		case strings.EqualFold(trimmed, "true"):
			return true, ""
		case strings.EqualFold(trimmed, "false"):
			return false, ""
		}
		return nil, "Expected value to be either true or false"
	case Int, Short, Long:
		bits := map[Type]int{Int: 32, Short: 16, Long: 64}[t]
		n, err := strconv.ParseInt(trimmed, 10, bits)
		if err != nil {
			return nil, "Not a number of type " + t.String()
		}
		return n, ""
	case Double:
		f, err := strconv.ParseFloat(trimmed, 64)
		if err != nil {
			return nil, "Not a number of type " + t.String()
		}
		return f, ""
	case List:
		return splitList(trimmed), ""
	case Class, Password:
		return trimmed, ""
	}
	return text, ""
}

// splitList cuts a list at its commas and drops repeated elements.
func splitList(trimmed string) []string {
	list := []string{}
	if trimmed == "" {
		return list
	}
	for element := range strings.SplitSeq(trimmed, ",") {
		if element = strings.TrimSpace(element); !slices.Contains(list, element) {
			list = append(list, element)
		}
	}
	return list
}

// format writes a value as it is described.
func format(v value) string {
	switch v := v.(type) {
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return formatDouble(v)
	case []string:
		return strings.Join(v, ",")
	case string:
		return v
	}
	return ""
}

// formatDouble writes a number as Java does: at least one digit after the point,
// and an exponent only for the very large and very small.
func formatDouble(f float64) string {
	abs := math.Abs(f)
	if abs != 0 && (abs < 1e-3 || abs >= 1e7) {
		mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(f, 'E', -1, 64), "E")
		if !strings.Contains(mantissa, ".") {
			mantissa += ".0"
		}
		n, _ := strconv.Atoi(exponent)
		return mantissa + "E" + strconv.Itoa(n)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}
