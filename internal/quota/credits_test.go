// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"errors"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestCreditsForAudio(t *testing.T) {
	tests := map[string]struct {
		audio   time.Duration
		want    Credits
		wantErr string
	}{
		"a minute":                 {audio: time.Minute, want: Credit},
		"a millisecond":            {audio: time.Millisecond, want: 1},
		"twelve and a half":        {audio: 12*time.Minute + 30*time.Second, want: 12*Credit + Credit/2},
		"the longest":              {audio: MaxAudio, want: maxActual},
		"zero":                     {wantErr: "0s must be above zero"},
		"negative":                 {audio: -time.Minute, wantErr: "-1m0s must be above zero"},
		"too long":                 {audio: MaxAudio + time.Millisecond, wantErr: "above the limit of 720h0m0s"},
		"part of a millisecond":    {audio: 1500 * time.Microsecond, wantErr: "whole number of milliseconds"},
		"less than a millisecond":  {audio: time.Nanosecond, wantErr: "whole number of milliseconds"},
		"the longest duration":     {audio: math.MaxInt64, wantErr: "above the limit"},
		"the most negative of all": {audio: math.MinInt64, wantErr: "above zero"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := CreditsForAudio(tc.audio)
			if tc.wantErr != "" {
				if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.wantErr) {
					t.Fatalf("CreditsForAudio(%s): %v, want ErrInvalid with %q", tc.audio, err, tc.wantErr)
				}
				return
			}
			if err != nil || got != tc.want {
				t.Fatalf("CreditsForAudio(%s) = %d, %v; want %d", tc.audio, got, err, tc.want)
			}
			if got.Audio() != tc.audio {
				t.Errorf("%d.Audio() = %s, want %s", got, got.Audio(), tc.audio)
			}
		})
	}
}

func TestCreditsString(t *testing.T) {
	tests := map[string]struct {
		c    Credits
		want string
	}{
		"zero":                  {0, "0"},
		"whole":                 {WholeCredits(30), "30"},
		"half":                  {12*Credit + Credit/2, "12.5"},
		"a thousandth":          {60, "0.001"},
		"a unit":                {1, "0"},
		"half a thousandth":     {30, "0"},
		"one and a half":        {90, "0.002"},
		"two and a half":        {150, "0.002"},
		"negative":              {-12*Credit - Credit/2, "-12.5"},
		"a negative unit":       {-1, "0"},
		"negative, rounded":     {-90, "-0.002"},
		"beyond the range":      {math.MaxInt64, "16666666666.667"},
		"far below the range":   {math.MinInt64, "-16666666666.667"},
		"trailing zeros vanish": {WholeCredits(100), "100"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tc.c.String(); got != tc.want {
				t.Errorf("%d = %q, want %q", int64(tc.c), got, tc.want)
			}
		})
	}
}

func TestBytes(t *testing.T) {
	tests := map[string]struct {
		n    int64
		want string
	}{
		"none":             {0, "0 bytes"},
		"negative":         {-5, "-5 bytes"},
		"below a unit":     {1023, "1023 bytes"},
		"a unit":           {1024, "1Ki"},
		"one and a half":   {1536, "1.5Ki"},
		"the seed's 25MB":  {25 << 20, "25Mi"},
		"two decimals":     {1<<30 + 1<<28 + 1<<20, "1.25Gi"},
		"carries a unit":   {1<<20 - 1, "1Mi"},
		"carries two":      {1<<30 - 1, "1Gi"},
		"the largest file": {1 << 40, "1Ti"},
		"everything":       {math.MaxInt64, "8192Pi"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Bytes(tc.n); got != tc.want {
				t.Errorf("Bytes(%d) = %q, want %q", tc.n, got, tc.want)
			}
		})
	}
}

func TestParseMoney(t *testing.T) {
	tests := map[string]struct {
		in     string
		want   Money
		wantOK bool
	}{
		"the seed's rate":   {"0.006", 6_000, true},
		"whole":             {"50", 50_000_000, true},
		"smallest":          {"0.000001", 1, true},
		"largest":           {"999999999.999999", 999_999_999_999_999, true},
		"leading zeros":     {"000000007.10", 7_100_000, true},
		"empty":             {"", 0, false},
		"a point":           {".", 0, false},
		"no whole part":     {".5", 0, false},
		"no decimals":       {"5.", 0, false},
		"too many decimals": {"0.0000001", 0, false},
		"too many digits":   {"1000000000", 0, false},
		"two points":        {"1.2.3", 0, false},
		"minus":             {"-1", 0, false},
		"plus":              {"+1", 0, false},
		"minus inside":      {"1.-5", 0, false},
		"exponent":          {"1e3", 0, false},
		"underscore":        {"1_000", 0, false},
		"space":             {" 1", 0, false},
		"comma":             {"1,5", 0, false},
		"other digits":      {"١", 0, false},
		"hexadecimal":       {"0x10", 0, false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ParseMoney(tc.in)
			if (err == nil) != tc.wantOK || got != tc.want {
				t.Fatalf("ParseMoney(%q) = %d, %v; want %d, ok %t", tc.in, got, err, tc.want, tc.wantOK)
			}
			if err != nil && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), strconv.Quote(tc.in))) {
				t.Errorf("error %q does not wrap ErrInvalid or name the value", err)
			}
		})
	}
}

