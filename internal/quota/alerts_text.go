// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// raisedFields is how many fields the text of a remembered alert has.
const raisedFields = 8

// String returns what an account remembers as its row keeps it: of each alert kind, threshold, subject, period, number,
// state, limit and the microseconds of its end, between bars, the alerts on lines. It is read with every batch that has
// the account, so it is no JSON.
func (r *Raised) String() string {
	var text []byte
	for i := range r.list() {
		e := &r.List[i]
		if i > 0 {
			text = append(text, '\n')
		}
		text = append(append(text, e.Kind...), '|')
		text = append(strconv.AppendInt(text, int64(e.Threshold), 10), '|')
		text = append(append(text, e.Subject...), '|')
		text = append(strconv.AppendInt(text, e.PeriodNo, 10), '|')
		text = append(strconv.AppendInt(text, int64(e.Number), 10), '|')
		text = append(append(text, e.State...), '|')
		text = append(strconv.AppendInt(text, e.Limit, 10), '|')
		text = strconv.AppendInt(text, e.Until.UnixMicro(), 10)
	}
	return string(text)
}

// ParseRaised is String's inverse; an empty text is nil.
func ParseRaised(text string) (*Raised, error) {
	if text == "" {
		return nil, nil
	}
	r := &Raised{List: make([]RaisedAlert, 0, strings.Count(text, "\n")+1)}
	for line := range strings.Lines(text) {
		e, err := parseRaised(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, err
		}
		r.List = append(r.List, e)
	}
	return r, nil
}

func parseRaised(line string) (RaisedAlert, error) {
	var f [raisedFields]string
	rest, more := line, true
	n := 0
	for ; more && n < raisedFields; n++ {
		f[n], rest, more = strings.Cut(rest, "|")
	}
	state := AlertState(f[5])
	if n != raisedFields || more || state != AlertOpen && state != AlertLapsed && state != AlertArmed {
		return RaisedAlert{}, Invalid("alerts", "%.200q is no alert", line)
	}
	var err error
	number := func(s string) int64 {
		v, parseErr := strconv.ParseInt(s, 10, 64)
		if parseErr != nil {
			err = Invalid("alerts", "%.200q has %.40q for a number", line, s)
		}
		return v
	}
	e := RaisedAlert{
		AlertKey: AlertKey{Kind: AlertKind(f[0]), Threshold: int32(number(f[1])), Subject: f[2]},
		PeriodNo: number(f[3]), Number: int32(number(f[4])), State: state, Limit: number(f[6]),
		Until: time.UnixMicro(number(f[7])).UTC(),
	}
	return e, err
}

// AlertFacts are what an alert tells people.
type AlertFacts struct {
	AlertKey

	// Level is whom it is about.
	Level Level
	// Used and Limit as they were when it was raised, in the unit of credits or micro-units of Currency.
	Used, Limit int64
	Unlimited   bool
	Currency    string
	// Expected is when the credits are used up, of AlertExhaustion; else zero.
	Expected time.Time
	// Plan that served the account then, empty of a team without one, and Until when it is over by itself.
	Plan  string
	Until time.Time
}

// Summary says what an alert is about in a phrase without the use, which the account does not remember.
func (r *RaisedAlert) Summary() string {
	switch r.Kind {
	case AlertCreditsPercent:
		return fmt.Sprintf("%d %% of the %s credits of this period are used", r.Threshold, Credits(r.Limit))
	case AlertTeamShare:
		return fmt.Sprintf("%d %% of the team's %s credits of this period are used", r.Threshold, Credits(r.Limit))
	case AlertDailyCost:
		return fmt.Sprintf("%d %% of the daily cost ceiling of %s are used: %s", r.Threshold, Money(r.Limit), r.Subject)
	case AlertOverdrawn:
		return fmt.Sprintf("more than the allowance of %s credits is used", Credits(r.Limit))
	case AlertExhaustion:
		return fmt.Sprintf("the allowance of %s credits is expected to be used up before the period ends",
			Credits(r.Limit))
	case AlertGrantExpiring:
		return fmt.Sprintf("credits of the grant %q are left, and end at %s", r.Subject, r.Until.Format(time.RFC3339))
	case AlertPeriodReset:
	}
	return string(r.Kind)
}

// Message says the alert in a sentence for people. It names the numbers that raised it.
func (f *AlertFacts) Message() string {
	used, limit := Credits(f.Used), Credits(f.Limit)
	switch f.Kind {
	case AlertCreditsPercent:
		return fmt.Sprintf("%d %% of the credits are used: %s of %s in this period", f.Threshold, used, limit)
	case AlertTeamShare:
		whose := "the team's share"
		if f.Level.Kind == LevelUser {
			whose = "what the team lets the user have"
		}
		return fmt.Sprintf("%d %% of %s is used: %s of %s credits in this period", f.Threshold, whose, used, limit)
	case AlertDailyCost:
		return fmt.Sprintf("%d %% of the daily cost ceiling is used: %s of %s %s today", f.Threshold, Money(f.Used),
			Money(f.Limit), f.Currency)
	case AlertOverdrawn:
		over, most := distinct(used, limit)
		return fmt.Sprintf("%s credits are used in this period, more than the allowance of %s", over, most)
	case AlertExhaustion:
		return fmt.Sprintf("going by the last weeks the credits are used up at %s, before the period ends: "+
			"%s of %s are used by now", f.Expected.UTC().Format(time.RFC3339), used, limit)
	case AlertGrantExpiring:
		return fmt.Sprintf("%s of the %s credits of the grant %q are left, and end soon", limit.Sub(used), limit,
			f.Subject)
	case AlertPeriodReset:
		if f.Unlimited {
			return fmt.Sprintf("a new period has begun; %s credits were used in the last one", used)
		}
		return fmt.Sprintf("a new period has begun; %s of the plan's %s credits were used in the last one", used, limit)
	}
	return string(f.Kind)
}

// Action says what to do about it, or what happens if nothing is done.
func (f *AlertFacts) Action() string {
	blocks := f.Threshold >= criticalPercent
	switch f.Kind {
	case AlertCreditsPercent:
		if blocks {
			return "New work is refused until the period ends, unless the plan is upgraded or credits are granted."
		}
		return "Upgrade the plan, or ask for a grant, if the rest is not enough until the period ends."
	case AlertTeamShare:
		if blocks {
			return "New work is refused until the period ends, unless whoever manages the team raises its cap."
		}
		return "Ask whoever manages the team to raise the cap, if the rest is not enough until the period ends."
	case AlertDailyCost:
		if blocks {
			return "New work is refused until midnight UTC, unless the ceiling is raised."
		}
		return "Raise the ceiling, or let work wait until midnight UTC."
	case AlertOverdrawn:
		return "New work is refused until the period ends. Upgrade the plan, or ask for a grant."
	case AlertExhaustion:
		return "Upgrade the plan, or ask for a grant, before then: afterwards new work is refused until the period " +
			"ends."
	case AlertGrantExpiring:
		return "Use the credits before " + f.Until.UTC().Format(time.RFC3339) + "; afterwards they are gone."
	case AlertPeriodReset:
	}
	return "Nothing has to be done."
}
