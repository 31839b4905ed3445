// SPDX-License-Identifier: Apache-2.0

package version

import (
	"runtime/debug"
	"testing"
)

func TestDescribe(t *testing.T) {
	t.Parallel()
	for want, info := range map[string]*debug.BuildInfo{
		"(devel) (go1.26.0)": {GoVersion: "go1.26.0"},
		"v1.2.0 (commit 4f2c1d0e9a7b, 2026-11-23T12:00:00Z, go1.26.0)": {
			GoVersion: "go1.26.0", Main: debug.Module{Version: "v1.2.0"}, Settings: []debug.BuildSetting{
				{Key: "vcs.revision", Value: "4f2c1d0e9a7b8c6d5e4f3a2b1c0d9e8f7a6b5c4d"},
				{Key: "vcs.time", Value: "2026-11-23T12:00:00Z"},
				{Key: "vcs.modified", Value: "false"},
			},
		},
		"v1.2.1 (commit 4f2c+dirty, go1.26.0)": {
			GoVersion: "go1.26.0", Main: debug.Module{Version: "v1.2.1"}, Settings: []debug.BuildSetting{
				{Key: "vcs.revision", Value: "4f2c"}, {Key: "vcs.modified", Value: "true"},
			},
		},
	} {
		if got := describe(info, "", "", ""); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	// What the linker was told counts more.
	info := &debug.BuildInfo{GoVersion: "go1.26.0", Main: debug.Module{Version: "v0.0.1"},
		Settings: []debug.BuildSetting{
			{Key: "vcs.revision", Value: "4f2c"}, {Key: "vcs.modified", Value: "true"},
		}}
	want := "v1.3.0-dirty (commit 0123456789ab, 2026-11-24T12:00:00+08:00, go1.26.0)"
	if got := describe(info, "v1.3.0-dirty", "0123456789abcdef", "2026-11-24T12:00:00+08:00"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
