// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/cantonesescribe/usage-operator/internal/ledger"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

var eventID = quota.EventID(uuid.MustParse("0198c5f0-0000-7000-8000-00000000000e"))

const (
	usagePath   = "/api/v1/usage"
	exportBody  = `{"user_id":"alice","usage_type":"export"}`
	cloudExport = `{"specversion":"1.0","id":"7","source":"/exporter","type":"io.cantonesescribe.usage.export",` +
		`"subject":"alice"}`
)

func charge() *ledger.Event {
	return &ledger.Event{
		ID: eventID, Account: accountID, UserID: "alice", Kind: ledger.EventCharge, UsageType: "export",
		OccurredAt: noon.Add(-time.Hour),
		RecordedAt: noon, Credits: 90_000, Cost: 1_500_000, Currency: "USD", CostCurrency: "USD", Quantity: 3,
		Rate: new(quota.Rate(500_000)), PlanName: "free",
		PlanVersion: 2, RecordedBy: "system:serviceaccount:transcripts:spender",
		Metadata: map[string]string{"format": "srt"},
	}
}

func with(object, members string) string {
	return strings.TrimSuffix(object, "}") + "," + members + "}"
}

func TestUsesThatCannotBeRead(t *testing.T) {
	const structured, batch = "application/cloudevents+json", "application/cloudevents-batch+json"
	many := "[" + strings.TrimSuffix(strings.Repeat(`{},`, 1001), ",") + "]"
	for name, tc := range map[string]struct {
		request
		want       int
		wantDetail string
	}{
		"no right":         {request{body: exportBody, token: "Bearer reader"}, 403, "may not spend"},
		"an admin's right": {request{body: exportBody, token: "Bearer admin"}, 403, "may not spend"},
		"by lease":         {request{body: exportBody, token: "Lease " + lease}, 401, "needs a bearer token"},
		"no key":           {request{body: exportBody, key: "-"}, 400, "Idempotency-Key is required"},
		"two keys":         {request{body: with(exportBody, `"key":"k"`)}, 422, "key is for the items of a batch"},
		"unknown field":    {request{body: with(exportBody, `"minutes":1`)}, 400, `no field "minutes"`},
		"no user":          {request{body: `{"usage_type":"export"}`}, 422, "user_id is required"},
		"no type":          {request{body: `{"user_id":"alice"}`}, 422, "usage_type is required"},
		"quantity": {request{body: with(exportBody, `"quantity":0`)}, 422,
			"quantity: 0 must be between 1 and 1000000"},
		"duration": {request{body: with(exportBody, `"duration_seconds":-1`)}, 422,
			"duration_seconds: -1 must be between 0 and 2592000"},
		"negative credits": {request{body: with(exportBody, `"credits":-1`)}, 422,
			"credits: -1 must be between 0 and 10000000"},
		"many credits": {request{body: with(exportBody, `"credits":10000000.001`)}, 422,
			"credits: 10000000.001 must be"},
		"fine credits": {request{body: with(exportBody, `"credits":0.0001`)}, 422, "at most 3 decimals"},
		"cost": {request{body: with(exportBody, `"cost":0.0000001`)}, 422,
			"cost: 0.0000001 must be between 0 and"},
		"cost as text": {request{body: with(exportBody, `"cost":"1"`)}, 400, "cost is of type string"},
		"occurred_at": {request{body: with(exportBody, `"occurred_at":"yesterday"`)}, 422,
			`occurred_at: "yesterday" must be an instant`},
		"metadata of numbers": {request{body: with(exportBody, `"metadata":{"a":1}`)}, 400,
			"metadata is of type number"},
		"empty batch": {request{body: `[]`}, 422, "1 to 1000 items, this one has 0"},
		"large batch": {request{body: many}, 422, "this one has 1001"},
		"large body":  {request{body: "[" + strings.Repeat(" ", 1<<20) + "]"}, 413, "limit of 1048576 bytes"},
		"text": {request{body: exportBody, contentType: "text/plain"}, 415,
			"application/cloudevents-batch+json"},
		"string": {request{body: `"export"`}, 400, "must be an object"},

		"event: no object": {request{body: `[]`, contentType: structured}, 400, "a CloudEvent must be an object"},
		"event: no batch":  {request{body: cloudExport, contentType: batch}, 400, "a batch must be an array"},
		"event: version": {request{body: strings.Replace(cloudExport, "1.0", "0.3", 1), contentType: structured},
			422, `specversion: "0.3" must be 1.0`},
		"event: no version": {request{body: `{"id":"7"}`, contentType: structured}, 400, "specversion"},
		"event: no id": {request{body: strings.Replace(cloudExport, `"id":"7",`, "", 1),
			contentType: structured}, 422, "id"},
		"event: no source": {request{body: strings.Replace(cloudExport, `"source":"/exporter",`, "", 1),
			contentType: structured}, 422, "source"},
		"event: no subject": {request{body: strings.Replace(cloudExport, `,"subject":"alice"`, "", 1),
			contentType: structured}, 422, "subject is required"},
		"event: foreign type": {request{body: strings.Replace(cloudExport, "io.canto", "io.manda", 1),
			contentType: structured}, 422, "must begin with io.cantonesescribe.usage."},
		"event: no usage type": {request{body: strings.Replace(cloudExport, "usage.export", "usage.", 1),
			contentType: structured}, 422, "usage_type is required"},
		"event: time": {request{body: with(cloudExport, `"time":"noon"`), contentType: structured}, 400,
			"not a CloudEvent"},
		"event: XML": {request{body: with(cloudExport, `"datacontenttype":"application/xml","data":"<a/>"`),
			contentType: structured}, 422, "datacontenttype"},
		"event: data": {request{body: with(cloudExport, `"data":{"minutes":1}`), contentType: structured}, 400,
			`data: malformed JSON: there is no field "minutes"`},
		"event: user twice": {request{body: with(cloudExport, `"data":{"user_id":"bob"}`), contentType: structured},
			422, "data must not have"},
		"event: data as text": {request{body: with(cloudExport, `"data":"seven"`), contentType: structured}, 400,
			"data: malformed JSON"},
		"event: long id": {request{body: strings.Replace(cloudExport, `"7"`, `"`+strings.Repeat("7", 246)+`"`, 1),
			contentType: structured}, 422, "255 bytes together, the limit is 254"},
		"event: another user": {request{body: strings.Replace(cloudExport, "alice", "bob", 1),
			contentType: structured}, 403, `user "bob"`},
	} {
		t.Run(name, func(t *testing.T) {
			tc.path = usagePath
			w := do(handler(t, &fake{}), tc.request)
			if w.Code != tc.want {
				t.Fatalf("status: got %d, want %d; body %s", w.Code, tc.want, w.Body)
			}
			if detail, _ := decode(t, w)["detail"].(string); !strings.Contains(detail, tc.wantDetail) {
				t.Errorf("detail: got %q, want it to contain %q", detail, tc.wantDetail)
			}
		})
	}
}

