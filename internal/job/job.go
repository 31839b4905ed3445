// SPDX-License-Identifier: Apache-2.0

// Package job reads what a Kubernetes Job says about the audio that it transcribes: its label and annotations before it
// runs, its containers' termination messages afterwards. The webhook and the controller share it, so that both see the
// same Job; the admission policy has the same grammars in CEL.
package job

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Declared is what a Job declares.
type Declared struct {
	UserID   string
	Estimate quota.Credits
	FileSize int64
	// Container whose termination message reports the actual duration; may be empty.
	Container string
	Priority  int32
}

// The grammars are those of config/policy/jobs.yaml; the user id's is quota's. The bounds on the digits keep a sum
// within what a duration can hold.
var (
	duration = regexp.MustCompile(
		`^(([0-9]{1,4}(\.[0-9]{1,9})?h)|([0-9]{1,6}(\.[0-9]{1,9})?m)|([0-9]{1,8}(\.[0-9]{1,9})?s)|([0-9]{1,11}ms))+$`)
	priority = regexp.MustCompile(`^(0|-?[1-9][0-9]{0,3})$`)
)

const (
	maxDuration = 64
	maxQuantity = 32
)

// Parse reads the labels and annotations of a Job. Its errors name the field, the value and the limit.
func Parse(labels, annotations map[string]string) (Declared, error) {
	d := Declared{UserID: labels[v1alpha1.UserLabel], Container: annotations[v1alpha1.ContainerAnnotation]}
	if err := quota.UserIDs.Check(d.UserID); err != nil {
		return Declared{}, fmt.Errorf("label %s: the user id %w", v1alpha1.UserLabel, err)
	}
	var errs []error
	var err error
	if d.Estimate, err = parseDuration(annotations[v1alpha1.AudioDurationAnnotation]); err != nil {
		errs = append(errs, fmt.Errorf("annotation %s: %w", v1alpha1.AudioDurationAnnotation, err))
	}
	if size, ok := annotations[v1alpha1.FileSizeAnnotation]; ok {
		if d.FileSize, err = parseSize(size); err != nil {
			errs = append(errs, fmt.Errorf("annotation %s: %w", v1alpha1.FileSizeAnnotation, err))
		}
	}
	if p, ok := annotations[v1alpha1.PriorityAnnotation]; ok {
		if d.Priority, err = parsePriority(p); err != nil {
			errs = append(errs, fmt.Errorf("annotation %s: %w", v1alpha1.PriorityAnnotation, err))
		}
	}
	if len(errs) > 0 {
		return Declared{}, errors.Join(errs...)
	}
	return d, nil
}

func parseDuration(text string) (quota.Credits, error) {
	if text == "" {
		return 0,
			fmt.Errorf(
				"is required: declare the length of the audio as a duration such as 12m30s, above 0 and at most %s",
				longest)
	}
	if len(text) <= maxDuration && duration.MatchString(text) {
		if d, err := time.ParseDuration(text); err == nil {
			if c, err := quota.CreditsForAudio(d); err == nil {
				return c, nil
			}
		}
	}
	return 0,
		fmt.Errorf(
			"%.80q must be a duration such as 12m30s in h, m, s and ms, above 0, at most %s, and a whole number of "+
				"milliseconds",
			text, longest)
}

func parseSize(text string) (int64, error) {
	if len(text) <= maxQuantity {
		q, err := resource.ParseQuantity(text)
		// Compared as a quantity, because its Value saturates.
		if err == nil && q.Sign() > 0 && q.Cmp(*resource.NewQuantity(quota.MaxFileSize, resource.BinarySI)) <= 0 {
			return q.Value(), nil
		}
	}
	return 0, fmt.Errorf("%.80q must be a quantity such as 24Mi, above 0 and at most 1Ti", text)
}

func parsePriority(text string) (int32, error) {
	if priority.MatchString(text) {
		if n, err := strconv.ParseInt(text, 10, 32); err == nil && n >= -quota.MaxPriority && n <= quota.MaxPriority {
			return int32(n), nil
		}
	}
	return 0, fmt.Errorf("%.80q must be an integer from %d to %d", text, -quota.MaxPriority, quota.MaxPriority)
}

// longest is quota.MaxAudio as people write it.
var longest = fmt.Sprintf("%dh", quota.MaxAudio/time.Hour)

