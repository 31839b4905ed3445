// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/cantonesescribe/usage-operator/api/client"
)

// An upload form asks before it takes a file, and tells its user what the service said.
func Example() {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"can_process":false,"would_queue":false,"blocking_reason":"CreditsExhausted",`+
			`"message":"alice has 2 credits left of 30, 12.5 are needed"}`)
	}))
	defer service.Close()
	token, err := os.CreateTemp("", "token")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.Remove(token.Name())
	fmt.Fprintln(token, "eyJ...") // in a pod: a projected service account token with audience usaged

	api, err := client.Connect(service.URL, "")
	if err != nil {
		fmt.Println(err)
		return
	}
	request := client.CheckRequest{UserId: "alice", EstimatedDurationSeconds: "750", FileSizeBytes: 24 << 20}
	r, err := api.CheckUsageWithResponse(context.Background(), request, client.Bearer(token.Name()))
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