func TestUseIsRead(t *testing.T) {
	full := `{"user_id":"alice","usage_type":"export","occurred_at":"2026-03-14T20:00:00.1234567+08:00",
	    "duration_seconds":2.5,"quantity":3,
		"credits":1.5,"file_size_bytes":7,"tokens":8,"cost":0.030001,"currency":"USD","metadata":{"format":"srt"}}`
	want := metering.RecordRequest{
		UserID: "alice", Key: "k", FileSize: 7, Tokens: 8, Currency: "USD",
		Metadata:   map[string]string{"format": "srt"},
		RecordedBy: "system:serviceaccount:transcripts:spender",
		Use: quota.Use{
			Type: "export", Credits: new(90 * quota.Credit / 60), Audio: 2500 * time.Millisecond, Quantity: 3,
			Cost:       new(quota.Money(30_001)),
			OccurredAt: noon.Add(123_456 * time.Microsecond),
		},
	}
	f := &fake{}
	w := do(handler(t, f), request{path: usagePath, body: full})
	if w.Code != 201 || w.Header().Get("Location") != usagePath+"/events/"+eventID.String() {
		t.Fatalf("got %d at %q: %s", w.Code, w.Header().Get("Location"), w.Body)
	}
	f.uses[0].BodyHash, f.uses[0].Same = nil, nil
	if diff := cmp.Diff([]metering.RecordRequest{want}, f.uses); diff != "" {
		t.Errorf("request to metering (-want +got):\n%s", diff)
	}
	equalJSON(t, w.Body.String(), `{"id":"0198c5f0-0000-7000-8000-00000000000e","user_id":"alice","payer_id":"alice",
	    "payer_kind":"User","kind":"charge","usage_type":"export",
		"credits":1.5,"credits_ms":90000,"cost":1.5,"currency":"USD","quantity":3,"credits_per_unit":0.5,
		    "occurred_at":"2026-03-14T11:00:00Z",
		"recorded_at":"2026-03-14T12:00:00Z","period_no":0,"plan":"free","plan_version":2,"metadata":{"format":"srt"},
		"recorded_by":"system:serviceaccount:transcripts:spender",
		"standing":{"used_credits":24,"remaining_credits":6,"over_limit":false,"resets_at":"2026-04-01T00:00:00Z"}}`)

	t.Run("repeated", func(t *testing.T) {
		f := &fake{recorded: []metering.RecordResult{{Event: charge(), On: quota.Alone(alice()), Now: noon}}}
		if w := do(handler(t, f), request{path: usagePath, body: full}); w.Code != 200 ||
			w.Header().Get("Location") != "" {
			t.Errorf("got %d: %s", w.Code, w.Body)
		}
	})
	t.Run("cost in another currency", func(t *testing.T) {
		e := charge()
		e.CostCurrency = "EUR"
		f := &fake{recorded: []metering.RecordResult{{Event: e, On: quota.Alone(alice()), Now: noon}}}
		got := decode(t, do(handler(t, f), request{path: usagePath, body: full}))
		if got["currency"] != "USD" || got["cost_currency"] != "EUR" {
			t.Errorf("got %v", got)
		}
	})
	t.Run("over the limit", func(t *testing.T) {
		a := alice()
		a.PlanUsed += 10 * quota.Credit
		f := &fake{recorded: []metering.RecordResult{{Event: charge(), On: quota.Alone(a), Now: noon}}}
		w := do(handler(t, f), request{path: usagePath, body: full})
		if got, _ := decode(t, w)["standing"].(map[string]any); got["over_limit"] != true ||
			got["overdrawn_credits"] != json.Number("4") {
			t.Errorf("got %v", got)
		}
	})
}

