// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/apipage"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const (
	maxWait = time.Minute
	// maxMaxAge is how many seconds old an answer may be.
	maxMaxAge = 60
)

// readBody leaves in r a body that is one JSON value as the operation takes it, or says what is wrong with it. What the
// value must hold is the generated code's business and that of the types below.
func readBody(w http.ResponseWriter, r *http.Request, op *operation) error {
	if r.Method == http.MethodGet {
		return nil
	}
	limit := cmp.Or(op.limit, maxBody)
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			return problem(http.StatusRequestEntityTooLarge, "body-too-large",
				"the body is larger than the limit of %d bytes", limit)
		}
		return problem(http.StatusBadRequest, "unreadable-body", "the body could not be read: %v", err)
	}
	if len(op.media) == 0 {
		if len(data) > 0 {
			return problem(http.StatusBadRequest, "unexpected-body",
				"this call takes no body, it has one of %d bytes", len(data))
		}
		return nil
	}
	if len(data) == 0 && op.optional {
		r.Body = http.NoBody
		return nil
	}
	if len(data) == 0 && r.Header.Get("Ce-Specversion") != "" && slices.Contains(op.media, kindCloudEvent) {
		// A CloudEvent in binary mode may have no data, and then says nothing of its type.
		data = []byte("{}")
		r.Header.Set("Content-Type", kindJSON)
	}
	given := r.Header.Get("Content-Type")
	kind, ok := mediaType(given, op.media)
	if !ok {
		return problem(http.StatusUnsupportedMediaType, "unsupported-media-type",
			"Content-Type: %q must be %s in UTF-8", given, strings.Join(op.media, " or "))
	}
	r.Header.Set("Content-Type", kind) // as the generated code looks for it
	if len(bytes.TrimSpace(data)) == 0 {
		return malformed("the body is empty")
	}
	if !json.Valid(data) {
		var value json.RawMessage
		err := json.Unmarshal(data, &value)
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return malformed("at byte %d: %v", syntax.Offset, err)
		}
		return malformed("%v", err)
	}
	if err := checkMembers(data); err != nil {
		return err
	}
	r.Body = io.NopCloser(bytes.NewReader(data))
	return nil
}

// mediaType returns which of the kinds a body is of.
func mediaType(contentType string, kinds []string) (string, bool) {
	kind, params, err := mime.ParseMediaType(contentType)
	charset, ok := params["charset"]
	return kind, err == nil && slices.Contains(kinds, kind) && (!ok || strings.EqualFold(charset, "utf-8"))
}

// The generated decoder takes no options, so the types of bodies refuse unknown fields themselves.

// UnmarshalJSON refuses unknown fields.
func (b *AdmissionRequest) UnmarshalJSON(data []byte) error {
	type plain AdmissionRequest
	return strict(data, (*plain)(b))
}

// UnmarshalJSON refuses unknown fields.
func (b *CompleteRequest) UnmarshalJSON(data []byte) error {
	type plain CompleteRequest
	return strict(data, (*plain)(b))
}

// UnmarshalJSON refuses unknown fields.
func (b *CheckRequest) UnmarshalJSON(data []byte) error {
	type plain CheckRequest
	return strict(data, (*plain)(b))
}

// UnmarshalJSON refuses unknown fields.
func (b *PortalTokenRequest) UnmarshalJSON(data []byte) error {
	type plain PortalTokenRequest
	return strict(data, (*plain)(b))
}

// UnmarshalJSON refuses unknown fields.
func (b *UserRequest) UnmarshalJSON(data []byte) error {
	type plain UserRequest
	return strict(data, (*plain)(b))
}

// UnmarshalJSON refuses unknown fields.
func (b *ActRequest) UnmarshalJSON(data []byte) error {
	type plain ActRequest
	return strict(data, (*plain)(b))
}

// UnmarshalJSON refuses unknown fields.
func (b *ForceRelease) UnmarshalJSON(data []byte) error {
	type plain ForceRelease
	return strict(data, (*plain)(b))
}

