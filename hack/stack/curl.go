// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// curl does what the demo's command lines ask of curl, for machines that have none: -sS, -X, -H, -d, -o /dev/null, -w
// and a URL, and the authority in CURL_CA_BUNDLE.
func curl(args []string, out, problems io.Writer) int {
	method, body, format, address := "", "", "", ""
	header, shown := http.Header{}, out
	for i := 0; i < len(args); i++ {
		value := func() string {
			if i++; i < len(args) {
				return args[i]
			}
			return ""
		}
		switch args[i] {
		case "-sS":
		case "-X":
			method = value()
		case "-H":
			name, content, _ := strings.Cut(value(), ":")
			header.Add(name, strings.TrimSpace(content))
		case "-d":
			body = value()
		case "-o":
			if value() == os.DevNull {
				out = io.Discard
			}
		case "-w":
			format = value()
		default:
			address = args[i]
		}
	}
	if method == "" {
		method = http.MethodGet
		if body != "" {
			method = http.MethodPost
		}
	}
	status, redirect, err := fetch(method, address, body, header, out)
	if err != nil {
		_, _ = fmt.Fprintln(problems, "curl:", err)
		return 1
	}
	_, _ = io.WriteString(shown, strings.NewReplacer(`\n`, "\n", "%{http_code}", strconv.Itoa(status),
		"%{redirect_url}", redirect).Replace(format))
	return 0
}

func fetch(
	method, address, body string, header http.Header, out io.Writer,
) (status int, redirect string, err error) {
	req, err := http.NewRequest(method, address, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header = header
	if body != "" && header.Get("Content-Type") == "" {
		header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	roots := x509.NewCertPool()
	if file := os.Getenv("CURL_CA_BUNDLE"); file == "" {
		roots = nil // those of the system
	} else if pem, err := os.ReadFile(file); err != nil {
		return 0, "", err
	} else {
		roots.AppendCertsFromPEM(pem)
	}
	client := &http.Client{
		Timeout:       time.Minute,
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	if to, err := resp.Location(); err == nil {
		redirect = to.String()
	}
	_, err = io.Copy(out, resp.Body)
	return resp.StatusCode, redirect, err
}

// provideCurl puts this program into dir under curl's name.
func provideCurl(dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return os.Symlink(self, dir+"/curl")
}
