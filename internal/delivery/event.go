// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// The attributes of what is sent. docs/notifications.md tells them to receivers.
const (
	eventSource = "urn:cantonesescribe:usage"
	eventAlert  = "io.cantonesescribe.alert.raised"
	eventTest   = "io.cantonesescribe.alert.test"
)

// event is a CloudEvent in structured mode.
type event struct {
	SpecVersion     string    `json:"specversion"`
	ID              string    `json:"id"`
	Source          string    `json:"source"`
	Type            string    `json:"type"`
	Subject         string    `json:"subject"`
	Time            time.Time `json:"time"`
	DataContentType string    `json:"datacontenttype"`
	Data            any       `json:"data"`
}

type eventLevel struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// alertData says of an alert what does not change: a retry has the same body.
type alertData struct {
	ID               string          `json:"id"`
	Level            eventLevel      `json:"level"`
	Kind             quota.AlertKind `json:"kind"`
	Severity         string          `json:"severity"`
	ThresholdPercent int32           `json:"threshold_percent,omitempty"`
	Period           int64           `json:"period"`
	Plan             string          `json:"plan,omitempty"`
	Grant            string          `json:"grant,omitempty"`
	ExhaustedAt      time.Time       `json:"exhausted_at,omitzero"`
	Used             json.Number     `json:"used"`
	Limit            json.Number     `json:"limit,omitempty"`
	Currency         string          `json:"currency,omitempty"`
	Message          string          `json:"message"`
	Action           string          `json:"action"`
	RaisedAt         time.Time       `json:"raised_at"`
	EndsAt           time.Time       `json:"ends_at"`
}

// alertEvent returns the body that tells of an alert. Its id is the alert's.
func alertEvent(a *ledger.Alert) ([]byte, error) {
	amount := func(n int64) json.Number { return json.Number(quota.Credits(n).String()) }
	if a.Currency != "" {
		amount = func(n int64) json.Number { return json.Number(quota.Money(n).String()) }
	}
	data := alertData{
		ID: a.ID.String(), Level: eventLevel{Kind: string(a.Level.Kind), Name: a.Level.Name}, Kind: a.Kind,
		Severity: string(a.Severity()), ThresholdPercent: a.Threshold, Period: a.PeriodNo, Plan: a.Plan,
		Used: amount(a.Used), Currency: a.Currency, Message: a.Message(), Action: a.Action(), RaisedAt: a.RaisedAt,
		EndsAt: a.Until, ExhaustedAt: a.Expected,
	}
	if !a.Unlimited {
		data.Limit = amount(a.Limit)
	}
	if a.Kind == quota.AlertGrantExpiring {
		data.Grant = a.Subject
	}
	return json.Marshal(event{
		SpecVersion: "1.0", ID: data.ID, Source: eventSource, Type: eventAlert,
		Subject: strings.ToLower(data.Level.Kind) + "/" + a.Level.Name, Time: a.RaisedAt,
		DataContentType: "application/json", Data: data,
	})
}

// testEvent returns the body of a test, which is about nobody.
func testEvent(id string, e *Endpoint, now time.Time) ([]byte, error) {
	subject := "endpoint/" + e.Name
	if e.Team != "" {
		subject = "team/" + e.Team + "/" + subject
	}
	return json.Marshal(event{
		SpecVersion: "1.0", ID: id, Source: eventSource, Type: eventTest, Subject: subject, Time: now.UTC(),
		DataContentType: "application/json",
		Data: struct {
			Message string `json:"message"`
		}{"A test of the endpoint: no limit is concerned."},
	})
}
