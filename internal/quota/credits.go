// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// Credits is an amount of credits in units of 1/60000 credit. One credit is one minute of audio, so a unit is exactly
// one millisecond of audio and no duration is ever rounded. Arithmetic saturates at ±MaxCredits: a sum that would
// overflow stays above every limit instead of wrapping below it.
type Credits int64

const (
	// Credit is one credit: one minute of audio.
	Credit Credits = 60_000
	// MaxCredits bounds every amount (about 16 billion credits); it leaves room for sums over all events of an account.
	MaxCredits Credits = 1e15
	// MaxAudio is the longest audio of one job, declared or actual: 720 hours.
	MaxAudio = 720 * time.Hour
)

// WholeCredits returns n credits, saturating at ±MaxCredits.
func WholeCredits(n int64) Credits {
	if n > int64(MaxCredits/Credit) {
		return MaxCredits
	}
	if n < -int64(MaxCredits/Credit) {
		return -MaxCredits
	}
	return Credits(n) * Credit
}

// CreditsForAudio returns what d of audio costs. It fails for a d that is not positive, exceeds MaxAudio, or is not a
// whole number of milliseconds.
func CreditsForAudio(d time.Duration) (Credits, error) {
	switch {
	case d <= 0:
		return 0, Invalid("audio duration", "%s must be above zero", d)
	case d > MaxAudio:
		return 0, Invalid("audio duration", "%s is above the limit of %s", d, MaxAudio)
	case d%time.Millisecond != 0:
		return 0, Invalid("audio duration", "%s must be a whole number of milliseconds", d)
	}
	return Credits(d / time.Millisecond), nil
}

// Audio returns the duration of audio that c pays for, saturating at the longest duration there is.
func (c Credits) Audio() time.Duration {
	const most = Credits(math.MaxInt64 / time.Millisecond)
	return time.Duration(min(max(c, -most), most)) * time.Millisecond
}

// Add returns c+d, saturating at ±MaxCredits.
func (c Credits) Add(d Credits) Credits { return (c.clamp() + d.clamp()).clamp() }

// Sub returns c-d, saturating at ±MaxCredits.
func (c Credits) Sub(d Credits) Credits { return (c.clamp() - d.clamp()).clamp() }

func (c Credits) clamp() Credits { return min(max(c, -MaxCredits), MaxCredits) }

// String returns c in credits, rounded half-even to three decimals, without trailing zeros: "12.5".
func (c Credits) String() string {
	thousandths := roundHalfEven(int64(c.clamp()), int64(Credit)/1000)
	return formatDecimal(thousandths, 3)
}

// exact returns c in credits with five decimals, which is enough to tell any two amounts apart.
func (c Credits) exact() string {
	// A unit is 1/60000 credit, so 5/3 of 1/100000.
	return formatDecimal(roundHalfEven(int64(c.clamp())*5, 3), 5)
}

// distinct formats two different amounts so that they look different.
func distinct(c, d Credits) (string, string) {
	if x, y := c.String(), d.String(); x != y {
		return x, y
	}
	return c.exact(), d.exact()
}

// Money is an amount of money in micro-units (millionths) of a currency that the context names.
type Money int64

// MaxMoney bounds every amount of money: one billion units of currency.
const MaxMoney Money = 1e15

// ParseMoney reads a decimal with at most six decimals, such as "0.006". It refuses signs, exponents and anything
// beyond MaxMoney.
func ParseMoney(s string) (Money, error) {
	whole, frac, dotted := strings.Cut(s, ".")
	if len(whole) == 0 || len(whole) > 9 || len(frac) > 6 || (dotted && frac == "") ||
		strings.Trim(whole+frac, "0123456789") != "" {
		return 0, Invalid("", "%q must be a decimal number with at most 9 digits before the point and 6 after it", s)
	}
	n, err := strconv.ParseInt(whole+frac+strings.Repeat("0", 6-len(frac)), 10, 64)
	if err != nil {
		return 0, Invalid("", "%q: %v", s, err)
	}
	return Money(n), nil
}

// String returns m as a decimal without trailing zeros: "0.006".
func (m Money) String() string { return formatDecimal(int64(m.clamp()), 6) }

// Add returns m+n, saturating at ±MaxMoney.
func (m Money) Add(n Money) Money { return (m.clamp() + n.clamp()).clamp() }

// Sub returns m-n, saturating at ±MaxMoney.
func (m Money) Sub(n Money) Money { return (m.clamp() - n.clamp()).clamp() }

func (m Money) clamp() Money { return min(max(m, -MaxMoney), MaxMoney) }

// Price returns what c costs at perCredit, rounded half-even to a micro-unit once. Negative amounts cost nothing, and
// the result saturates at MaxMoney.
func Price(c Credits, perCredit Money) Money {
	if c <= 0 || perCredit <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(c), uint64(perCredit))
	if hi >= uint64(Credit) {
		return MaxMoney
	}
	q, r := bits.Div64(hi, lo, uint64(Credit))
	if half := uint64(Credit) / 2; r > half || (r == half && q%2 == 1) {
		q++
	}
	if q > math.MaxInt64 {
		return MaxMoney
	}
	return Money(q).clamp()
}

func roundHalfEven(n, unit int64) int64 {
	q, r := n/unit, n%unit
	if r < 0 {
		return -roundHalfEven(-n, unit)
	}
	if 2*r > unit || (2*r == unit && q%2 != 0) {
		q++
	}
	return q
}

func formatDecimal(n int64, decimals int) string {
	sign := ""
	if n < 0 {
		sign, n = "-", -n
	}
	digits := fmt.Sprintf("%0*d", decimals+1, n)
	whole, frac := digits[:len(digits)-decimals], strings.TrimRight(digits[len(digits)-decimals:], "0")
	if frac == "" {
		return sign + whole
	}
	return sign + whole + "." + frac
}
