// SPDX-License-Identifier: Apache-2.0

package quota_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// An error says what is wrong in words, and what kind it is to programs only; layers around it take away neither.
func TestErrors(t *testing.T) {
	kinds := []error{quota.ErrInvalid, quota.ErrNotFound, quota.ErrConflict}
	for _, tc := range []struct {
		err    error
		kind   error
		reason quota.Reason
		text   string
	}{
		{quota.Invalid("quantity", "%d must be between 1 and %d", 0, 9), quota.ErrInvalid, "",
			"quantity: 0 must be between 1 and 9"},
		{quota.Invalid("", "%q is no amount", "x"), quota.ErrInvalid, "", `"x" is no amount`},
		{quota.NotFound("plan %q", "pro"), quota.ErrNotFound, "", `plan "pro": not found`},
		{quota.Conflict(`plan "a"`, "plan %q is the default", "b"), quota.ErrConflict, "",
			`plan "a": plan "b" is the default`},
		{quota.Unfit(quota.Settled, "it has been charged already"), quota.ErrConflict, "",
			"admission is Settled: it has been charged already"},
		{quota.Unknown("alice", quota.UnknownUser), quota.ErrNotFound, quota.UnknownUser,
			`user "alice": the user is not known`},
	} {
		wrapped := fmt.Errorf("settle: %w", tc.err)
		if tc.err.Error() != tc.text || wrapped.Error() != "settle: "+tc.text {
			t.Errorf("got %q, want %q", tc.err, tc.text)
		}
		if got := quota.ReasonOf(wrapped); got != tc.reason {
			t.Errorf("%v: reason %q, want %q", tc.err, got, tc.reason)
		}
		for _, kind := range kinds {
			if got := errors.Is(wrapped, kind); got != (kind == tc.kind) { //nolint:errorlint // which it is
				t.Errorf("%v is %v: %t", tc.err, kind, got)
			}
		}
	}
	if got := quota.ReasonOf(errors.New("other")); got != "" {
		t.Errorf("got the reason %q", got)
	}
}
