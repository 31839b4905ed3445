// SPDX-License-Identifier: Apache-2.0

package reset

import (
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// StartingDeadline is how late a scheduled run may start, and ActiveDeadline how long it may then take: a plan's
// CronJob has both.
const (
	StartingDeadline = time.Hour
	ActiveDeadline   = time.Hour
)

// Schedule reads a reset schedule, which is always in UTC: five fields as for cron, or a descriptor such as @daily.
func Schedule(spec string) (cron.Schedule, error) {
	// The parser would take a zone in front of the fields, a CronJob with a timeZone does not.
	if strings.Contains(spec, "TZ=") {
		return nil, fmt.Errorf("reset.schedule is %q: must not name a time zone, it is always UTC", spec)
	}
	schedule, err := cron.ParseStandard(spec)
	if err != nil {
		return nil,
			fmt.Errorf(
				"reset.schedule is %q: %w; must have the five fields of cron (minute, hour, day, month, weekday), for "+
					"example \"0 2 * * *\"", spec, err)
	}
	// Five years cover every schedule that ever fires, February 29 included: the library gives up beyond.
	if schedule.Next(time.Now().UTC()).IsZero() {
		return nil, fmt.Errorf("reset.schedule is %q: there is no such day, it would never run", spec)
	}
	return schedule, nil
}

// OverdueBy returns the instant at or before which a period must have ended to be overdue at now, if it is open still:
// when the last run was scheduled that may have started and ended by now, however late and slow. The metrics, the
// alerts on them and the list of overdue resets mean this by the word. An error says what is wrong with the schedule.
func OverdueBy(spec string, now time.Time) (time.Time, error) {
	schedule, err := Schedule(spec)
	if err != nil {
		return time.Time{}, err
	}
	return lastRun(schedule, now.Add(-StartingDeadline-ActiveDeadline)), nil
}

// lastRun returns the last time at or before t at which the schedule fires.
func lastRun(schedule cron.Schedule, t time.Time) time.Time {
	// A schedule tells only what comes next: look from further and further back until something lies before t.
	const farthest = 10 * 366 * 24 * time.Hour
	for back := time.Hour; back < farthest; back *= 2 {
		run := schedule.Next(t.Add(-back))
		if run.IsZero() || run.After(t) {
			continue
		}
		for next := schedule.Next(run); !next.IsZero() && !next.After(t); next = schedule.Next(run) {
			run = next
		}
		return run
	}
	return time.Time{}
}
