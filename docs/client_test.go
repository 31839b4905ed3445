// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/usagedtest"
)

// snippet returns the only block of a language on a page.
func snippet(t *testing.T, page, language string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(text), "```"+language+"\n")
	block, _, closed := strings.Cut(block, "```\n")
	if !found || !closed {
		t.Fatalf("%s has no block of %s", page, language)
	}
	return block
}

// The snippets for other languages do what they say, where the machine has what runs them.
func TestSnippets(t *testing.T) {
	for language, run := range map[string]struct {
		file    string
		program []string
	}{
		"python": {"snippet.py", []string{"python3"}},
		"ts":     {"snippet.mts", []string{"node", "--experimental-strip-types", "--no-warnings"}},
	} {
		t.Run(language, func(t *testing.T) {
			text := snippet(t, "client.md", language)
			if _, err := exec.LookPath(run.program[0]); err != nil {
				t.Skip(err)
			}
			if language == "ts" &&
				exec.CommandContext(t.Context(), "node", "--experimental-strip-types", "-e", "0").Run() != nil {
				t.Skip("this node runs no TypeScript")
			}
			usaged := usagedtest.New(t, "the-token")
			file := filepath.Join(t.TempDir(), run.file)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), run.program[0], append(run.program[1:], file)...)
			cmd.Env = append(os.Environ(), "USAGED="+usaged.URL(), "TOKEN=the-token")
			if out, err := cmd.CombinedOutput(); err != nil || string(out) != "Settled 12250\n" {
				t.Errorf("got %q, %v", out, err)
			}
			usaged.Standing(quota.Credits(12250), 0, 0)
		})
	}
}
