// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestCurl(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/back" {
			http.Redirect(w, r, "/x?code=1", http.StatusFound)
			return
		}
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, r.Method+" "+r.URL.RequestURI()+" "+r.Header.Get("Authorization")+" "+string(body))
	}))
	t.Cleanup(server.Close)

	for name, tc := range map[string]struct {
		args []string
		want string
		code int
	}{
		"everything that the demo asks for": {
			args: []string{"-sS", "-w", `\nHTTP %{http_code}\n`, "-X", "POST", server.URL + "/x?a=b", "-H",
				"Authorization: Bearer t", "-d", "{}"},
			want: "POST /x?a=b Bearer t {}\nHTTP 418\n",
		},
		"where a redirect leads": {
			args: []string{"-sS", "-o", "/dev/null", "-w", `%{redirect_url}`, server.URL + "/back"},
			want: server.URL + "/x?code=1",
		},
		"GET where nothing else is said": {
			args: []string{server.URL},
			want: "GET /  ",
		},
		"POST where there is a body": {
			args: []string{"-d", "{}", server.URL},
			want: "POST /  {}",
		},
		"nobody there": {
			args: []string{"http://127.0.0.1:1"},
			code: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out, problems bytes.Buffer
			if code := curl(tc.args, &out, &problems); code != tc.code || (code != 0) != (problems.Len() > 0) {
				t.Errorf("got code %d and error output %q, want code %d", code, &problems, tc.code)
			}
			if got := out.String(); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
