// SPDX-FileCopyrightText: The usage-operator authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// curl does what the demo's command lines ask of curl, for machines that have none: -sS, -X, -H, -d, -w and a URL.
func curl(args []string, out, problems io.Writer) int {
	method, body, format, url := "", "", "", ""
	header := http.Header{}
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
		case "-w":
			format = value()
		default:
			url = args[i]
		}
	}
	if method == "" {
		method = http.MethodGet
		if body != "" {
			method = http.MethodPost
		}
	}
	status, err := fetch(method, url, body, header, out)
	if err != nil {
		_, _ = fmt.Fprintln(problems, "curl:", err)
		return 1
	}
	_, _ = io.WriteString(out, strings.NewReplacer(`\n`, "\n", "%{http_code}", strconv.Itoa(status)).Replace(format))
	return 0
}

func fetch(method, url, body string, header http.Header, out io.Writer) (status int, err error) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header = header
	resp, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(out, resp.Body)
	return resp.StatusCode, err
}

// provideCurl puts this program into dir under curl's name.
func provideCurl(dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return os.Symlink(self, dir+"/curl")
}
