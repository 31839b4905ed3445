// SPDX-License-Identifier: Apache-2.0

// Package version tells which build a program is, and which time zones it computes periods with. It embeds Go's copy of
// the IANA database, so that a program needs none on its machine.
package version

import (
	"cmp"
	"runtime/debug"
	"strings"
)

// The linker sets them for the image, whatever Go could find out about the working copy.
var version, commit, date string

// shortCommit is as many digits of a commit as tell it from every other.
const shortCommit = 12

// String is the version of the module, the commit and its time as far as the build recorded them, Go's version and that
// of the time zones, such as "v1.2.0 (commit 4f2c1d0e9a7b, 2026-11-23T12:00:00Z, go1.26.0), time zones 2025c embedded".
// A commit with changes on top ends in "+dirty".
func String() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return cmp.Or(version, "unknown") + ", time zones " + TZData()
	}
	return describe(info, version, commit, date) + ", time zones " + TZData()
}

func describe(info *debug.BuildInfo, version, commit, date string) string {
	settings := make(map[string]string, len(info.Settings))
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	modified := ""
	if commit == "" && settings["vcs.modified"] == "true" {
		modified = "+dirty"
	}
	var details []string
	if commit = cmp.Or(commit, settings["vcs.revision"]); commit != "" {
		details = append(details, "commit "+commit[:min(shortCommit, len(commit))]+modified)
	}
	if date = cmp.Or(date, settings["vcs.time"]); date != "" {
		details = append(details, date)
	}
	return cmp.Or(version, info.Main.Version, "(devel)") + " (" +
		strings.Join(append(details, info.GoVersion), ", ") + ")"
}