// The same use in other words is the same use, and each part of it counts.
func TestUseHash(t *testing.T) {
	hash := func(body string) string {
		f := &fake{}
		if w := do(handler(t, f), request{path: usagePath, body: body}); w.Code != 201 {
			t.Fatalf("got %d: %s", w.Code, w.Body)
		}
		return string(f.uses[0].BodyHash)
	}
	base := with(exportBody, `"occurred_at":"2026-03-14T12:00:00Z","metadata":{"a":"1","b":"2"}`)
	for name, tc := range map[string]struct {
		body string
		same bool
	}{
		"spelled anew": {strings.Replace(base, `{"user_id"`, `{"quantity":1.0,"user_id"`, 1), true},
		"other words": {`{"metadata":{"b":"2","a":"1"},"quantity":1,"occurred_at":"2026-03-14T20:00:00+08:00",
		    "usage_type":"export","user_id":"alice"}`, true},
		"another type":     {strings.Replace(base, "export", "api_call", 1), false},
		"another instant":  {strings.Replace(base, "12:00:00", "12:00:01", 1), false},
		"quantity":         {with(base, `"quantity":2`), false},
		"no credits":       {with(base, `"credits":0`), false},
		"duration":         {with(base, `"duration_seconds":1`), false},
		"size":             {with(base, `"file_size_bytes":1`), false},
		"tokens":           {with(base, `"tokens":1`), false},
		"cost":             {with(base, `"cost":0`), false},
		"currency":         {with(base, `"currency":"USD"`), false},
		"another metadata": {strings.Replace(base, `"1"`, `"3"`, 1), false},
	} {
		if got := hash(tc.body) == hash(base); got != tc.same {
			t.Errorf("%s: got same=%t, want %t", name, got, tc.same)
		}
	}
}

// Hashes are kept for weeks, and a release must know those that an earlier one made.
func TestHashesStay(t *testing.T) {
	f := &fake{admit: metering.AdmitResult{Admission: admitted()}}
	h := handler(t, f)
	use := with(exportBody,
		`"occurred_at":"2026-03-14T12:00:00Z","credits":1.5,"cost":0.03,"tokens":8,"metadata":{"a":"1"}`)
	if w := do(h, request{path: usagePath, body: use}); w.Code != 201 {
		t.Fatalf("got %d: %s", w.Code, w.Body)
	}
	const wantUse = "65ecfc550c04924d288fc41d1eac340ec7c544adf073a5c6580db89d8a5604c8"
	if got := hex.EncodeToString(f.uses[0].BodyHash); got != wantUse {
		t.Errorf("use: got %s, want %s", got, wantUse)
	}
	do(h, request{body: `{"user_id":"alice","estimated_duration_seconds":60,"file_size_bytes":1}`})
	const wantAdmission = "ff19ed424a586f5b4297e24442135c75f4a5fbbec8e7f93cc5ea3abf2f27e19d"
	if got := hex.EncodeToString(f.got.BodyHash); got != wantAdmission {
		t.Errorf("admission: got %s, want %s", got, wantAdmission)
	}
}