// UnmarshalJSON refuses unknown fields.
func (b *UserPatch) UnmarshalJSON(data []byte) error {
	type plain UserPatch
	return strict(data, (*plain)(b))
}

// UnmarshalJSON refuses unknown fields.
func (b *GrantRequest) UnmarshalJSON(data []byte) error {
	type plain GrantRequest
	return strict(data, (*plain)(b))
}

func strict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		return nil
	}
	// The decoder has no error of its own for an unknown field, only a text.
	if field, unknown := unknownField(data, reflect.TypeOf(v).Elem()); unknown {
		return &unknownFieldError{field: field}
	}
	return err
}

// unknownFieldError says that a body has a field that its type does not have.
type unknownFieldError struct{ field string }

func (e *unknownFieldError) Error() string { return fmt.Sprintf("there is no field %q", e.field) }

// unknownField finds the first field, by name, of an object that the struct has no field for, in it or further inside.
func unknownField(data []byte, object reflect.Type) (name string, unknown bool) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(data, &fields) != nil {
		return "", false
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		known, ok := object.FieldByNameFunc(func(goName string) bool {
			f, _ := object.FieldByName(goName)
			tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			return strings.EqualFold(cmp.Or(tag, goName), name) // as the decoder compares them
		})
		if !ok {
			return name, true
		}
		inner := known.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct {
			if within, unknown := unknownField(fields[name], inner); unknown {
				return within, true
			}
		}
	}
	return "", false
}

// queries are the parameters that each operation takes in its URL.
var queries = sync.OnceValue(func() map[string][]string {
	names, err := apipage.QueryParameters()
	if err != nil {
		panic(err) // the document is part of the program, and a test reads it
	}
	return names
})

// checkQuery refuses parameters in the URL that the operation does not have: a filter whose name is misspelt would
// choose everything.
func checkQuery(r *http.Request, op *operation) error {
	if r.URL.RawQuery == "" {
		return nil
	}
	sent, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return badParameter("the query of the URL: %v", err)
	}
	takes := queries()[op.id]
	for _, name := range slices.Sorted(maps.Keys(sent)) {
		switch {
		case slices.Contains(takes, name):
		case len(takes) == 0:
			return badParameter("%.64q is no parameter of this call, which takes none in its URL", name)
		default:
			return badParameter("%.64q is no parameter of this call, which takes %s in its URL", name,
				strings.Join(takes, ", "))
		}
	}
	return nil
}

func badParameter(format string, args ...any) error {
	return problem(http.StatusBadRequest, "malformed-request", format, args...)
}

// undecodable says what a request's body or parameters have wrong, given the generated code's error.
func undecodable(err error) error {
	if kind, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if kind.Field == "" {
			return malformed("the body is of type %s, it must be an object", kind.Value)
		}
		return malformed("%s is of type %s, it must be %s", kind.Field, kind.Value, jsonName(kind.Type.Kind().String()))
	}
	if missing, ok := errors.AsType[*RequiredHeaderError](err); ok {
		return problem(http.StatusBadRequest, "missing-header", "the header %s is required", missing.ParamName)
	}
	if missing, ok := errors.AsType[*RequiredParamError](err); ok {
		return badParameter("%s is required", missing.ParamName)
	}
	if param, ok := errors.AsType[*InvalidParamFormatError](err); ok {
		return badParameter("%s: %s", param.ParamName, unreadable(param.Err))
	}
	if unknown, ok := errors.AsType[*unknownFieldError](err); ok {
		return malformed("%v", unknown)
	}
	return problem(http.StatusBadRequest, "malformed-request", "%v", err)
}

// unreadable says what is wrong with a parameter's text.
func unreadable(err error) string {
	if number, ok := errors.AsType[*strconv.NumError](err); ok {
		if number.Func == "ParseBool" {
			return fmt.Sprintf("%.40q must be true or false", number.Num)
		}
		if errors.Is(number.Err, strconv.ErrRange) {
			return fmt.Sprintf("%.40q is further from zero than any number that is taken", number.Num)
		}
		return fmt.Sprintf("%.40q must be a whole number", number.Num)
	}
	if instant, ok := errors.AsType[*time.ParseError](err); ok {
		return fmt.Sprintf("%.40q must be an instant such as 2026-03-01T00:00:00Z", instant.Value)
	}
	return err.Error()
}