func TestMoneyString(t *testing.T) {
	for want, m := range map[string]Money{
		"0": 0, "0.006": 6_000, "-0.000001": -1, "50": 50_000_000, "1000000000": math.MaxInt64,
		"-1000000000": math.MinInt64,
	} {
		if got := m.String(); got != want {
			t.Errorf("%d = %q, want %q", int64(m), got, want)
		}
	}
}

// anyInt64 draws from all magnitudes and from both ends of the range.
func anyInt64() *rapid.Generator[int64] {
	return rapid.OneOf(rapid.Int64(), rapid.Int64Range(-100_000, 100_000), rapid.Int64Range(9e14, 2e15),
		rapid.Int64Range(-2e15, -9e14),
		rapid.SampledFrom([]int64{math.MinInt64, math.MaxInt64, int64(MaxCredits), -int64(MaxCredits)}))
}

func clampBig(n *big.Int, most int64) int64 {
	if n.Cmp(big.NewInt(most)) > 0 {
		return most
	}
	if n.Cmp(big.NewInt(-most)) < 0 {
		return -most
	}
	return n.Int64()
}

func TestArithmeticSaturates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, y := anyInt64().Draw(t, "x"), anyInt64().Draw(t, "y")
		cx, cy := big.NewInt(clampBig(big.NewInt(x), int64(MaxCredits))),
			big.NewInt(clampBig(big.NewInt(y), int64(MaxCredits)))
		sum := clampBig(new(big.Int).Add(cx, cy), int64(MaxCredits))
		difference := clampBig(new(big.Int).Sub(cx, cy), int64(MaxCredits))
		if got := Credits(x).Add(Credits(y)); int64(got) != sum {
			t.Fatalf("Credits: %d + %d = %d, want %d", x, y, got, sum)
		}
		if got := Credits(x).Sub(Credits(y)); int64(got) != difference {
			t.Fatalf("Credits: %d - %d = %d, want %d", x, y, got, difference)
		}
		if got := Money(x).Add(Money(y)); int64(got) != sum {
			t.Fatalf("Money: %d + %d = %d, want %d", x, y, got, sum)
		}
		if got := Money(x).Sub(Money(y)); int64(got) != difference {
			t.Fatalf("Money: %d - %d = %d, want %d", x, y, got, difference)
		}
		product := clampBig(new(big.Int).Mul(big.NewInt(x), big.NewInt(int64(Credit))), int64(MaxCredits))
		// The whole credits of the range end below its end.
		if limit := int64(MaxCredits / Credit); x >= -limit && x <= limit || product == int64(MaxCredits) ||
			product == -int64(MaxCredits) {
			if got := WholeCredits(x); int64(got) != product {
				t.Fatalf("WholeCredits(%d) = %d, want %d", x, got, product)
			}
		}
		audio := new(big.Int).Mul(big.NewInt(x), big.NewInt(int64(time.Millisecond)))
		if got := Credits(x).Audio(); audio.IsInt64() && int64(got) != audio.Int64() ||
			!audio.IsInt64() && (got > 0) != (x > 0) {
			t.Fatalf("Credits(%d).Audio() = %d, want %s", x, got, audio)
		}
	})
}

func TestPriceRoundsHalfEvenOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, rate := anyInt64().Draw(t, "credits"), anyInt64().Draw(t, "rate")
		if rapid.Bool().Draw(t, "tie") { // make exact halves common: a product that is an odd multiple of 30000
			c, rate = (c%1_000_000)*2+1, 30_000*((rate%1_000)*2+1)
		}
		got := Price(Credits(c), Money(rate))
		if c <= 0 || rate <= 0 {
			if got != 0 {
				t.Fatalf("Price(%d, %d) = %d, want 0", c, rate, got)
			}
			return
		}
		want := halfEven(new(big.Int).Mul(big.NewInt(c), big.NewInt(rate)), big.NewInt(int64(Credit)))
		if int64(got) != clampBig(want, int64(MaxMoney)) {
			t.Fatalf("Price(%d, %d) = %d, want %s", c, rate, got, want)
		}
	})
}