func TestCloudEventIsRead(t *testing.T) {
	data := `"time":"2026-03-14T12:00:00Z","traceparent":"00-1","datacontenttype":"application/json; charset=utf-8",
	    "data":{"quantity":3}`
	want := metering.RecordRequest{
		UserID: "alice", Key: "/exporter 7", RecordedBy: "system:serviceaccount:transcripts:spender",
		Use: quota.Use{Type: "export", Quantity: 3, OccurredAt: noon},
	}
	for name, q := range map[string]request{
		"structured": {body: with(cloudExport, data), contentType: "application/cloudevents+json; charset=UTF-8"},
		"base64": {body: with(strings.Replace(cloudExport, `"id"`, `"data_base64":"eyJxdWFudGl0eSI6M30=","id"`, 1),
			`"time":"2026-03-14T12:00:00Z"`), contentType: "application/cloudevents+json"},
		"binary": {body: `{"quantity":3}`},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{}
			r := httptest.NewRequest(http.MethodPost, usagePath, strings.NewReader(q.body))
			r.Header.Set("Authorization", "Bearer spender")
			r.Header.Set("Content-Type", q.contentType)
			if name == "binary" {
				r.Header.Set("Content-Type", "application/json")
				for k, v := range map[string]string{
					"specversion": "1.0", "id": "%37", "source": "/exporter", "type": "io.cantonesescribe.usage.export",
					"subject": "alice",
					"time":    "2026-03-14T12:00:00Z", "traceparent": "00-1",
				} {
					r.Header.Set("Ce-"+k, v)
				}
			}
			w := httptest.NewRecorder()
			handler(t, f).ServeHTTP(w, r)
			if w.Code != 201 {
				t.Fatalf("got %d: %s", w.Code, w.Body)
			}
			f.uses[0].BodyHash, f.uses[0].Same = nil, nil
			if diff := cmp.Diff([]metering.RecordRequest{want}, f.uses); diff != "" {
				t.Errorf("request to metering (-want +got):\n%s", diff)
			}
		})
	}
	for header, tc := range map[string]struct{ value, want string }{
		"Ce-Specversion": {"0.3", "ce-specversion"}, "Ce-Id": {"%zz", "ce-id"}, "Ce-Time": {"noon", "ce-time"},
	} {
		r := httptest.NewRequest(http.MethodPost, usagePath, strings.NewReader("{}"))
		r.Header.Set("Authorization", "Bearer spender")
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Ce-Specversion", "1.0")
		r.Header.Set(header, tc.value)
		w := httptest.NewRecorder()
		handler(t, &fake{}).ServeHTTP(w, r)
		if detail, _ := decode(t, w)["detail"].(string); w.Code != 422 || !strings.Contains(detail, tc.want) {
			t.Errorf("%s: %s: got %d: %s", header, tc.value, w.Code, detail)
		}
	}
}

func TestBatchReportsEachItem(t *testing.T) {
	f := &fake{
		recorded: []metering.RecordResult{{Event: charge(), On: quota.Alone(alice()), Now: noon, Created: true},
			{Event: charge(), On: quota.Alone(alice()), Now: noon}},
		failed: []error{nil, nil, ledger.ErrKeyReused, errors.New("secret of the database")},
	}
	item := func(members string) string { return with(exportBody, members) }
	body := "[" + strings.Join([]string{
		item(`"key":"1"`), `{"usage_type":"export"}`, item(`"key":"2"`),
		strings.Replace(item(`"key":"3"`), "alice", "bob", 1),
		item(`"key":"4"`), item(`"key":"a b"`), `7`, item(`"key":"5"`),
	}, ",") + "]"
	w := do(handler(t, f), request{path: usagePath, body: body, key: "-"})
	if w.Code != 207 {
		t.Fatalf("got %d: %s", w.Code, w.Body)
	}
	var got UsageBatch
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	var statuses []int
	for i, it := range got.Items {
		statuses = append(statuses, it.Status)
		if (it.Status < 300) != (it.Problem.Status == 0) || (it.Status < 300) != (it.Event.Id == uuid.UUID(eventID)) ||
			(it.Status >= 300 && it.Problem.Status != it.Status) {
			t.Errorf("item %d: got %+v", i, it)
		}
	}
	if want := []int{201, 422, 200, 403, 422, 422, 400, 500}; !slices.Equal(statuses, want) {
		t.Errorf("statuses: got %v, want %v", statuses, want)
	}
	if got.Recorded != 1 || got.Repeated != 1 || got.Failed != 6 {
		t.Errorf("counts: got %d, %d, %d", got.Recorded, got.Repeated, got.Failed)
	}
	if strings.Contains(w.Body.String(), "secret") {
		t.Error("an item tells what only the log may know")
	}
	if len(f.uses) != 4 {
		t.Errorf("%d uses reached metering, want 4", len(f.uses))
	}
}

