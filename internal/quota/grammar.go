// SPDX-License-Identifier: Apache-2.0

package quota

import (
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Grammar says how a name of one kind is written. Every door has the same one: the HTTP contract, the CRDs, the
// admission policies and the database repeat the pattern, and a test compares them with the ones here.
type Grammar struct {
	pattern, rule string
	most          int
	re            *regexp.Regexp
}

func grammar(pattern string, most int, rule string) *Grammar {
	return &Grammar{pattern: pattern, most: most, rule: rule, re: regexp.MustCompile(pattern)}
}

// Pattern returns the grammar as a regular expression in the syntax that RE2 and PostgreSQL share, and the most
// characters.
func (g *Grammar) Pattern() (pattern string, most int) { return g.pattern, g.most }

// Check returns an error that has the value and the rule, for a caller who names the field in front of it.
func (g *Grammar) Check(value string) error {
	if len(value) > g.most || !g.re.MatchString(value) {
		return fmt.Errorf("%.80q must have 1 to %d %s", value, g.most, g.rule)
	}
	return nil
}

// labelValue is the grammar of a value of a Kubernetes label.
const (
	labelValue     = `^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`
	labelValueRule = "letters, digits, '.', '_' and '-', beginning and ending with a letter or digit"
)

// objectName is the grammar of a name of a Kubernetes object.
const (
	objectName     = `^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	objectNameRule = "lower case letters, digits, '-' and '.', each part beginning and ending with a letter or digit"
)

// The grammars of the names that people and programs give.
var (
	// UserIDs are label values, because a Job names its user by a label.
	UserIDs = grammar(labelValue, 63, labelValueRule)
	// GrantNames are written like user ids, so that a grant can be named in a label or a file as well.
	GrantNames = grammar(labelValue, 63, labelValueRule)
	// PlanNames are names of Kubernetes objects, short enough for a label value: accounts and CronJobs carry them in
	// labels.
	PlanNames = grammar(objectName, 63, objectNameRule)
	// TeamNames are written like names of plans.
	TeamNames = grammar(objectName, 63, objectNameRule)
	// ClusterNames are label values, because whoever runs several clusters labels what belongs to which.
	ClusterNames = grammar(labelValue, 63, labelValueRule)
	// UsageTypes are written like names of metrics and columns, where reports put them.
	UsageTypes = grammar(`^[a-z][a-z0-9_]{0,31}$`, 32, "small letters, digits and '_', beginning with a letter")
	// MetadataKeys are label keys in a loose sense: a prefix with a '/' is nothing special.
	MetadataKeys = grammar(`^[A-Za-z0-9][A-Za-z0-9._/-]*$`, 63, "of [A-Za-z0-9._/-], beginning with a letter or digit")
	// Currencies are ISO 4217 codes.
	Currencies = grammar(`^[A-Z]{3}$`, 3, "capital letters, a currency code such as USD")
)

// Bounds of what is asked for, declared and recorded. Those of amounts stand with their types.
const (
	// MaxKey is how many bytes an idempotency key may have: what fits a header and an index entry without a second
	// thought.
	MaxKey = 255
	// MaxFileSize of one job's input, in bytes: 1Ti. No recording is near it, and sums of file sizes stay far inside
	// int64.
	MaxFileSize = int64(1) << 40
	// MaxTokens is the most tokens that one record may count; as MaxFileSize.
	MaxTokens = int64(1) << 40
	// MaxPriority bounds an admission's priority on both sides of 0.
	MaxPriority = 1000
	// DefaultLease is an admission's unless it asks for another one between MinLease, below which heartbeats would be
	// most of the traffic, and MaxLease, which is how long a slot may be lost to a holder that is gone.
	DefaultLease = 2 * time.Minute
	MinLease     = 5 * time.Second
	MaxLease     = time.Hour
	// MaxReason is how many characters the reason of a correction may have.
	MaxReason = 256
	// MaxMetadata is how many keys metadata may have, MaxMetadataValue how many bytes a value, and MaxMetadataBytes how
	// many all of it as JSON: it is stored with each event.
	MaxMetadata      = 16
	MaxMetadataValue = 256
	MaxMetadataBytes = 4 << 10
	// MaxPlanCredits is the most credits that a plan, an override, a grant, carry-over or overage may give for a
	// period: 19 years of audio.
	MaxPlanCredits = 10_000_000
	// MaxSlots bounds how many jobs of a user may run at once, and how many may wait.
	MaxSlots = 10_000
	// MaxWeight is the largest share of a user or a team in what its siblings and it wait for; 1 is the smallest. The
	// fractions of virtual time are exact up to there.
	MaxWeight = 1_000_000
	// MinFinalAfter and MaxFinalAfter bound how long after its end a period takes late charges.
	MinFinalAfter = time.Hour
	MaxFinalAfter = 720 * time.Hour
	// MinMaxWait and MaxMaxWait bound how long a plan lets work wait. What has waited for longer is looked for every 5
	// seconds, which is a twelfth of the least bound; the greatest is the longest period of a plan, near enough.
	MinMaxWait = time.Minute
	MaxMaxWait = 720 * time.Hour
	// MaxUsageTypes is how many types of use a plan may price, and MaxGrants how many grants a UserQuota may have.
	MaxUsageTypes = 32
	MaxGrants     = 64
)

// CheckKey checks an idempotency key that a caller gives: 1 to MaxKey bytes of visible characters. A key with a space
// in it is an EventKey's.
func CheckKey(key string) error {
	return checkKey(key, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsGraphic(r) },
		"visible characters without spaces")
}

// EventKey returns the idempotency key of a CloudEvent, which its source and id name, whoever its subject is. A source
// is a URI reference, so the first space ends it.
func EventKey(source, id string) (string, error) {
	if len(source)+len(id) > MaxKey-1 {
		return "", fmt.Errorf("source and id have %d bytes together, the limit is %d", len(source)+len(id), MaxKey-1)
	}
	key := source + " " + id
	if source == "" || id == "" || strings.ContainsRune(source, ' ') {
		return "", fmt.Errorf("source %.80q and id %.80q must not be empty, and the source must be without spaces",
			source, id)
	}
	return key, checkKey(key, unicode.IsControl, "characters that can be written")
}

// CheckAnyKey checks a key that is a caller's own or an event's.
func CheckAnyKey(key string) error {
	if source, id, event := strings.Cut(key, " "); event {
		_, err := EventKey(source, id)
		return err
	}
	return CheckKey(key)
}

func checkKey(key string, bad func(rune) bool, rule string) error {
	switch {
	case key == "" || len(key) > MaxKey:
		return fmt.Errorf("has %d bytes, it must have 1 to %d", len(key), MaxKey)
	case !utf8.ValidString(key) || strings.ContainsFunc(key, bad):
		return fmt.Errorf("%.80q must consist of %s", key, rule)
	}
	return nil
}

// CheckReason checks the reason for which somebody acts, which people read: 1 to MaxReason characters, no control
// characters. The error is an ErrInvalid.
func CheckReason(reason string) error {
	switch n := utf8.RuneCountInString(reason); {
	case strings.TrimSpace(reason) == "":
		return Invalid("reason", "must not be empty")
	case n > MaxReason:
		return Invalid("reason", "has %d characters, it must have 1 to %d", n, MaxReason)
	case !utf8.ValidString(reason) || strings.ContainsFunc(reason, unicode.IsControl):
		return Invalid("reason", "must be text without control characters")
	}
	return nil
}