// QueueLabel is the label by which Kueue takes a Job over.
const QueueLabel = "kueue.x-k8s.io/queue-name"

// CheckShape says what keeps a Job from being one transcription of this operator's, in the words of the admission
// policy, which has judged only Jobs that were created where it refuses.
func CheckShape(job *batchv1.Job) error {
	one := func(field string, value *int32) error {
		if value == nil || *value == 1 {
			return nil
		}
		return fmt.Errorf(
			"%s: is %d, it must be 1: a Job that spends a user's quota is one transcription; create one Job for each",
			field, *value)
	}
	managedBy := job.Spec.ManagedBy
	switch {
	case managedBy != nil && *managedBy != batchv1.JobControllerName:
		return fmt.Errorf(
			"spec.managedBy: is '%s', only %s is supported for a Job that spends a user's quota; leave it out",
			*managedBy, batchv1.JobControllerName)
	case job.Spec.ManualSelector != nil && *job.Spec.ManualSelector:
		return errors.New(
			"spec.manualSelector: is true: the pods of a Job that spends a user's quota are known by the labels " +
				"that Kubernetes gives them; leave it out")
	case job.Labels[QueueLabel] != "":
		return fmt.Errorf(
			"metadata.labels[%s]: is '%s': a Job that spends a user's quota cannot wait in a Kueue queue as well; "+
				"leave the label out",
			QueueLabel, job.Labels[QueueLabel])
	}
	return errors.Join(one("spec.parallelism", job.Spec.Parallelism), one("spec.completions", job.Spec.Completions))
}

// Held reports whether the Job's owner holds it back.
func Held(annotations map[string]string) bool { return annotations[v1alpha1.HoldAnnotation] == "true" }

// maxMessage bounds how much of a termination message is read: a report is short.
const maxMessage = 256

// ParseTermination reads the actual duration from a container's termination message: {"duration_seconds": 12.5} or a Go
// duration. The text is the container's, so it is not trusted: it must say something above zero and at most
// quota.MaxAudio. Fractions of a millisecond are rounded.
func ParseTermination(message string) (quota.Credits, error) {
	if len(message) > maxMessage {
		return 0, fmt.Errorf("the termination message has %d bytes, the limit of a report is %d", len(message),
			maxMessage)
	}
	text := strings.TrimSpace(message)
	d, err := time.ParseDuration(text)
	if strings.HasPrefix(text, "{") {
		d, err = parseReport(text)
	} else if err != nil {
		err = fmt.Errorf(
			`the termination message %q is neither {"duration_seconds": 12.5} nor a duration such as 12.5s`, text)
	}
	if err != nil {
		return 0, err
	}
	if d > quota.MaxAudio {
		return 0, fmt.Errorf("the termination message reports %s, the limit is %s", d, longest)
	}
	if d = d.Round(time.Millisecond); d <= 0 {
		return 0, fmt.Errorf("the termination message %q reports no audio: the duration must be above 0", text)
	}
	return quota.CreditsForAudio(d)
}

// maxSeconds bounds the digits of a report, so that no exponent or length makes the arithmetic expensive.
const maxSeconds = 24

func parseReport(text string) (time.Duration, error) {
	var report struct {
		Seconds json.Number `json:"duration_seconds"`
	}
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	if err := decoder.Decode(&report); err != nil {
		return 0, fmt.Errorf("the termination message %q is not JSON: %w", text, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("the termination message %q has more than one JSON value", text)
	}
	number := report.Seconds.String()
	seconds, ok := new(big.Rat), false
	if len(number) <= maxSeconds && !strings.ContainsAny(number, "eE") {
		seconds, ok = seconds.SetString(number)
	}
	if !ok {
		return 0, fmt.Errorf("the termination message %q must have a decimal number in duration_seconds", text)
	}
	if seconds.Cmp(new(big.Rat).SetInt64(int64(quota.MaxAudio/time.Second))) > 0 {
		return 0, fmt.Errorf("the termination message %q reports more than the limit of %s", text, longest)
	}
	nanoseconds := seconds.Mul(seconds, new(big.Rat).SetInt64(int64(time.Second)))
	whole := new(big.Int).Quo(nanoseconds.Num(), nanoseconds.Denom())
	if !whole.IsInt64() {
		return 0, fmt.Errorf("the termination message %q reports no audio: the duration must be above 0", text)
	}
	return time.Duration(whole.Int64()), nil
}
