// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Number is a JSON number as it is written. Empty means absent.
type Number string

// MarshalJSON writes the number's digits.
func (n Number) MarshalJSON() ([]byte, error) {
	if n == "" {
		return []byte("0"), nil
	}
	return []byte(n), nil
}

// UnmarshalJSON takes numbers only: a string of digits is not one.
func (n *Number) UnmarshalJSON(data []byte) error {
	switch c := data[0]; {
	case c == '-' || (c >= '0' && c <= '9'):
		*n = Number(data)
		return nil
	case c == 'n':
		return nil
	case c == '"':
		return notANumber("string")
	case c == 't' || c == 'f':
		return notANumber("bool")
	case c == '[':
		return notANumber("array")
	}
	return notANumber("object")
}

func notANumber(what string) error {
	return &json.UnmarshalTypeError{Value: what, Type: reflect.TypeFor[float64]()}
}

const (
	maxDecimals = 3
	// maxWholeDigits keeps every number far inside int64; the fields' own limits are far below.
	maxWholeDigits = 12
)

// milliseconds reads a number of seconds exactly. The limits are inclusive.
func (n Number) milliseconds(field string, least, most time.Duration) (time.Duration, error) {
	if n == "" {
		return 0, invalid("%s is required", field)
	}
	whole, frac, dotted := strings.Cut(string(n), ".")
	if strings.ContainsAny(string(n), "eE") || (dotted && len(frac) > maxDecimals) {
		return 0, invalid("%s: %s must be written with at most %d decimals and no exponent", field, n.short(), maxDecimals)
	}
	outside := invalid("%s: %s must be between %s and %s", field, n.short(), seconds(least), seconds(most))
	if len(whole) > maxWholeDigits {
		return 0, outside
	}
	ms, err := strconv.ParseInt(whole+frac+strings.Repeat("0", maxDecimals-len(frac)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", field, err) // a JSON number without an exponent has nothing but digits
	}
	if d := time.Duration(ms) * time.Millisecond; d >= least && d <= most {
		return d, nil
	}
	return 0, outside
}

// short is the number for a message, whose length the caller must not decide.
func (n Number) short() string {
	const most = 32
	if len(n) <= most {
		return string(n)
	}
	return string(n[:most]) + "..."
}

func seconds(d time.Duration) Number {
	return milliseconds(d.Milliseconds())
}

func milliseconds(ms int64) Number {
	s := strconv.FormatInt(ms/1000, 10)
	if frac := ms % 1000; frac != 0 {
		s += "." + strings.TrimRight(fmt.Sprintf("%03d", frac), "0")
	}
	return Number(s)
}

func credits(c quota.Credits) Number { return Number(c.String()) }

func whole(n int64) Number { return Number(strconv.FormatInt(n, 10)) }
