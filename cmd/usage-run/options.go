// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/pflag"

	"github.com/cantonesescribe/usage-operator/api/client"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

const usage = `usage-run runs a transcription command against its user's quota.

It asks usaged for a slot, waits while none is free, runs the command, and ends when what was used is recorded.

  usage-run [flags] [--] COMMAND [ARGUMENT...]

Each flag can be given as an environment variable: --wait-timeout as USAGE_WAIT_TIMEOUT.

`

// options are what the command line and the environment say.
type options struct {
	server, caFile, tokenFile string

	user, jobUID, labelsFile string

	audio    string
	duration time.Duration
	fileSize int64

	key      string
	priority int32
	lease    time.Duration
	noQueue  bool

	admitTimeout, waitTimeout, joinTimeout, settleTimeout time.Duration

	chargeOnFailure bool
	terminationLog  string

	command []string
}

// attemptSuffix is what the key of a further attempt has behind the work's own.
const attemptSuffix = len("#") + len("1000")

func parse(args []string, getenv func(string) string, out io.Writer) (options, error) {
	var o options
	flags := pflag.NewFlagSet("usage-run", pflag.ContinueOnError)
	flags.SetOutput(out)
	flags.SetInterspersed(false) // the command's flags are its own
	flags.Usage = func() { _, _ = fmt.Fprint(out, usage, flags.FlagUsages()) }
	flags.StringVar(&o.server, "server", "https://usage-operator-usaged.usage-operator-system.svc", "where usaged is")
	flags.StringVar(&o.caFile, "ca-file", "",
		"certificates that usaged's is verified with, read again when they change; the system's without it")
	flags.StringVar(&o.tokenFile, "token-file", client.ProjectedTokenFile,
		"service account token with audience usaged, read again for each call")
	flags.StringVar(&o.user, "user", "", "whose quota is spent; else label usage.cantonesescribe.io/user of the pod")
	flags.StringVar(&o.jobUID, "job-uid", "",
		"UID of the Job whose admission is joined; else label batch.kubernetes.io/controller-uid of the pod")
	flags.StringVar(&o.labelsFile, "labels-file", "/etc/podinfo/labels",
		"the pod's labels, from a downward API volume; need not be there")
	flags.StringVar(&o.audio, "audio", "", "the audio file; without it the only argument of the command that names one")
	flags.DurationVar(&o.duration, "duration", 0, "length of the audio, instead of reading it from the file")
	flags.Int64Var(&o.fileSize, "file-size", 0, "size of the file in bytes, instead of looking at it")
	flags.StringVar(&o.key, "key", "",
		"name of this piece of work: with the same one it is charged once; else made of the pod, the audio's path "+
			"and content, and the command")
	flags.Int32Var(&o.priority, "priority", 0, "place among the user's waiting work, -1000 to 1000, higher first")
	flags.DurationVar(&o.lease, "lease", quota.DefaultLease,
		"how long the slot outlives a usage-run that is gone, 5s to 1h")
	flags.BoolVar(&o.noQueue, "no-queue", false, "do not wait for a slot")
	flags.DurationVar(&o.admitTimeout, "admit-timeout", 5*time.Minute,
		"how long to try to reach usaged before the command starts")
	flags.DurationVar(&o.waitTimeout, "wait-timeout", 0, "how long to wait for a slot; 0 is without limit")
	flags.DurationVar(&o.joinTimeout, "join-timeout", 10*time.Second, "how long to wait for the admission of the Job")
	flags.DurationVar(&o.settleTimeout, "settle-timeout", 5*time.Minute, "how long to try to record what was used")
	flags.BoolVar(&o.chargeOnFailure, "charge-on-failure", false, "charge the audio even if the command fails")
	flags.StringVar(&o.terminationLog, "termination-log", "/dev/termination-log",
		"where a Job's use is written as well, unless the command wrote there")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		name := "USAGE_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if value := getenv(name); value != "" && !f.Changed {
			if err := flags.Set(f.Name, value); err != nil {
				errs = append(errs, fmt.Errorf("environment variable %s: %w", name, err))
			}
		}
	})
	o.command = flags.Args()
	return o, errors.Join(append(errs, o.check())...)
}

func (o *options) check() error {
	for _, d := range []struct {
		name        string
		value       time.Duration
		least, most time.Duration
	}{
		{"duration", o.duration, 0, quota.MaxAudio},
		{"lease", o.lease, quota.MinLease, quota.MaxLease},
		{"admit-timeout", o.admitTimeout, time.Millisecond, 1 << 62},
		{"wait-timeout", o.waitTimeout, 0, 1 << 62},
		{"join-timeout", o.joinTimeout, 0, 1 << 62},
		{"settle-timeout", o.settleTimeout, time.Millisecond, 1 << 62},
	} {
		switch {
		case d.value < d.least && d.least <= time.Millisecond:
			return fmt.Errorf("--%s %s: must be at least %s", d.name, d.value, d.least)
		case d.value < d.least || d.value > d.most:
			return fmt.Errorf("--%s %s: must be between %s and %s", d.name, d.value, d.least, d.most)
		}
	}
	switch {
	case len(o.command) == 0:
		return errors.New("no command: usage-run [flags] -- COMMAND [ARGUMENT...]")
	case o.duration > 0 && o.duration < time.Millisecond:
		return fmt.Errorf("--duration %s: must be between 1ms and %s", o.duration, quota.MaxAudio)
	case len(o.key) > quota.MaxKey-attemptSuffix:
		return fmt.Errorf("--key %.80q: has %d bytes, it must have 1 to %d", o.key, len(o.key),
			quota.MaxKey-attemptSuffix)
	case o.key != "" && quota.CheckKey(o.key) != nil:
		return fmt.Errorf("--key: %w", quota.CheckKey(o.key))
	case o.fileSize < 0 || o.fileSize > quota.MaxFileSize:
		return fmt.Errorf("--file-size %d: must be between 1 and %d", o.fileSize, quota.MaxFileSize)
	case o.priority < -quota.MaxPriority || o.priority > quota.MaxPriority:
		return fmt.Errorf("--priority %d: must be between %d and %d", o.priority, -quota.MaxPriority, quota.MaxPriority)
	case o.jobUID != "" && uuid.Validate(o.jobUID) != nil:
		return fmt.Errorf("--job-uid %q: must be the UID of a Job", o.jobUID)
	}
	return nil
}
