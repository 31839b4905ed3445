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

// The snippets of Go are those of one program, which the compiler takes.
func TestGoSnippets(t *testing.T) {
	text, err := os.ReadFile("client.md")
	if err != nil {
		t.Fatal(err)
	}
	program := `package main

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/cantonesescribe/usage-operator/api/client"
	"github.com/cantonesescribe/usage-operator/api/client/middleware"
)

func transcribe(context.Context, string) (time.Duration, error) { return 0, nil }
func signedIn(*http.Request) string                              { return "" }
func export(http.ResponseWriter, *http.Request) int              { return 0 }
func notify(string)                                              {}
func use(any)                                                    {}

func main() { use(run) }

func run(ctx context.Context) error {
`
	blocks := strings.Split(string(text), "```go\n")[1:]
	for i, block := range blocks {
		block, _, _ = strings.Cut(block, "```\n")
		for _, last := range []string{"admission", "usage"} {
			if strings.Contains(block, last+", err := ") {
				block += "use(" + last + ")\n"
			}
		}
		if i > 0 {
			block = "{\n" + block + "}\n" // the first one makes what the others use
		}
		program += block
	}
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(program+"return nil\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "vet", file)
	if out, err := cmd.CombinedOutput(); err != nil || len(blocks) < 4 {
		t.Errorf("%d snippets: %v\n%s", len(blocks), err, out)
	}
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
