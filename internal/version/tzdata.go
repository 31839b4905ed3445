// SPDX-License-Identifier: Apache-2.0

package version

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	_ "time/tzdata" // the time zones of machines and images that have none
)

// EmbeddedTZData is the version of the IANA database that Go's time/tzdata has. It goes with the toolchain in go.mod; a
// test compares the two.
const EmbeddedTZData = "2025c"

// systemFolders are where the package time looks for zones before it takes the embedded ones.
var systemFolders = []string{"/usr/share/zoneinfo", "/usr/share/lib/zoneinfo", "/usr/lib/locale/TZ", "/etc/zoneinfo"}

// TZData says which time zones this process computes with: Go takes those of the environment's ZONEINFO first, then the
// system's, then the embedded ones. Replicas that should agree to the day must show the same version.
func TZData() string { return tzdata(os.Getenv("ZONEINFO"), systemFolders) }

func tzdata(zoneinfo string, folders []string) string {
	if zoneinfo != "" {
		return "of ZONEINFO=" + zoneinfo
	}
	for _, folder := range folders {
		if _, err := os.Stat(filepath.Join(folder, "Etc", "UTC")); err == nil {
			return fmt.Sprintf("%s in %s", systemVersion(folder), folder)
		}
	}
	return EmbeddedTZData + " embedded"
}

// systemVersion reads the version from the first line of tzdata.zi, "# version 2025c".
func systemVersion(folder string) string {
	const unknown = "of unknown version"
	f, err := os.Open(filepath.Join(folder, "tzdata.zi"))
	if err != nil {
		return unknown
	}
	defer func() { _ = f.Close() }()
	line, err := bufio.NewReader(f).ReadString('\n')
	if version, ok := strings.CutPrefix(strings.TrimSpace(line), "# version "); ok && err == nil {
		return version
	}
	return unknown
}
