// SPDX-License-Identifier: Apache-2.0

package middleware_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"

	"github.com/cantonesescribe/usage-operator/api/client"
	"github.com/cantonesescribe/usage-operator/api/client/middleware"
	"github.com/cantonesescribe/usage-operator/internal/testing/usagedtest"
)

// An API whose exports cost a credit each.
func Example() {
	usaged, end := usagedtest.Example("eyJ...")
	defer end()

	api, err := client.Connect(usaged.URL(), "")
	if err != nil {
		fmt.Println(err)
		return
	}
	metered, err := middleware.New(middleware.Options{
		Meter:     &client.Meter{API: api, Token: client.StaticToken("eyJ...")}, // in a pod: client.ProjectedToken()
		User:      func(r *http.Request) string { return r.Header.Get("X-Signed-In") },
		UsageType: "export",
		Failed:    func(_ *http.Request, err error) { slog.Error("usage", "error", err) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	export := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "1\n00:00:01,000 --> 00:00:02,000\nhello\n")
		middleware.Used(r.Context(), client.UsageRecord{Credits: "1", Metadata: map[string]string{"format": "srt"}})
	})
	server := httptest.NewServer(metered(export))
	defer server.Close()

	r, err := http.NewRequest(http.MethodGet, server.URL, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	r.Header.Set("X-Signed-In", "alice")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	fmt.Println(resp.StatusCode)
	// Output: 200
}
