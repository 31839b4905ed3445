// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// call is one request to the HTTP service.
type call struct {
	method, path string
	// headers beside the content type and the authorization.
	headers []string
	body    string
	// authorization is the header of that name; the service account's token if empty.
	authorization string
}

// curl makes the request with a curl command line and decodes the answer, whose status has to be want, into v.
func (s *story) curl(ctx context.Context, c call, want int, v any) error {
	if c.authorization == "" {
		c.authorization = "Bearer $TOKEN"
	}
	lines := []string{"curl -sS -w 'HTTP %{http_code}\\n' -X " + c.method + ` "$USAGED` + c.path + `"`,
		`-H "Authorization: ` + c.authorization + `"`}
	for _, h := range c.headers {
		lines = append(lines, "-H '"+h+"'")
	}
	if c.body != "" {
		lines = append(lines, "-H 'Content-Type: application/json' -d '"+c.body+"'")
	}
	answer, err := s.succeed(ctx, strings.Join(lines, " \\\n      "))
	if err != nil {
		return err
	}
	const mark = "HTTP "
	i := strings.LastIndex(answer, mark)
	if i < 0 {
		return fmt.Errorf("expected curl to print the status last, got %q", answer)
	}
	status, err := strconv.Atoi(strings.TrimSpace(answer[i+len(mark):]))
	if err != nil {
		return err
	}
	if status != want {
		return fmt.Errorf("expected status %d, got %d", want, status)
	}
	if err := json.Unmarshal([]byte(answer[:i]), v); err != nil {
		return fmt.Errorf("expected JSON: %w", err)
	}
	return nil
}
