// SPDX-License-Identifier: Apache-2.0

package version

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The toolchain says which IANA database it embeds only in the script that made it.
func TestEmbeddedTZDataIsTheToolchains(t *testing.T) {
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(root)), "lib", "time", "update.bash"))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^DATA=(\S+)$`).FindSubmatch(script)
	if found == nil || string(found[1]) != EmbeddedTZData {
		t.Errorf("the toolchain embeds %q, EmbeddedTZData is %q", found, EmbeddedTZData)
	}
}

func TestTZDataNamesItsSource(t *testing.T) {
	system := t.TempDir()
	zone := filepath.Join(system, "Etc", "UTC")
	if err := os.Mkdir(filepath.Dir(zone), 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	folders := []string{filepath.Join(system, "absent"), system}
	if got := tzdata("", folders); got != EmbeddedTZData+" embedded" {
		t.Errorf("without zones on the machine: %q", got)
	}
	write(zone, "TZif")
	if got := tzdata("", folders); got != "of unknown version in "+system {
		t.Errorf("zones of the system without tzdata.zi: %q", got)
	}
	write(filepath.Join(system, "tzdata.zi"), "# version 2024a\nR a ...\n")
	if got := tzdata("", folders); got != "2024a in "+system {
		t.Errorf("zones of the system: %q", got)
	}
	if got := tzdata("/zones.zip", folders); got != "of ZONEINFO=/zones.zip" {
		t.Errorf("zones of the environment: %q", got)
	}
	if got := String(); !strings.HasSuffix(got, ", time zones "+TZData()) {
		t.Errorf("String() = %q", got)
	}
}