func TestCorrections(t *testing.T) {
	reverse := request{path: usagePath + "/" + eventID.String() + "/reverse", body: `{"reason":"a mistake"}`,
		token: "Bearer admin"}
	adjust := request{path: usagePath + "/adjustments", body: `{"user_id":"alice","credits":2.5,"reason":"shared"}`,
		token: "Bearer admin"}
	read := request{method: "GET", path: usagePath + "/events/" + eventID.String()}
	edit := func(q request, f func(*request)) request { f(&q); return q }
	for name, tc := range map[string]struct {
		request
		want       int
		wantDetail string
	}{
		"reversed":              {reverse, 201, ""},
		"reversed by a spender": {edit(reverse, func(q *request) { q.token = "" }), 403, "may not adjust"},
		"reversed without key":  {edit(reverse, func(q *request) { q.key = "-" }), 400, "Idempotency-Key"},
		"reversed by a lease":   {edit(reverse, func(q *request) { q.token = "Lease " + lease }), 401, "bearer"},
		"another event": {edit(reverse,
			func(q *request) { q.path = strings.Replace(q.path, "00e/", "00f/", 1) }), 404, "not found"},
		"no event":              {edit(reverse, func(q *request) { q.path = usagePath + "/7/reverse" }), 400, "id"},
		"field of a reversal":   {edit(reverse, func(q *request) { q.body = `{"why":""}` }), 400, "why"},
		"adjusted":              {adjust, 201, ""},
		"adjusted by a spender": {edit(adjust, func(q *request) { q.token = "" }), 403, "may not adjust"},
		"adjusted by nothing": {edit(adjust, func(q *request) { q.body = `{"user_id":"alice","reason":"r"}` }), 422,
			"credits is required"},
		"adjusted downwards": {edit(adjust,
			func(q *request) { q.body = `{"user_id":"alice","credits":-1,"reason":"r"}` }), 422, "credits: -1"},
		"adjusted for nobody": {edit(adjust, func(q *request) { q.body = `{"credits":1,"reason":"r"}` }), 422,
			"user_id"},
		"read by a spender": {read, 200, ""},
		"read by a reader":  {edit(read, func(q *request) { q.token = "Bearer reader" }), 200, ""},
		"read by an admin":  {edit(read, func(q *request) { q.token = "Bearer admin" }), 200, ""},
		"read by nobody":    {edit(read, func(q *request) { q.token = "Bearer nobody" }), 403, "may not"},
		"read by a lease":   {edit(read, func(q *request) { q.token = "Lease " + lease }), 401, "bearer"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{event: charge()}
			w := do(handler(t, f), tc.request)
			if w.Code != tc.want {
				t.Fatalf("got %d, want %d: %s", w.Code, tc.want, w.Body)
			}
			if detail, _ := decode(t, w)["detail"].(string); !strings.Contains(detail, tc.wantDetail) {
				t.Errorf("detail: got %q, want it to contain %q", detail, tc.wantDetail)
			}
			if asked := f.undone.Actor+f.adjusted.Actor != ""; asked != (w.Code == 201) {
				t.Errorf("metering was asked for %+v and %+v", f.undone, f.adjusted)
			}
		})
	}
	f := &fake{event: charge()}
	do(handler(t, f), reverse)
	do(handler(t, f), adjust)
	f.undone.BodyHash, f.adjusted.BodyHash = nil, nil
	const admin = "system:serviceaccount:transcripts:admin"
	if diff := cmp.Diff(metering.ReverseRequest{Account: accountID, Event: eventID, Key: "k", Reason: "a mistake",
		Actor: admin}, f.undone); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(metering.AdjustRequest{UserID: "alice", Key: "k", Credits: 150_000, Reason: "shared",
		Actor: admin}, f.adjusted); diff != "" {
		t.Error(diff)
	}
}

