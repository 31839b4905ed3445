// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
)

// polled are the operations that are asked again and again, mostly for what the caller knows: their answers have an
// entity tag, and are not sent again.
var polled = map[string]bool{
	"getQueue": true, "getCurrentUsage": true, "getUsageHistory": true, "listUsageAlerts": true,
	"getTeamHistory": true, "listTeamAlerts": true,
}

// serveTagged answers with an entity tag, and without the body where the caller has that already. The tag is weak: it
// leaves out when it was looked, which is another instant each time.
func serveTagged(w http.ResponseWriter, r *http.Request, next http.Handler) {
	kept := &keptAnswer{ResponseWriter: w, status: http.StatusOK}
	next.ServeHTTP(kept, r)
	if kept.status == http.StatusOK {
		tag := entityTag(kept.body.Bytes())
		w.Header().Set("ETag", tag)
		w.Header().Set("Cache-Control", "private, no-cache")
		if matches(r.Header.Values("If-None-Match"), tag) {
			w.Header().Del("Content-Type")
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	w.WriteHeader(kept.status)
	_, _ = w.Write(kept.body.Bytes())
}

// keptAnswer keeps what is answered.
type keptAnswer struct {
	http.ResponseWriter

	status int
	body   bytes.Buffer
}

// WriteHeader keeps the status.
func (k *keptAnswer) WriteHeader(status int) { k.status = status }

// Write keeps a part of the body.
func (k *keptAnswer) Write(p []byte) (int, error) { return k.body.Write(p) }

// entityTag is the same for bodies that differ in their as_of only. In JSON no text contains that member's name with
// its quotes.
func entityTag(body []byte) string {
	hash := sha256.New()
	for {
		before, rest, found := bytes.Cut(body, []byte(`"as_of":"`))
		_, _ = hash.Write(before)
		if !found {
			break
		}
		_, body, _ = bytes.Cut(rest, []byte(`"`))
	}
	const enough = 18
	return `W/"` + base64.RawURLEncoding.EncodeToString(hash.Sum(nil)[:enough]) + `"`
}

// matches reports whether a tag is among those of If-None-Match, by weak comparison.
func matches(headers []string, tag string) bool {
	tag = strings.TrimPrefix(tag, "W/")
	for _, header := range headers {
		for candidate := range strings.SplitSeq(header, ",") {
			candidate = strings.TrimSpace(candidate)
			if candidate == "*" || strings.TrimPrefix(candidate, "W/") == tag {
				return true
			}
		}
	}
	return false
}
