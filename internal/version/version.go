// SPDX-License-Identifier: Apache-2.0

// Package version tells which build a program is, and which time zones it computes periods with. It embeds Go's copy of the
// IANA database, so that a program needs none on its machine.
package version

import (
	"runtime/debug"
	"strings"
)

// String is the version of the module, the commit and its time as far as the build recorded them, Go's version and that of
// the time zones, such as "v1.2.0 (commit 4f2c1d0e9a7b, 2026-11-23T12:00:00Z, go1.26.0), time zones 2025c embedded". A commit
// with changes on top ends in "+dirty".
func String() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown, time zones " + TZData()
	}
	return describe(info) + ", time zones " + TZData()
}

func describe(info *debug.BuildInfo) string {
	settings := make(map[string]string, len(info.Settings))
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	version := info.Main.Version
	if version == "" {
		version = "(devel)"
	}
	var details []string
	if commit := settings["vcs.revision"]; commit != "" {
		commit = commit[:min(12, len(commit))]
		if settings["vcs.modified"] == "true" {
			commit += "+dirty"
		}
		details = append(details, "commit "+commit)
	}
	if at := settings["vcs.time"]; at != "" {
		details = append(details, at)
	}
	return version + " (" + strings.Join(append(details, info.GoVersion), ", ") + ")"
}
