// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"encoding/json"
	"mime"
	"net/url"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// cloudEventType is in front of the usage type in the type of a CloudEvent.
const cloudEventType = "io.cantonesescribe.usage."

// parseCloudEvent reads an event in structured mode.
func parseCloudEvent(data []byte) item {
	if !bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		return broken(malformed("a CloudEvent must be an object"))
	}
	var e event.Event
	if err := json.Unmarshal(data, &e); err != nil {
		return broken(malformed("not a CloudEvent: %v", err))
	}
	return fromCloudEvent(&e)
}

// parseBinaryCloudEvent reads an event in binary mode: attributes are headers, which encode with percents what is not
// printable ASCII, and the body is the data.
func parseBinaryCloudEvent(p *CreateUsageParams, data []byte) item {
	if p.CeSpecversion != event.CloudEventsVersionV1 {
		return broken(invalid("ce-specversion: %.40q must be %s", p.CeSpecversion, event.CloudEventsVersionV1))
	}
	e := event.New()
	for name, header := range map[string]struct {
		value string
		set   func(string)
	}{
		"ce-id": {p.CeId, e.SetID}, "ce-source": {p.CeSource, e.SetSource}, "ce-type": {p.CeType, e.SetType},
		"ce-subject": {p.CeSubject, e.SetSubject},
	} {
		value, err := url.PathUnescape(header.value)
		if err != nil {
			return broken(invalid("%s: %.80q must encode what is no printable ASCII, and %%, as %%XX: %v", name,
				header.value, err))
		}
		if value != "" {
			header.set(value)
		}
	}
	if p.CeTime != "" {
		at, err := time.Parse(time.RFC3339, p.CeTime)
		if err != nil {
			return broken(invalid("ce-time: %.40q must be an instant as in RFC 3339, such as 2026-03-14T12:00:00Z",
				p.CeTime))
		}
		e.SetTime(at)
	}
	e.SetDataContentType(event.ApplicationJSON)
	e.DataEncoded = data
	return fromCloudEvent(&e)
}

// fromCloudEvent makes a use of an event: its source and id are the key, its subject is the user, its time when it
// happened, and its type names the usage type. The rest is in the data. Whoever sends it again may give it another
// time, or trace attributes: it is the same event.
func fromCloudEvent(e *event.Event) item {
	if e.SpecVersion() != event.CloudEventsVersionV1 {
		return broken(invalid("specversion: %.40q must be %s", e.SpecVersion(), event.CloudEventsVersionV1))
	}
	if err := e.Validate(); err != nil {
		return broken(invalid("not a valid CloudEvent: %s", strings.Join(strings.Fields(err.Error()), " ")))
	}
	usageType, ours := strings.CutPrefix(e.Type(), cloudEventType)
	if !ours {
		return broken(invalid("type: %.80q must begin with %s", e.Type(), cloudEventType))
	}
	if kind, _, err := mime.ParseMediaType(e.DataContentType()); e.DataContentType() != "" &&
		(err != nil || kind != event.ApplicationJSON) {
		return broken(invalid("datacontenttype: %.80q must be %s", e.DataContentType(), event.ApplicationJSON))
	}
	var b UsageRecord
	if len(e.Data()) > 0 {
		if err := json.Unmarshal(e.Data(), &b); err != nil {
			return broken(problemIn("data", undecodable(err)))
		}
	}
	if b.Key != "" || b.UserId != "" || b.UsageType != "" || b.OccurredAt != "" {
		return broken(
			invalid(
				"data must not have key, user_id, usage_type or occurred_at: a CloudEvent has id and source, " +
					"subject, " +
					"type and time for them"))
	}
	var err error
	if b.Key, err = quota.EventKey(e.Source(), e.ID()); err != nil {
		return broken(invalid("%v", err))
	}
	b.UserId, b.UsageType = e.Subject(), usageType
	if b.UserId == "" {
		return broken(invalid("subject is required: it names the user"))
	}
	if !e.Time().IsZero() {
		b.OccurredAt = e.Time().Format(time.RFC3339Nano)
	}
	it := parseUse(&b)
	it.req.Same = sameUse(it.req, true)
	return it
}
