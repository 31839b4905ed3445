// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/cantonesescribe/usage-operator/api/client"
	"github.com/cantonesescribe/usage-operator/internal/audio"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

// Labels of a pod that tell whose it is.
const (
	userLabel = "usage.cantonesescribe.io/user"
	jobLabel  = "batch.kubernetes.io/controller-uid"
)

// work is what is asked for: whose quota, for how much.
type work struct {
	user string
	// job is nil where there is none to join.
	job      *uuid.UUID
	duration time.Duration
	size     int64
	// audio is the file that holds it, if there is one.
	audio string
}

// describe finds out what the options leave open.
func describe(o options) (work, error) {
	w := work{user: o.user, duration: o.duration.Round(time.Millisecond), size: o.fileSize}
	labels, err := readLabels(o.labelsFile)
	if err != nil {
		return w, err
	}
	if w.user == "" {
		w.user = labels[userLabel]
	}
	uid := o.jobUID
	if uid == "" {
		uid = labels[jobLabel]
	}
	if uid != "" {
		job, err := uuid.Parse(uid)
		if err != nil {
			return w, fmt.Errorf("label %s: %q is not the UID of a Job", jobLabel, uid)
		}
		w.job = &job
	}
	if w.user == "" && w.job == nil {
		return w, fmt.Errorf("whose quota is to be spent? Set --user, USAGE_USER or label %s of the pod", userLabel)
	}
	return w, w.measure(o)
}

// measure finds the audio, and fills in its length and size.
func (w *work) measure(o options) (err error) {
	w.audio = o.audio
	if w.audio == "" {
		w.audio, err = theAudioAmong(o.command[1:])
		if err != nil && (w.duration == 0 || w.size == 0) {
			return err
		}
	}
	if w.duration == 0 {
		info, err := audio.ReadFile(w.audio)
		if err != nil {
			return fmt.Errorf("%w (--duration gives the length instead)", err)
		}
		if info.Duration > quota.MaxAudio {
			return fmt.Errorf("%s: %s of audio is over the limit of %s", w.audio, info.Duration, quota.MaxAudio)
		}
		w.duration = info.Duration
	}
	if w.size == 0 {
		stat, err := os.Stat(w.audio)
		if err != nil {
			return err
		}
		w.size = stat.Size()
	}
	return nil
}

// theAudioAmong returns the only argument that names an audio file.
func theAudioAmong(args []string) (string, error) {
	var found []string
	for _, arg := range args {
		if audio.Recognised(arg) {
			found = append(found, arg)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "",
			errors.New("no argument of the command names an audio file: set --audio, or --duration and --file-size")
	}
	return "", fmt.Errorf("%d arguments of the command name audio files (%s): set --audio", len(found),
		strings.Join(found, ", "))
}

// podUID returns the pod that a projected token is bound to. The token is our own, so it need not be verified.
func podUID(ctx context.Context, file string) (string, error) {
	token, err := client.TokenFile(file)(ctx)
	if err != nil {
		return "", err
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", errors.New("not a JSON web token")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", err
	}
	var claims struct {
		Kubernetes struct {
			Pod struct {
				UID string `json:"uid"`
			} `json:"pod"`
		} `json:"kubernetes.io"`
	}
	err = json.Unmarshal(payload, &claims)
	return claims.Kubernetes.Pod.UID, err
}

// readLabels reads a file that the downward API has written: one name="value" a line. There may be none.
func readLabels(path string) (map[string]string, error) {
	data, err := os.ReadFile(path)
	if path == "" || errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("--labels-file: %w", err)
	}
	labels := map[string]string{}
	for line := range strings.Lines(string(data)) {
		name, quoted, _ := strings.Cut(strings.TrimSpace(line), "=")
		value, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, fmt.Errorf(`--labels-file %s: %.80q is not name="value"`, path, line)
		}
		labels[name] = value
	}
	return labels, nil
}
