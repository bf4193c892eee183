package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// value is a parsed value: nil, bool, string, int64, float64 or []string.
type value any

// parse reads a value as Kafka does, without the space around it.
func (k *Key) parse(text string) (value, error) {
	v, reason := parseAs(k.Type, text)
	if reason != "" {
		return nil, &ValueError{Key: k.Name, Value: text, Reason: reason}
	}
	if list, isList := v.([]string); isList && !k.Has(Loose) {
		if slices.Contains(list, "") {
			return nil, &ConflictError{fmt.Sprintf("Configuration '%s' values must not be empty.", k.Name)}
		}
		v = withoutRepeats(list)
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
		digits := trimmed
		if n := len(digits); n > 1 && strings.ContainsRune("dDfF", rune(digits[n-1])) && digits[n-2] != 'n' {
			digits = digits[:n-1] // as a Java literal, but not the end of "inf"
		}
		f, err := strconv.ParseFloat(digits, 64)
		if err != nil {
			return nil, "Not a number of type " + t.String()
		}
		return f, ""
	case List:
		return splitList(trimmed), ""
	}
	return trimmed, ""
}

// splitList cuts a list at its commas.
func splitList(trimmed string) []string {
	if trimmed == "" {
		return []string{}
	}
	list := strings.Split(trimmed, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

// withoutRepeats keeps the first of equal elements.
func withoutRepeats(list []string) []string {
	out := make([]string, 0, len(list))
	for _, element := range list {
		if !slices.Contains(out, element) {
			out = append(out, element)
		}
	}
	return out
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
