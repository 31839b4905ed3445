// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Number is a JSON number in decimal digits. Empty means absent.
type Number string

// MarshalJSON writes the number's digits.
func (n Number) MarshalJSON() ([]byte, error) {
	if n == "" {
		return []byte("0"), nil
	}
	return []byte(n), nil
}

// UnmarshalJSON takes numbers only: a string of digits is not one. Different spellings of one number, such as 1, 1.0
// and 1e0, become the same.
func (n *Number) UnmarshalJSON(data []byte) error {
	switch c := data[0]; {
	case c == '-' || (c >= '0' && c <= '9'):
		*n = Number(plain(string(data)))
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

// Integer is a whole number of a request, however it is spelled.
type Integer int64

// UnmarshalJSON takes a whole number.
func (i *Integer) UnmarshalJSON(data []byte) error {
	var n Number
	err := n.UnmarshalJSON(data)
	if kind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		kind.Type = reflect.TypeFor[int64]()
	}
	if err != nil || n == "" {
		return err
	}
	value, err := strconv.ParseInt(string(n), 10, 64)
	if err != nil {
		return &json.UnmarshalTypeError{Value: "number " + n.short(), Type: reflect.TypeFor[int64]()}
	}
	*i = Integer(value)
	return nil
}

// maxExponent bounds how many zeros an exponent may stand for; no number of the contract has as many digits.
const maxExponent = 20

// plain spells a JSON number without an exponent, and without zeros behind its decimals. One whose exponent is beyond
// all limits stays as it is.
func plain(n string) string {
	mantissa, exponent := n, 0
	if at := strings.IndexAny(n, "eE"); at >= 0 {
		var err error
		if exponent, err = strconv.Atoi(n[at+1:]); err != nil || exponent < -maxExponent || exponent > maxExponent {
			return n
		}
		mantissa = n[:at]
	}
	digits, negative := strings.CutPrefix(mantissa, "-")
	whole, frac, _ := strings.Cut(digits, ".")
	if exponent < 0 {
		padded := strings.Repeat("0", -exponent) + whole
		whole, frac = padded[:len(padded)+exponent], padded[len(padded)+exponent:]+frac
	} else if exponent > 0 {
		padded := frac + strings.Repeat("0", max(0, exponent-len(frac)))
		whole, frac = whole+padded[:exponent], padded[exponent:]
	}
	whole, frac = strings.TrimLeft(whole, "0"), strings.TrimRight(frac, "0")
	out := cmp.Or(whole, "0")
	if frac != "" {
		out += "." + frac
	}
	if negative && out != "0" {
		return "-" + out
	}
	return out
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
		return 0, invalid("%s: %s must be written with at most %d decimals and no exponent", field, n.short(),
			maxDecimals)
	}
	outside := func() error { // said when it is so: every call comes through here
		return invalid("%s: %s must be between %s and %s", field, n.short(), seconds(least), seconds(most))
	}
	if len(whole) > maxWholeDigits {
		return 0, outside()
	}
	ms, err := strconv.ParseInt(whole+frac+strings.Repeat("0", maxDecimals-len(frac)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", field, err) // a JSON number without an exponent has nothing but digits
	}
	if d := time.Duration(ms) * time.Millisecond; d >= least && d <= most {
		return d, nil
	}
	return 0, outside()
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