func jsonName(kind string) string {
	switch {
	case strings.HasPrefix(kind, "int"):
		return "a whole number"
	case strings.HasPrefix(kind, "float"):
		return "a number"
	case kind == "bool":
		return "true or false"
	}
	return "a " + kind
}

func checkUserID(id string) error {
	if id == "" {
		return invalid("user_id is required")
	}
	if err := quota.UserIDs.Check(id); err != nil {
		return invalid("user_id: %v", err)
	}
	return nil
}

// headerKey carries an idempotency key.
const headerKey = "Idempotency-Key"

func checkKey(key string) error {
	if key == "" {
		return problem(http.StatusBadRequest, "missing-header", "the header Idempotency-Key is required")
	}
	if err := quota.CheckKey(key); err != nil {
		return problem(http.StatusBadRequest, "malformed-request", "Idempotency-Key: %v", err)
	}
	return nil
}

func parseAudio(field string, n Number) (quota.Credits, error) {
	d, err := n.milliseconds(field, time.Millisecond, quota.MaxAudio)
	if err != nil {
		return 0, err
	}
	return quota.CreditsForAudio(d)
}

func parseWork(user string, estimate Number, fileSize int64, queue *bool) (quota.Request, error) {
	if err := checkUserID(user); err != nil {
		return quota.Request{}, err
	}
	audio, err := parseAudio("estimated_duration_seconds", estimate)
	if err != nil {
		return quota.Request{}, err
	}
	if fileSize < 1 || fileSize > quota.MaxFileSize {
		return quota.Request{}, invalid("file_size_bytes: %d must be between 1 and %d", fileSize, quota.MaxFileSize)
	}
	return quota.Request{Estimate: audio, FileSize: fileSize, Queue: queue == nil || *queue}, nil
}

func parseAdmission(key string, b *AdmissionRequest) (metering.AdmitRequest, error) {
	var req metering.AdmitRequest
	if err := checkKey(key); err != nil {
		return req, err
	}
	work, err := parseWork(b.UserId, b.EstimatedDurationSeconds, int64(b.FileSizeBytes), b.Queue)
	if err != nil {
		return req, err
	}
	if b.Priority < -quota.MaxPriority || b.Priority > quota.MaxPriority {
		return req, invalid("priority: %d must be between %d and %d", b.Priority, -quota.MaxPriority, quota.MaxPriority)
	}
	lease := quota.DefaultLease
	if b.LeaseSeconds != "" {
		if lease, err = b.LeaseSeconds.milliseconds("lease_seconds", quota.MinLease, quota.MaxLease); err != nil {
			return req, err
		}
	}
	// What the request means, not how it is spelled, tells two requests with one key apart.
	hash := sha256.Sum256(fmt.Appendf(nil, "%q %d %d %t %d %d", b.UserId, work.Estimate, work.FileSize, work.Queue,
		b.Priority, lease))
	return metering.AdmitRequest{
		UserID: b.UserId, Key: key, BodyHash: hash[:], Source: quota.SourceAPI, Estimate: work.Estimate,
		FileSize: work.FileSize,
		Queue:    work.Queue, Priority: int32(b.Priority), Lease: lease,
	}, nil
}

// parseMaxAge reads how old an answer may be.
func parseMaxAge(seconds int64) (time.Duration, error) {
	if seconds < 0 || seconds > maxMaxAge {
		return 0, invalid("max_age: %d must be between 0 and %d", seconds, maxMaxAge)
	}
	return time.Duration(seconds) * time.Second, nil
}

func parseWait(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, problem(http.StatusBadRequest, "malformed-request", "wait: %q must be a duration such as 30s", s)
	}
	if d < 0 || d > maxWait {
		return 0, invalid("wait: %s must be between 0s and %s", d, maxWait)
	}
	return d, nil
}
