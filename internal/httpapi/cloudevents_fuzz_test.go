// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"testing"

	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Whatever comes as a CloudEvent is either told what is wrong with it, or a use that the ledger can book if the user's
// plan names its type: which types there are is the plan's to say, also of one that can be no type.
func FuzzCloudEvent(f *testing.F) {
	for _, seed := range []string{
		`{"specversion":"1.0","id":"1","source":"/a","type":"io.cantonesescribe.usage.transcription",` +
			`"subject":"alice","data":{"duration_seconds":60}}`,
		`{"specversion":"1.0","id":"1","source":"/a","type":"io.cantonesescribe.usage.export","subject":"alice",` +
			`"time":"2026-03-14T12:00:00Z","datacontenttype":"application/json",` +
			`"data":{"credits":1.5,"metadata":{"a":"b"}}}`,
		`{"specversion":"1.0","id":"1","source":"/a","type":"x","data_base64":"e30="}`,
		`{"specversion":"1.0","id":"0","source":"0","type":"io.cantonesescribe.usage.0","subject":"0"}`,
		`{"specversion":"0.3"}`, `{}`, `[]`, `{"id":"1","id":"2"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		it := parseCloudEvent(data)
		if it.err != nil {
			if it.err.Error() == "" {
				t.Errorf("%q is refused without a reason", data)
			}
			return
		}
		r := &it.req
		if quota.UserIDs.Check(r.UserID) != nil || r.Use.Type == "" || r.Key == "" || len(r.Key) > quota.MaxKey {
			t.Errorf("%q is a use of %q, %q, key %q", data, r.UserID, r.Use.Type, r.Key)
		}
	})
}