func TestRecordingOnTheRealStore(t *testing.T) {
	h := onStore(t)
	current := func(want string) {
		t.Helper()
		got := must(t, h, request{method: "GET", path: "/api/v1/usage/current?user_id=alice"}, 200)
		if got["used_credits"] != json.Number(want) {
			t.Errorf("used: got %v, want %s", got["used_credits"], want)
		}
	}
	body := `{"user_id":"alice","usage_type":"transcription","duration_seconds":300}`
	first := must(t, h, request{path: usagePath, body: body, key: "one"}, 201)
	if again := must(t, h, request{path: usagePath, body: body, key: "one"}, 200); again["id"] != first["id"] {
		t.Errorf("the same again: got %v", again)
	}
	must(t, h, request{path: usagePath, body: strings.Replace(body, "300", "301", 1), key: "one"}, 422)
	current("5")

	items := make([]string, 1000)
	for i := range items {
		items[i] = fmt.Sprintf(`{"key":"b%d","user_id":"alice","usage_type":"api_call","credits":0.01}`, i)
	}
	items[500] = `{"key":"b500","user_id":"alice","usage_type":"telegram"}`
	batch := request{path: usagePath, body: "[" + strings.Join(items, ",") + "]", key: "-"}
	for _, want := range []string{`"recorded":999,"repeated":0`, `"recorded":0,"repeated":999`} {
		w := do(h, batch)
		if w.Code != 207 || !strings.Contains(strings.Join(strings.Fields(w.Body.String()), ""), `"failed":1`) {
			t.Fatalf("got %d: %.300s", w.Code, w.Body)
		}
		var got UsageBatch
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if counts := fmt.Sprintf(`"recorded":%d,"repeated":%d`, got.Recorded, got.Repeated); counts != want {
			t.Errorf("got %s, want %s", counts, want)
		}
		if p := got.Items[500].Problem; p.Status != 422 ||
			!strings.Contains(p.Detail, `"telegram" must be one of api_call, export, transcription`) {
			t.Errorf("the bad item: got %+v", p)
		}
	}
	current("14.99")

	cloud := request{path: usagePath, body: with(cloudExport, `"data":{"credits":20}`),
		contentType: "application/cloudevents+json"}
	got := must(t, h, cloud, 201)
	if standing, _ := got["standing"].(map[string]any); standing["over_limit"] != true ||
		standing["overdrawn_credits"] != json.Number("4.99") {
		t.Errorf("beyond the limit: got %v", got["standing"])
	}
	if w := do(h, request{body: work(1), key: "new"}); w.Code != 429 {
		t.Errorf("new work of somebody who is over the limit: got %d", w.Code)
	}
	undo := request{path: usagePath + "/" + got["id"].(string) + "/reverse", body: `{"reason":"sent twice"}`,
		token: "Bearer admin", key: "undo"}
	reversal := must(t, h, undo, 201)
	if reversal["kind"] != "reversal" || reversal["reverses"] != got["id"] || reversal["reason"] != "sent twice" {
		t.Errorf("reversal: got %v", reversal)
	}
	must(t, h, undo, 200)
	undo.key = "again"
	must(t, h, undo, 409)
	if e := must(t, h, request{method: "GET", path: usagePath + "/events/" + got["id"].(string)},
		200); e["reversed_by"] != reversal["id"] {
		t.Errorf("the charge: got %v", e)
	}
	if again := must(t, h, cloud, 200); again["reversed_by"] != reversal["id"] {
		t.Errorf("the event sent again after its reversal: got %v", again)
	}
	current("14.99")
	must(t, h, request{path: usagePath + "/adjustments", body: `{"user_id":"alice","credits":0.01,"reason":"r"}`,
		token: "Bearer admin", key: "a"}, 201)
	current("15")
}

