// SPDX-License-Identifier: Apache-2.0

package job

import (
	"strings"
	"testing"
	"time"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

func TestParse(t *testing.T) {
	const ok = "12m30s"
	for name, tc := range map[string]struct {
		user, duration, size, priority string
		want                           Declared
		wantErr                        []string
	}{
		"all": {user: "alice", duration: ok, size: "24Mi", priority: "-7",
			want: Declared{UserID: "alice", Estimate: 750_000, FileSize: 24 << 20, Priority: -7}},
		"duration only": {user: "a", duration: "1ms", want: Declared{UserID: "a", Estimate: 1}},
		"the longest": {user: "a", duration: "720h",
			want: Declared{UserID: "a", Estimate: 720 * 60 * quota.Credit}},
		"the largest": {user: "a", duration: ok, size: "1Ti",
			want: Declared{UserID: "a", Estimate: 750_000, FileSize: 1 << 40}},
		"no user":             {duration: ok, wantErr: []string{v1alpha1.UserLabel, `""`}},
		"a user with a slash": {user: "a/b", duration: ok, wantErr: []string{v1alpha1.UserLabel, `"a/b"`}},
		"no duration":         {user: "a", wantErr: []string{v1alpha1.AudioDurationAnnotation, "required", "720h"}},
		"zero": {user: "a", duration: "0s",
			wantErr: []string{v1alpha1.AudioDurationAnnotation, `"0s"`}},
		"negative":            {user: "a", duration: "-1m", wantErr: []string{`"-1m"`}},
		"too long":            {user: "a", duration: "720h1ms", wantErr: []string{`"720h1ms"`, "720h"}},
		"overflow":            {user: "a", duration: "9999999999999h", wantErr: []string{"720h"}},
		"part of millisecond": {user: "a", duration: "1.0005s", wantErr: []string{"whole number of milliseconds"}},
		"a number":            {user: "a", duration: "12", wantErr: []string{`"12"`}},
		"zero size": {user: "a", duration: ok, size: "0",
			wantErr: []string{v1alpha1.FileSizeAnnotation, `"0"`, "1Ti"}},
		"negative size": {user: "a", duration: ok, size: "-1Mi", wantErr: []string{`"-1Mi"`}},
		"absurd size":   {user: "a", duration: ok, size: "9999Ei", wantErr: []string{`"9999Ei"`}},
		"not a size":    {user: "a", duration: ok, size: "big", wantErr: []string{`"big"`}},
		"priority out of range": {user: "a", duration: ok, priority: "1001",
			wantErr: []string{v1alpha1.PriorityAnnotation, `"1001"`, "1000"}},
		"priority not integer": {user: "a", duration: ok, priority: "1.5", wantErr: []string{`"1.5"`}},
		"two mistakes":         {user: "a", duration: "x", size: "y", wantErr: []string{`"x"`, `"y"`}},
	} {
		t.Run(name, func(t *testing.T) {
			annotations := map[string]string{}
			for key, value := range map[string]string{
				v1alpha1.AudioDurationAnnotation: tc.duration, v1alpha1.FileSizeAnnotation: tc.size,
				v1alpha1.PriorityAnnotation: tc.priority,
			} {
				if value != "" {
					annotations[key] = value
				}
			}
			got, err := Parse(map[string]string{v1alpha1.UserLabel: tc.user}, annotations)
			if got != tc.want || (err != nil) != (tc.wantErr != nil) {
				t.Fatalf("Parse: got %+v, %v, want %+v", got, err, tc.want)
			}
			for _, want := range tc.wantErr {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not contain %q", err, want)
				}
			}
		})
	}
}

func TestParseTermination(t *testing.T) {
	for message, want := range map[string]quota.Credits{
		`{"duration_seconds": 12.5}`:                   12_500,
		` {"duration_seconds":0.001,"words":4}` + "\n": 1,
		`{"duration_seconds": "12.5"}`:                 12_500,
		`12.5s`:                                        12_500,
		"3m\n":                                         180_000,
		`720h`:                                         quota.Credits(quota.MaxAudio / time.Millisecond),
		`{"duration_seconds": 12.5004}`:                12_500,
		``:                                             0,
		`0s`:                                           0,
		`-1s`:                                          0,
		`721h`:                                         0,
		`12`:                                           0,
		`done`:                                         0,
		`{"duration_seconds": -1}`:                     0,
		`{"duration_seconds": 1e9}`:                    0,
		`{"duration_seconds": 1e999999999}`:            0,
		`{"duration_seconds": 99999999999999999999}`:     0,
		`{"duration_seconds": -99999999999999999999}`:    0,
		`{"duration_seconds": null}`:                     0,
		`{"duration_seconds": {}}`:                       0,
		`{}`:                                             0,
		`{"duration_seconds": 1} {"duration_seconds":2}`: 0,
		`{"duration_seconds": 1`:                         0,
		"1s" + strings.Repeat(" ", 255):                  0,
	} {
		got, err := ParseTermination(message)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("ParseTermination(%q): got %d, %v, want %d", message, got, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "12m30s", "-1h", "720h0.001s", "1e9h", "24Mi", "0", "1Ti", "-7", "{", "alice"} {
		f.Add(s, s, s, s)
	}
	f.Add("alice", "12m30s", "24Mi", "7")
	f.Fuzz(func(t *testing.T, user, audio, size, prio string) {
		d, err := Parse(map[string]string{v1alpha1.UserLabel: user}, map[string]string{
			v1alpha1.AudioDurationAnnotation: audio, v1alpha1.FileSizeAnnotation: size,
			v1alpha1.PriorityAnnotation: prio,
		})
		if err != nil {
			return
		}
		if d.UserID != user || quota.UserIDs.Check(user) != nil {
			t.Errorf("user %q was accepted", user)
		}
		if d.Estimate <= 0 || d.Estimate.Audio() > quota.MaxAudio || d.FileSize <= 0 ||
			d.FileSize > quota.MaxFileSize ||
			d.Priority < -quota.MaxPriority || d.Priority > quota.MaxPriority {
			t.Errorf("out of bounds: %+v", d)
		}
	})
}

func FuzzParseTermination(f *testing.F) {
	for _, s := range []string{"", "12.5s", `{"duration_seconds": 12.5}`, `{"duration_seconds": 1e99}`, "{}",
		"-1s", "721h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, message string) {
		c, err := ParseTermination(message)
		if (err == nil) != (c > 0) || c.Audio() > quota.MaxAudio {
			t.Errorf("ParseTermination(%q): got %d, %v", message, c, err)
		}
	})
}