// halfEven divides by way of rational numbers, in another manner than the code under test.
func halfEven(n, d *big.Int) *big.Int {
	twice := new(big.Int).Mul(n, big.NewInt(2))
	floor := new(big.Int).Div(n, d)
	middle := new(big.Int).Add(new(big.Int).Mul(floor, new(big.Int).Mul(d, big.NewInt(2))), d) // 2*floor*d + d
	if c := twice.Cmp(middle); c > 0 || c == 0 && floor.Bit(0) == 1 {
		floor.Add(floor, big.NewInt(1))
	}
	return floor
}

func TestCreditsRoundHalfEven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Credits(rapid.Int64Range(-int64(MaxCredits), int64(MaxCredits)).Draw(t, "credits"))
		if rapid.Bool().Draw(t, "tie") {
			c = c/60*60 + 30
		}
		want := halfEven(new(big.Int).Abs(big.NewInt(int64(c))), big.NewInt(60))
		if c < 0 {
			want.Neg(want)
		}
		got, ok := new(big.Rat).SetString(c.String())
		if !ok || got.Cmp(new(big.Rat).SetFrac(want, big.NewInt(1000))) != 0 {
			t.Fatalf("Credits(%d) = %q, want %s thousandths", int64(c), c, want)
		}
	})
}

func TestDistinctAmountsLookDistinct(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Credits(rapid.Int64Range(-int64(MaxCredits)+100, int64(MaxCredits)-100).Draw(t, "credits"))
		d := c + Credits(rapid.Int64Range(1, 100).Draw(t, "more"))
		if x, y := distinct(c, d); x == y {
			t.Fatalf("%d and %d both look like %q", int64(c), int64(d), x)
		}
	})
}

func FuzzParseMoney(f *testing.F) {
	for _, s := range []string{"0", "0.006", "50", "999999999.999999", "", ".", "1.", "-1", "1e3", "0x1", "١", "1_0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMoney(s)
		if err != nil {
			if !errors.Is(err, ErrInvalid) || m != 0 {
				t.Fatalf("ParseMoney(%q) = %d, %v", s, m, err)
			}
			return
		}
		if m < 0 || m >= MaxMoney {
			t.Fatalf("ParseMoney(%q) = %d, out of range", s, m)
		}
		exact, ok := new(big.Rat).SetString(s)
		if !ok || exact.Cmp(big.NewRat(int64(m), 1_000_000)) != 0 {
			t.Fatalf("ParseMoney(%q) = %d", s, m)
		}
		if again, err := ParseMoney(m.String()); err != nil || again != m {
			t.Fatalf("%d is formatted as %q, which reads as %d, %v", m, m, again, err)
		}
	})
}

func FuzzFormat(f *testing.F) {
	for _, n := range []int64{0, 1, -1, 60_000, 999, math.MaxInt64, math.MinInt64, 1<<20 - 1} {
		f.Add(n)
	}
	f.Fuzz(func(t *testing.T, n int64) {
		canonical := func(what, s string, within *big.Rat) {
			got, ok := new(big.Rat).SetString(s)
			if !ok {
				t.Fatalf("%s of %d is %q, which is no number", what, n, s)
			}
			if strings.Contains(s, ".") && strings.HasSuffix(s, "0") || strings.HasSuffix(s, ".") || s == "-0" {
				t.Fatalf("%s of %d is %q", what, n, s)
			}
			if within != nil {
				d := new(big.Rat).Sub(got, within)
				if d.Abs(d).Cmp(big.NewRat(1, 2000)) > 0 {
					t.Fatalf("%s of %d is %q, more than half a thousandth off", what, n, s)
				}
			}
		}
		canonical("Credits", Credits(n).String(), big.NewRat(int64(Credits(n).clamp()), int64(Credit)))
		canonical("Money", Money(n).String(), big.NewRat(int64(Money(n).clamp()), 1_000_000))
		if m := Money(n); m >= 0 && m < MaxMoney {
			if again, err := ParseMoney(m.String()); err != nil || again != m {
				t.Fatalf("Money(%d) is formatted as %q, which reads as %d, %v", n, m, again, err)
			}
		}
		if s := Bytes(n); n >= 1024 {
			canonical("Bytes", strings.TrimRight(s, "KMGTPi"), nil)
		}
	})
}
