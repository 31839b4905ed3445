// SPDX-License-Identifier: Apache-2.0

// Package console is the face for people: the pages of web/dist, and how a browser signs in to them. What the pages
// show and do they ask of the public API, as anybody else.
package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
)

// Options say what is served.
type Options struct {
	// Framers are the origins whose pages may show the usage page in a frame. None may show the console.
	Framers []string
	// SignIn lets people sign in; without it they cannot, and the pages say so.
	SignIn *SignIn
}

// What a page may do. Whatever it loads is from here, nothing is in line, and it asks for no device.
const (
	contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
		"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors "
	permissions = "accelerometer=(), autoplay=(), camera=(), display-capture=(), " +
		"encrypted-media=(), fullscreen=(), geolocation=(), gyroscope=(), magnetometer=(), microphone=(), midi=(), " +
		"payment=(), picture-in-picture=(), publickey-credentials-get=(), screen-wake-lock=(), usb=(), " +
		"xr-spatial-tracking=()"
)

// maxFramers bounds a header that every answer has.
const maxFramers = 50

// Handlers returns what is served, by route.
func Handlers(opts Options) (map[string]http.Handler, error) {
	if err := CheckFramers(opts.Framers); err != nil {
		return nil, err
	}
	framers := "'none'"
	if len(opts.Framers) > 0 {
		framers = strings.Join(opts.Framers, " ")
	}
	files, err := fs.Sub(dist, "web/dist")
	if err != nil {
		return nil, err
	}
	routes, err := pages(files, framers)
	if err != nil {
		return nil, fmt.Errorf("the pages: %w", err)
	}
	routes["GET /auth/login"] = opts.SignIn.handle(opts.SignIn.login)
	routes["GET /auth/callback"] = opts.SignIn.handle(opts.SignIn.callback)
	routes["GET /auth/session"] = opts.SignIn.handle(opts.SignIn.session)
	routes["POST /auth/logout"] = opts.SignIn.handle(opts.SignIn.logout)
	return routes, nil
}

// CheckFramers says whether origins may be named as Options.Framers. Its errors name the origin and what it must be.
func CheckFramers(origins []string) error {
	if len(origins) > maxFramers {
		return fmt.Errorf("%d origins are given, the limit is %d", len(origins), maxFramers)
	}
	for _, origin := range origins {
		if err := checkOrigin(origin); err != nil {
			return err
		}
	}
	return nil
}

// checkOrigin takes scheme://host or scheme://host:port, which is no wildcard and breaks no header.
func checkOrigin(origin string) error {
	u, err := url.Parse(origin)
	if err != nil || !slices.Contains([]string{"http", "https"}, u.Scheme) || u.Hostname() == "" ||
		origin != u.Scheme+"://"+u.Host || strings.ContainsAny(origin, "*;, '\"") {
		return fmt.Errorf("origin %q: must be scheme://host or scheme://host:port, with http or https and no "+
			"wildcard, and nothing behind", origin)
	}
	return nil
}

// pages are the routes of the bundle. Its files have fixed names, so browsers ask each time whether they have changed.
func pages(files fs.FS, framers string) (map[string]http.Handler, error) {
	routes := map[string]http.Handler{}
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		name := entry.Name()
		if entry.IsDir() {
			continue
		}
		content, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		f, err := newFile(name, content)
		if err != nil {
			return nil, err
		}
		switch name {
		case "console.html":
			f.header.Set("Content-Security-Policy", contentPolicy+"'none'")
			routes["GET /console"], routes["GET /console/{path...}"] = f, f
		case "usage.html":
			f.header.Set("Content-Security-Policy", contentPolicy+framers)
			routes["GET /usage"], routes["GET /usage/{path...}"] = f, f
		case "widget.js":
			// Pages of other origins load it, also as a module.
			f.header.Set("Cross-Origin-Resource-Policy", "cross-origin")
			f.header.Set("Access-Control-Allow-Origin", "*")
			routes["GET /widget.js"] = f
		default:
			routes["GET /assets/"+name] = f
		}
	}
	for _, route := range []string{"GET /console", "GET /usage", "GET /widget.js"} {
		if routes[route] == nil {
			return nil, fmt.Errorf("%s: the bundle has no file for it", route)
		}
	}
	return routes, nil
}

// file is one of the bundle, as it is sent.
type file struct {
	header        http.Header
	plain, zipped []byte
	tag           string
}

// types are those of the bundle's files: not the system's, which may have other ones or none.
var types = map[string]string{
	".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
	".svg": "image/svg+xml", ".json": "application/json", ".woff2": "font/woff2", ".png": "image/png",
	".txt": "text/plain; charset=utf-8",
}

func newFile(name string, content []byte) (*file, error) {
	kind := types[path.Ext(name)]
	if kind == "" {
		return nil, fmt.Errorf("%s: files of that type are not known", name)
	}
	hash := sha256.Sum256(content)
	f := &file{plain: content, tag: base64.RawURLEncoding.EncodeToString(hash[:18]), header: http.Header{}}
	for key, value := range map[string]string{
		"Content-Type": kind, "Cache-Control": "no-cache", "Vary": "Accept-Encoding",
		"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Permissions-Policy": permissions,
		"Cross-Origin-Resource-Policy": "same-origin", "Content-Security-Policy": "default-src 'none'",
	} {
		f.header.Set(key, value)
	}
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	f.zipped = b.Bytes()
	return f, nil
}

// ServeHTTP sends the file, compressed where the browser takes that, or that it has not changed.
func (f *file) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	for key, values := range f.header {
		h[key] = slices.Clone(values)
	}
	content, tag := f.plain, f.tag
	if r.Header.Get("Range") == "" && takesGzip(r.Header.Get("Accept-Encoding")) {
		h.Set("Content-Encoding", "gzip")
		content, tag = f.zipped, tag+"-gzip"
	}
	h.Set("ETag", `"`+tag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

// takesGzip reports whether a browser takes it: all do, and none says so with a weight of 0.
func takesGzip(accepted string) bool {
	for coding := range strings.SplitSeq(accepted, ",") {
		name, weight, _ := strings.Cut(coding, ";")
		weight = strings.ReplaceAll(strings.TrimSpace(weight), " ", "")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") && strings.TrimRight(weight, "0.") != "q=" {
			return true
		}
	}
	return false
}
