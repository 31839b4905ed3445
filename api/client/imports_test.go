// SPDX-License-Identifier: Apache-2.0

package client

import (
	"os/exec"
	"strings"
	"testing"
)

// maxImports is how many packages outside the standard library a program takes on by importing this one and its
// middleware, themselves included.
const maxImports = 15

// Whoever imports the client gets no more than it needs: nothing of the service, no Kubernetes, few packages of others.
func TestImports(t *testing.T) {
	const list = `{{if not .Standard}}{{.ImportPath}}{{end}}`
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", list, ".", "./middleware").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	got := strings.Fields(string(out))
	if len(got) == 0 || len(got) > maxImports {
		t.Errorf("%d packages outside the standard library, at most %d are right:\n%s", len(got), maxImports, out)
	}
	for _, path := range got {
		if strings.Contains(path, "/internal/") && strings.Contains(path, "usage-operator") ||
			strings.Contains(path, "k8s.io") {
			t.Errorf("imports %s", path)
		}
	}
}
