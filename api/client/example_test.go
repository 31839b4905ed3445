// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/cantonesescribe/usage-operator/api/client"
	"github.com/cantonesescribe/usage-operator/internal/testing/usagedtest"
)

// An upload form asks before it takes a file, and tells its user what the service said.
func Example() {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"can_process":false,"would_queue":false,"blocking_reason":"CreditsExhausted",`+
			`"message":"alice has 2 credits left of 30, 12.5 are needed"}`)
	}))
	defer service.Close()
	api, err := client.Connect(service.URL, "")
	if err != nil {
		fmt.Println(err)
		return
	}
	request := client.CheckRequest{UserId: "alice", EstimatedDurationSeconds: "750", FileSizeBytes: 24 << 20}
	r, err := api.CheckUsageWithResponse(context.Background(), request, client.Bearer(client.StaticToken("eyJ...")))
	if err != nil {
		fmt.Println(err)
		return
	}
	verdict, err := client.Answered(r, nil, r.JSON200)
	if refusal, ok := errors.AsType[*client.Error](err); ok {
		fmt.Println(refusal.Status, refusal)
		return
	}
	fmt.Println(verdict.CanProcess, verdict.BlockingReason == client.ReasonCreditsExhausted, verdict.Message)
	// Output: false true alice has 2 credits left of 30, 12.5 are needed
}

// A worker transcribes under a slot of its user, and is charged what it used.
func ExampleMeter_Do() {
	usaged, end := usagedtest.Example("eyJ...")
	defer end()

	api, err := client.Connect(usaged.URL(), "")
	if err != nil {
		fmt.Println(err)
		return
	}
	meter := &client.Meter{API: api, Token: client.StaticToken("eyJ...")} // in a pod: client.ProjectedToken()
	work := client.Work{UserID: "alice", Key: "interview-17", Audio: 13 * time.Minute, FileSize: 24 << 20}
	transcribe := func(ctx context.Context) (time.Duration, error) {
		return 12*time.Minute + 30*time.Second, ctx.Err() // what there was to hear
	}
	admission, err := meter.Do(context.Background(), work, transcribe)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(admission.State, admission.ChargedCredits)

	// The same again is the same work.
	_, err = meter.Do(context.Background(), work, transcribe)
	fmt.Println(errors.Is(err, client.ErrCharged))

	// What cannot be is refused with the limit.
	work.Key, work.Audio = "interview-18", 20*time.Minute
	_, err = meter.Do(context.Background(), work, transcribe)
	if refusal, ok := errors.AsType[*client.Error](err); ok {
		fmt.Println(refusal.Reason, refusal.Requested, refusal.Remaining, refusal.Unit)
	}
	// Output:
	// Settled 12.5
	// true
	// CreditsExhausted 20 17.5 credits
}