// Source and id are an event's identity: sent again, with another time or in another mode, it is the first one; with
// other data, another type or another subject it is refused.
func TestCloudEventSentAgain(t *testing.T) {
	const structured, batch = "application/cloudevents+json", "application/cloudevents-batch+json"
	now := time.Now().UTC().Truncate(time.Second)
	at := func(ago time.Duration) string { return fmt.Sprintf(`"time":%q`, now.Add(-ago).Format(time.RFC3339)) }
	const data = `"data":{"credits":2,"quantity":3,"metadata":{"a":"1","b":"2"}}`
	binary := func(ago time.Duration, body string) request {
		return request{path: usagePath, token: "Bearer exporter", body: body, key: "-", headers: map[string]string{
			"Ce-Specversion": "1.0", "Ce-Id": "7", "Ce-Source": "/exporter",
			"Ce-Type":    "io.cantonesescribe.usage.export",
			"Ce-Subject": "alice", "Ce-Time": now.Add(-ago).Format(time.RFC3339), "Ce-Traceparent": "00-3",
		}}
	}
	event := func(members ...string) request {
		return request{path: usagePath, token: "Bearer exporter", body: with(cloudExport, strings.Join(members, ",")),
			contentType: structured}
	}
	other := func(from, to string) request {
		q := event(at(time.Hour), data)
		q.body = strings.Replace(q.body, from, to, 1)
		return q
	}
	for name, first := range map[string]request{
		"with a time":    event(at(time.Hour), data, `"traceparent":"00-1"`),
		"without a time": event(data),
		"binary":         binary(time.Hour, `{"credits":2,"quantity":3,"metadata":{"a":"1","b":"2"}}`),
	} {
		t.Run(name, func(t *testing.T) {
			h := onStore(t)
			made := must(t, h, first, 201)
			for again, q := range map[string]request{
				"as it was":    first,
				"a fresh time": event(at(0), data, `"traceparent":"00-2","tracestate":"x=1"`),
				"no time":      event(data),
				"a schema": event(at(time.Hour), data,
					`"dataschema":"https://example.com/v2","datacontenttype":"application/json"`),
				"data in other words": event(at(time.Minute),
					`"data": {"metadata":{"b":"2","a":"1"}, "quantity":3.0, "credits":2.00}`),
				"binary": binary(time.Minute,
					`{ "quantity":3e0, "credits":2, "metadata":{"b":"2","a":"1"} }`),
			} {
				if got := must(t, h, q, 200); got["id"] != made["id"] || got["occurred_at"] != made["occurred_at"] {
					t.Errorf("%s: got %v, want %v", again, got, made)
				}
			}
			for conflict, q := range map[string]request{
				"data": other(`"credits":2`, `"credits":3`), "type": other("usage.export", "usage.api_call"),
				"subject":     other("alice", "bob"),
				"no metadata": event(at(time.Hour), `"data":{"credits":2,"quantity":3}`),
			} {
				if got := must(t, h, q, 422); !strings.HasSuffix(got["type"].(string), "key-reused") {
					t.Errorf("another %s: got %v", conflict, got)
				}
			}
			if got := must(t, h, request{method: "GET", path: "/api/v1/usage/current?user_id=alice"},
				200); got["used_credits"] != json.Number("2") {
				t.Errorf("used: got %v, want 2", got["used_credits"])
			}
		})
	}
	t.Run("in one batch", func(t *testing.T) {
		h := onStore(t)
		events := []string{
			event(at(time.Hour), data).body, event(at(0), data).body, other("alice", "bob").body,
			other(`"credits":2`, `"credits":3`).body,
		}
		got := UsageBatch{}
		w := do(h, request{path: usagePath, token: "Bearer exporter", body: "[" + strings.Join(events, ",") + "]",
			contentType: batch})
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatalf("%v: %s", err, w.Body)
		}
		statuses := []int{}
		for i := range got.Items {
			statuses = append(statuses, got.Items[i].Status)
		}
		// Of two users nobody says whose use is recorded first, and so has the key.
		switch {
		case slices.Equal(statuses, []int{201, 200, 422, 422}) && got.Items[0].Event.Id == got.Items[1].Event.Id:
		case slices.Equal(statuses, []int{422, 422, 201, 422}):
		default:
			t.Errorf("got %v: %s", statuses, w.Body)
		}
	})
	t.Run("no data", func(t *testing.T) {
		h := onStore(t)
		made := must(t, h, request{path: usagePath, token: "Bearer exporter", body: cloudExport,
			contentType: structured}, 201)
		if got := must(t, h, binary(0, ""), 200); got["id"] != made["id"] {
			t.Errorf("got %v, want %v", got, made)
		}
	})
}

