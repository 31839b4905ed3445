// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/rs/cors"
)

const (
	// maxOrigins bounds the list, which is looked through at each call of a browser.
	maxOrigins = 100
	// preflightAge is how long a browser need not ask again.
	preflightAge = 10 * time.Minute
)

// What scripts of other origins may send, and see of an answer, besides what every page may. Nothing of it is a cookie:
// callers name themselves in the header Authorization, so browsers need no credentials.
var (
	browserMethods = []string{
		http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
	}
	browserHeaders = []string{
		"Authorization", "Content-Type", headerKey, "If-None-Match", "Last-Event-ID", "Cache-Control",
	}
	shownHeaders = []string{"ETag", "Location", "Retry-After", headerLeft, headerPolicy, "WWW-Authenticate"}
)

// Browsers lets pages of some origins call, by the CORS protocol of the Fetch standard.
type Browsers struct{ cors *cors.Cors }

// NewBrowsers lets pages of these origins call; with none it is nil. Its errors name the origin and what is wrong with
// it.
func NewBrowsers(origins []string) (*Browsers, error) {
	if len(origins) > maxOrigins {
		return nil, fmt.Errorf("%d origins are given, the limit is %d", len(origins), maxOrigins)
	}
	for _, origin := range origins {
		if err := checkOrigin(origin); err != nil {
			return nil, err
		}
	}
	if len(origins) == 0 {
		return nil, nil //nolint:nilnil // nobody is let in, which is no error
	}
	return &Browsers{cors.New(cors.Options{
		AllowedOrigins: origins, AllowedMethods: browserMethods, AllowedHeaders: browserHeaders,
		ExposedHeaders: shownHeaders, MaxAge: int(preflightAge / time.Second),
	})}, nil
}

// checkOrigin takes an origin as browsers send it: scheme, host, and the port unless it is the scheme's own.
func checkOrigin(origin string) error {
	if strings.Contains(origin, "*") {
		return fmt.Errorf("origin %q: a wildcard lets in pages that nobody has listed; name each origin", origin)
	}
	u, err := url.Parse(origin)
	switch {
	case err != nil:
		return fmt.Errorf("origin %q: %w", origin, err)
	case !slices.Contains([]string{"http", "https"}, u.Scheme) || u.Host == "" || origin != u.Scheme+"://"+u.Host:
		return fmt.Errorf(
			"origin %q: must be scheme://host or scheme://host:port, with http or https, and nothing behind", origin)
	case strings.ToLower(origin) != origin:
		return fmt.Errorf("origin %q: browsers send it in lower case, as %q", origin, strings.ToLower(origin))
	case u.Hostname() == "" || strings.HasSuffix(u.Host, ":"):
		return fmt.Errorf("origin %q: the host or the port is missing", origin)
	case u.Scheme == "https" && u.Port() == "443" || u.Scheme == "http" && u.Port() == "80":
		return fmt.Errorf("origin %q: browsers leave the scheme's own port out, as %q", origin,
			u.Scheme+"://"+strings.TrimSuffix(u.Host, ":"+u.Port()))
	}
	return nil
}

// before answers what browsers ask before a call, and adds to all other answers who may see them: also to those that
// refuse to say more, so that a page can tell why.
func (b *Browsers) before(next http.Handler) http.Handler {
	if b == nil {
		return next
	}
	return b.cors.Handler(next)
}
