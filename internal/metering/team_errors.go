// SPDX-License-Identifier: Apache-2.0

package metering

import (
	"fmt"
	"strings"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// TeamProblem is what keeps a team, or a user's membership, from being as it is declared.
type TeamProblem string

// The problems of teams.
const (
	// TeamUnknown: there is no team of that name, above this one or to be a member of.
	TeamUnknown TeamProblem = "unknown"
	// TeamIsRetired: it goes on for whoever is below it, and takes nobody else.
	TeamIsRetired TeamProblem = "retired"
	// TeamPlanUnknown: the plan that the team is to pay with is not there, or retired.
	TeamPlanUnknown TeamProblem = "unknown plan"
	// TeamCycle: the team would be above itself.
	TeamCycle TeamProblem = "cycle"
	// TeamTooDeep: a user would have more than three teams above it.
	TeamTooDeep TeamProblem = "too deep"
	// TeamSecondRoot: another team is the root.
	TeamSecondRoot TeamProblem = "second root"
)

// TeamError says which problem an error about a team is, for whoever does something about it.
type TeamError struct {
	Problem TeamProblem
	// Err tells its kind, and names the field, its value and what would do.
	Err *quota.Error
}

func (e *TeamError) Error() string { return e.Err.Error() }

// Unwrap returns the error with its kind.
func (e *TeamError) Unwrap() error { return e.Err }

func teamError(p TeamProblem, kind error, field, format string, args ...any) error {
	return &TeamError{p, &quota.Error{Kind: kind, Subject: field, Text: fmt.Sprintf(format, args...)}}
}

// NoTeam says that a field names a team that is not there.
func NoTeam(field, name string) error {
	return teamError(TeamUnknown, quota.ErrNotFound, field, "there is no team %q", name)
}

// RetiredTeam says that a field names a team that takes nobody else. It is there, so that is a conflict.
func RetiredTeam(field, name string) error {
	return teamError(TeamIsRetired, quota.ErrConflict, field,
		"team %q is retired, because its object is gone, and takes nobody else", name)
}

// NoTeamPlan says that the plan of a team is not there, or retired.
func NoTeamPlan(name string) error {
	return teamError(TeamPlanUnknown, quota.ErrNotFound, "plan", "there is no plan %q for a team to pay with", name)
}

// OwnAncestor says that a team would be above itself. The way leads from it to itself again.
func OwnAncestor(way []string) error {
	return teamError(TeamCycle, quota.ErrInvalid, "parent",
		"team %s would be above itself (%s): name a team that is not below it", way[0], strings.Join(way, " below "))
}

// TooDeep says that the users of the first team would have too many above them. The way leads to the top.
func TooDeep(way []string) error {
	return teamError(TeamTooDeep, quota.ErrInvalid, "parent",
		"users of team %s would have %d teams above them (%s), the limit is %d, the root included", way[0], len(way),
		strings.Join(way, " below "), quota.MaxDepth-1)
}

// SecondRoot says that there is a root already.
func SecondRoot(first string) error {
	return teamError(TeamSecondRoot, quota.ErrConflict, "root",
		"team %s is the root already and there is one at most: set root to false in one of them", first)
}