// One number has many spellings, and JSON that was read and written again another one.
func TestNumbersInOtherWords(t *testing.T) {
	for spelled, want := range map[string]string{
		"0": "0", "-0": "0", "0.000": "0", "0e7": "0", "1": "1", "1.0": "1", "1e0": "1", "10E-1": "1", "0.1e+1": "1",
		"-1.50": "-1.5",
		"750.0": "750", "7.5e2": "750", "7.5E+02": "750", "1e6": "1000000", "25e-4": "0.0025", "1.25e1": "12.5",
		"123.4567e2": "12345.67",
		"100":        "100", "1e21": "1e21", "1e-999999999999999999999": "1e-999999999999999999999",
	} {
		var n Number
		if err := json.Unmarshal([]byte(spelled), &n); err != nil || string(n) != want {
			t.Errorf("%s: got %s, %v; want %s", spelled, n, err, want)
		}
	}
	for spelled, want := range map[string]Integer{"3": 3, "3.0": 3, "30e-1": 3, "-3.00": -3, "1e12": 1_000_000_000_000,
		"null": 0} {
		var i Integer
		if err := json.Unmarshal([]byte(spelled), &i); err != nil || i != want {
			t.Errorf("%s: got %d, %v; want %d", spelled, i, err, want)
		}
	}
	for _, spelled := range []string{"3.5", "1e19", "1e30", `"3"`, "true", "[]"} {
		var i Integer
		if err := json.Unmarshal([]byte(spelled), &i); err == nil {
			t.Errorf("%s: got %d, want an error", spelled, i)
		}
	}
}

// The plain spelling of a number is the same number.
func TestPlainNumbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.StringMatching(`-?(0|[1-9][0-9]{0,12})(\.[0-9]{1,12})?([eE][+-]?[0-9]{1,2})?`).Draw(t, "number")
		want, ok := new(big.Rat).SetString(n)
		got, fine := new(big.Rat).SetString(plain(n))
		if !ok || !fine || want.Cmp(got) != 0 {
			t.Fatalf("%s became %s", n, plain(n))
		}
		if plain(plain(n)) != plain(n) {
			t.Fatalf("%s: %s becomes %s", n, plain(n), plain(plain(n)))
		}
	})
}

// Whatever is sent, what gets through is within the bounds that metering relies on.
func FuzzUses(f *testing.F) {
	for _, seed := range []string{
		exportBody, cloudExport, with(exportBody, `"key":"k","credits":1.5,"metadata":{"a":"b"}`),
		with(cloudExport, `"data":{"quantity":3}`),
		"[" + cloudExport + "," + exportBody + "]", `[{"key":1}]`, `{"specversion":"1.0","data_base64":"e30="}`, `[[]]`,
		`null`, `{"user_id":null}`,
		with(exportBody, `"occurred_at":"2026-03-14T12:00:00Z","cost":0.03,"duration_seconds":1.001`),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		items := []item{parseOne("k", data), parseCloudEvent(data),
			parseBinaryCloudEvent(&CreateUsageParams{CeSpecversion: "1.0", CeId: string(data)}, data)}
		for _, parse := range []func([]byte) item{parseItem, parseCloudEvent} {
			batch, err := parseBatch(data, parse)
			if err == nil && (len(batch) == 0 || len(batch) > maxItems) {
				t.Fatalf("a batch of %d items", len(batch))
			}
			items = append(items, batch...)
		}
		for _, it := range items {
			if it.err != nil {
				if p := classify(it.err); p.Status < 400 || p.Status >= 500 {
					t.Fatalf("%v is answered with %d", it.err, p.Status)
				}
				continue
			}
			r := it.req
			if quota.UserIDs.Check(r.UserID) != nil || r.Key == "" || len(r.Key) > quota.MaxKey || r.Use.Type == "" ||
				len(r.BodyHash) != 32 ||
				r.Use.Quantity < 1 || r.Use.Quantity > quota.MaxQuantity || r.Use.Audio < 0 ||
				r.Use.Audio > quota.MaxAudio {
				t.Fatalf("got through: %+v", r)
			}
			if c := r.Use.Credits; c != nil && (*c < 0 || *c > quota.MaxRecordCredits) {
				t.Fatalf("%d credits got through", *c)
			}
			if m := r.Use.Cost; m != nil && (*m < 0 || *m > quota.MaxMoney) {
				t.Fatalf("a cost of %d got through", *m)
			}
		}
	})
}
