// SPDX-License-Identifier: Apache-2.0

// Package version tells which build a program is.
package version

import (
	"runtime/debug"
	"strings"
)

// String is the version of the module, the commit and its time as far as the build recorded them, and Go's version, such as
// "v1.2.0 (commit 4f2c1d0e9a7b, 2026-11-23T12:00:00Z, go1.26.0)". A commit with changes on top ends in "+dirty".
func String() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return describe(info)
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
