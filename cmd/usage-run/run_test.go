// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
	"github.com/cantonesescribe/usage-operator/internal/testing/plans"
)

func TestRuns(t *testing.T) {
	w := newWorld(t)
	// The file is found among the arguments, and the streams are the command's.
	p := w.launch("--", "sh", "-c", `cat; echo "$0" >&2`, toneFile)
	p.ends(0, "admitted: 1.234s of audio, 0.021 credits reserved for alice", toneFile, "0.021 credits are charged")
	if got := p.out.String(); got != "from stdin" {
		t.Errorf("stdout: got %q", got)
	}
	w.Standing(toneCredits, 0, 0)
}

func TestExitCodes(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/none\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	stranger := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(stranger, []byte("a.b.c"), 0o600); err != nil {
		t.Fatal(err)
	}
	const given, size = "--duration=90s", "--file-size=1000"
	for name, tc := range map[string]struct {
		args []string
		code int
		said string
	}{
		"command fails":     {[]string{"sh", "-c", "exit 3", toneFile}, 3, "nothing is charged"},
		"command is killed": {[]string{"sh", "-c", "kill -9 $$", toneFile}, 137, "nothing is charged"},
		"no command":        {nil, 125, "no command"},
		"unknown flag":      {[]string{"--port=1", "true"}, 125, "unknown flag: --port"},
		"flag out of range": {[]string{"--lease=1s", "true"}, 125,
			"--lease 1s: must be between 5s and 1h0m0s"},
		"server": {[]string{"--server=usaged", given, size, "true"}, 125,
			`--server, --ca-file: "usaged" must be a URL`},
		"no token": {[]string{"--token-file=none", given, size, "true"}, 125,
			"--token-file: token: open none"},
		"no audio": {[]string{"true", "run_test.go"}, 125,
			"no argument of the command names an audio file"},
		"two audios": {[]string{"true", toneFile, toneFile}, 125,
			"2 arguments of the command name audio files"},
		"not audio": {[]string{"--audio=run_test.go", "true"},
			125, "run_test.go: not WAV, AIFF, CAF, MP3, AAC, FLAC, Ogg, AMR, MP4, Matroska, MPEG-TS or ASF audio " +
				"(--duration"},
		"no such file":               {[]string{"--audio=none.mp3", "true"}, 125, "none.mp3: no such file"},
		"key used for another audio": {[]string{"--key=taken", given, size, "true"}, 125, "key"},
		"not found":                  {[]string{given, size, "no-such-command"}, 127, "no-such-command"},
		"not executable":             {[]string{given, size, script}, 126, "permission denied"},
		"no credits": {[]string{"--duration=31m", size, "true"}, 75,
			"CreditsExhausted: 31 credits are needed"},
		"file too large": {[]string{given, "--file-size=26214401", "true"}, 77, "FileTooLarge"},
		"no right":       {[]string{"--user=bob", given, size, "true"}, 77, `may not spend for user "bob"`},
		"service away": {[]string{"--server=http://127.0.0.1:1", "--admit-timeout=300ms", given, size,
			"true"}, 75, "connection refused"},
		"not usaged": {
			[]string{"--server=" + elsewhere(t), given, size, "true"}, 125, "the answer was 418 I'm a teapot",
		},
		"not a token": {[]string{"--token-file=run_test.go", given, size, "true"}, 125,
			"--token-file: token: run_test.go has spaces, line breaks"},
		"not a token that is known": {[]string{"--token-file=" + stranger, given, size, "true"}, 77,
			"not valid for audience usaged"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.args != nil && strings.HasPrefix(tc.args[0], "--key=") {
				w.launchIn(t, "--key=taken", "--", "true", toneFile).ends(0)
			}
			w.launchIn(t, tc.args...).ends(tc.code, tc.said)
		})
	}
	w.Standing(toneCredits, 0, 0) // of key "taken" only
}

// elsewhere is the URL of a server that is not usaged.
func elsewhere(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	t.Cleanup(s.Close)
	return s.URL
}

func TestHelp(t *testing.T) {
	w := newWorld(t)
	w.launch("--help").ends(0, "usage-run [flags] [--] COMMAND", "--settle-timeout")
}

func TestEnvironment(t *testing.T) {
	w := newWorld(t)
	t.Setenv("USAGE_DURATION", "90s")
	t.Setenv("USAGE_FILE_SIZE", "1000")
	t.Setenv("USAGE_LEASE", "20s")
	w.launch("--duration=60s", "true").ends(0, "1m0s of audio, 1 credits")
	w.Standing(quota.Credit, 0, 0)
	t.Setenv("USAGE_LEASE", "soon")
	w.launch("true").ends(125, "environment variable USAGE_LEASE", `"soon"`)
}

func TestChargeOnFailure(t *testing.T) {
	w := newWorld(t)
	w.launch("--charge-on-failure", "--", "sh", "-c", "exit 3", toneFile).ends(3, "0.021 credits are charged")
	w.Standing(toneCredits, 0, 0)
}

func TestQueued(t *testing.T) {
	w := newWorld(t)
	until, open := w.gate("first")
	first := w.launch("--", "sh", "-c", until, toneFile)
	first.says("admitted")
	w.launch("--no-queue", "--", "true", toneFile).ends(75, "ConcurrencyLimit")
	w.launch("--wait-timeout=200ms", "--", "sh", "-c", "true", toneFile).ends(75, "queued, position 1 of 1",
		"no slot within 200ms")
	if n := w.Waiting(); n != 0 {
		t.Errorf("%d wait after the only one has given up", n)
	}
	second := w.launch("--", "sh", "-c", "exit 0", toneFile)
	second.says("queued, position 1 of 1 (ConcurrencyLimit)")
	second.says(`waits because of user "alice": 1 of 1 jobs are running`)
	w.Standing(0, toneCredits, 1)
	open()
	first.ends(0)
	second.ends(0, "charged")
	w.Standing(2*toneCredits, 0, 0)
}

func TestSignals(t *testing.T) {
	w := newWorld(t)
	until, _ := w.gate("never")
	for name, tc := range map[string]struct {
		script string
		send   syscall.Signal
		code   int
	}{
		"not caught":         {"echo ready >&2; " + until, syscall.SIGTERM, 128 + 15},
		"caught":             {"trap 'exit 7' TERM; echo ready >&2; " + until, syscall.SIGTERM, 7},
		"of no consequence":  {"trap 'exit 9' USR1; echo ready >&2; " + until, syscall.SIGUSR1, 9},
		"from the keyboard":  {"trap 'exit 8' INT; echo ready >&2; " + until, syscall.SIGINT, 8},
		"caught, and it ran": {"trap 'exit 0' TERM; echo ready >&2; " + until, syscall.SIGTERM, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := w.launchIn(t, "--", "sh", "-c", tc.script, toneFile)
			p.says("ready")
			p.signal(tc.send)
			p.ends(tc.code)
		})
	}
	w.Standing(toneCredits, 0, 0)
}

func TestSignalWhileQueued(t *testing.T) {
	w := newWorld(t)
	until, open := w.gate("first")
	first := w.launch("--", "sh", "-c", until, toneFile)
	first.says("admitted")
	second := w.launch("--", "true", toneFile)
	second.says("queued")
	second.signal(syscall.SIGUSR1) // asks for nothing
	second.signal(syscall.SIGTERM)
	second.ends(128 + 15)
	if n := w.Waiting(); n != 0 {
		t.Errorf("%d still wait", n)
	}
	open()
	first.ends(0)
}

func TestServiceIsKilled(t *testing.T) {
	w := newWorld(t)
	until, open := w.gate("first")
	p := w.launch("--lease=5s", "--", "sh", "-c", until, toneFile)
	p.says("admitted")
	w.Kill()
	p.says("renew the lease:")
	open()
	p.says("record the use:")
	w.Start()
	p.ends(0, "0.021 credits are charged")
	w.Standing(toneCredits, 0, 0)
}

func TestServiceIsKilledWhileQueued(t *testing.T) {
	w := newWorld(t)
	until, open := w.gate("first")
	first := w.launch("--", "sh", "-c", until, toneFile)
	first.says("admitted")
	second := w.launch("--", "true", toneFile)
	second.says("queued")
	w.Kill()
	second.says("look at the admission:")
	w.Start()
	open()
	first.ends(0)
	second.ends(0, "charged")
	w.Standing(2*toneCredits, 0, 0)
}

// TestAnswersAreLost cuts the connection after the service has done what each first call of a kind asked for.
func TestAnswersAreLost(t *testing.T) {
	w := newWorld(t)
	w.Kill()
	var admissions, completes atomic.Int32
	w.Around = func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			lose := strings.HasSuffix(r.URL.Path, "/complete") && completes.Add(1) <= 2
			if r.URL.Path == "/api/v1/admissions" {
				lose = admissions.Add(1) <= 2
			}
			if !lose {
				h.ServeHTTP(rw, r)
				return
			}
			h.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		})
	}
	w.Start()
	w.launch("--", "true", toneFile).ends(0, "ask for admission:", "record the use:", "0.021 credits are charged")
	if admissions.Load() != 3 || completes.Load() != 3 {
		t.Errorf("got %d requests for admission and %d reports, want 3 of each", admissions.Load(), completes.Load())
	}
	w.Standing(toneCredits, 0, 0)
}

// TestOverloaded answers 503 for a while, as the service does when its queues are full.
func TestOverloaded(t *testing.T) {
	w := newWorld(t)
	w.Kill()
	var calls atomic.Int32
	var first, second time.Time
	w.Around = func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			switch calls.Add(1) {
			case 1:
				first = time.Now()
				rw.Header().Set("Content-Type", "application/problem+json")
				rw.Header().Set("Retry-After", "1")
				rw.WriteHeader(http.StatusServiceUnavailable)
				fmt.Fprint(rw, `{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"overloaded",
				    "retry_after":1}`)
			case 2:
				second = time.Now()
				fallthrough
			default:
				h.ServeHTTP(rw, r)
			}
		})
	}
	w.Start()
	w.launch("--", "true", toneFile).ends(0, "overloaded; trying again", "ask for admission: done")
	if pause := second.Sub(first); pause < time.Second {
		t.Errorf("it came back after %s, the service asked for 1s", pause)
	}
	w.Standing(toneCredits, 0, 0)
}

// TestOfflineTicket: a plan may let work start while the database is away; it is charged once that is back.
func TestOfflineTicket(t *testing.T) {
	w := newWorld(t)
	w.launch("--", "true", toneFile).ends(0, "charged") // whom the service has not served it does not know
	w.Database.Refuse(true)
	w.Database.CutAll()
	until, open := w.gate("first")
	p := w.launch("--", "sh", "-c", until, toneFile)
	p.says("reserved for alice on an offline ticket, because the database is away")
	open()
	p.says("record the use:")
	w.Database.Refuse(false)
	p.ends(0, "0.021 credits are charged")
	w.Standing(2*toneCredits, 0, 0)
}

func TestUnrecorded(t *testing.T) {
	w := newWorld(t)
	for _, tc := range []struct {
		exit string
		code int
		said string
	}{
		{"0", exitUnrecorded, "its use of 1.234s is not known to be recorded: given up after 300ms"},
		{"4", 4, "it returns by itself within 2m0s"},
	} {
		until, open := w.gate(tc.exit)
		p := w.launch("--settle-timeout=300ms", "--", "sh", "-c", until+"; exit "+tc.exit, toneFile)
		p.says("admitted")
		w.Kill()
		open()
		p.ends(tc.code, tc.said)
		w.Start()
		w.Standing(0, toneCredits, 1)
		w.Advance(time.Hour)
		eventually(t, "the slot returns", func() bool {
			usage, err := w.Service.Current(t.Context(), "alice")
			return err == nil && usage.Account.Active == 0
		})
	}
	w.Standing(0, 0, 0)
}

func TestGivesUpRecordingWhenToldTwice(t *testing.T) {
	w := newWorld(t)
	until, open := w.gate("first")
	p := w.launch("--", "sh", "-c", until, toneFile)
	p.says("admitted")
	w.Kill()
	open()
	p.says("record the use:")
	p.signal(syscall.SIGTERM)
	p.says("once more gives that up")
	p.signal(syscall.SIGTERM)
	p.ends(exitUnrecorded, "ended by signal: terminated")
	w.Start()
}

// TestLeaseEnds: what runs on after its lease is charged all the same, once.
func TestLeaseEnds(t *testing.T) {
	w := newWorld(t)
	until, open := w.gate("first")
	p := w.launch("--lease=5s", "--", "sh", "-c", until, toneFile)
	p.says("admitted")
	w.Advance(time.Hour)
	p.says("the lease has ended")
	open()
	p.ends(0, "0.021 credits are charged")
	w.Standing(toneCredits, 0, 0)
}

// TestPlaceIsLost: the lease of what waits can end as well; then it takes another place.
func TestPlaceIsLost(t *testing.T) {
	w := newWorld(t)
	until, open := w.gate("first")
	first := w.launch("--lease=1h", "--", "sh", "-c", until, toneFile)
	first.says("admitted")
	second := w.launch("--lease=5s", "--", "true", toneFile)
	second.says("queued")
	w.Advance(time.Minute)
	second.says("the place in the queue was lost: Cancelled; taking another one")
	open()
	first.ends(0)
	second.ends(0, "charged")
	w.Standing(2*toneCredits, 0, 0)
}

// TestWaitsForItsTeam: what binds may be a team's limit.
func TestWaitsForItsTeam(t *testing.T) {
	w := newWorld(t)
	desk := metering.Team{
		Team: quota.Team{Name: "desk", Caps: quota.Caps{Concurrent: new(quota.AtMost[int32](1))}}, Zone: "UTC",
	}
	if _, err := w.Service.ApplyTeam(t.Context(), desk, "test"); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"alice", "bob"} {
		if err := w.Service.AddMember(t.Context(), "desk", user, metering.By{Actor: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	bobs, err := w.Service.Admit(t.Context(), metering.AdmitRequest{
		UserID: "bob", Key: "k", BodyHash: []byte("k"), Source: quota.SourceAPI, RequestedBy: "test",
		Estimate: quota.Credit, FileSize: 1,
	})
	if err != nil || bobs.Admission == nil {
		t.Fatalf("%+v, %v", bobs, err)
	}
	p := w.launch("--", "true", toneFile)
	p.says(`waits because of team "desk": 1 of 1 jobs are running`)
	if _, err := w.Service.Release(t.Context(), bobs.Admission.Account, bobs.Admission.ID); err != nil {
		t.Fatal(err)
	}
	p.ends(0, "charged")
	w.Standing(toneCredits, 0, 0)
}

// TestWaitsTooLong: a plan may bound how long work waits, and then it says so.
func TestWaitsTooLong(t *testing.T) {
	w := newWorld(t)
	free := plans.Free(func(p *metering.Plan) {
		p.Limits.Queued, p.MaxWait = quota.AtMost[int32](10), 20*time.Minute
	})
	if _, err := w.Service.ApplyPlan(t.Context(), free, "test"); err != nil {
		t.Fatal(err)
	}
	until, open := w.gate("first")
	first := w.launch("--lease=1h", "--", "sh", "-c", until, toneFile)
	first.says("admitted")
	second := w.launch("--lease=1h", "--", "true", toneFile)
	second.says("queued")
	w.Advance(25 * time.Minute) // within the leases
	second.says("the place in the queue was lost: Cancelled (WaitedTooLong): it waited 25m")
	second.says("(ConcurrencyLimit), the plan lets work wait 20m0s at most; taking another one")
	open()
	first.ends(0)
	second.ends(0, "charged")
	w.Standing(2*toneCredits, 0, 0)
}

// TestContainerRestarts: the same command in the same pod is the same work.
func TestContainerRestarts(t *testing.T) {
	w := newWorld(t)
	until, open := w.gate("first")
	mark := filepath.Join(w.dir, "second")
	args := []string{"--", "sh", "-c", fmt.Sprintf("if [ -e %s ]; then exit 0; fi; %s; exit 1", mark, until), toneFile}
	p := w.launch(args...)
	p.says("admitted")
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-p.ended
	w.Standing(0, toneCredits, 1)

	// It takes up the slot that it holds, fails, and tries again.
	w.token("pod-1")
	again := w.launch(args...)
	again.says("admitted")
	w.Standing(0, toneCredits, 1)
	open()
	again.ends(1, "nothing is charged")
	w.Standing(0, 0, 0)
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.launch(args...).ends(0, "0.021 credits are charged")
	w.Standing(toneCredits, 0, 0)

	// In another pod it is other work.
	w.token("pod-2")
	w.launch(args...).ends(0, "0.021 credits are charged")
	w.Standing(2*toneCredits, 0, 0)
}

// recording is a WAV file of so many seconds whose every byte of samples is the same.
func recording(seconds int, sample byte) []byte {
	samples := bytes.Repeat([]byte{sample}, 8000*seconds)
	b := binary.LittleEndian.AppendUint32([]byte("RIFF"), uint32(36+len(samples)))
	b = append(b, "WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x40\x1f\x00\x00\x40\x1f\x00\x00\x01\x00\x08\x00data"...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(samples)))
	return append(b, samples...)
}

// TestOtherContent: one file after another under the same path, as a worker that lives on has them.
func TestOtherContent(t *testing.T) {
	w := newWorld(t)
	path, transcripts := filepath.Join(w.dir, "in.wav"), filepath.Join(w.dir, "transcripts")
	want := ""
	for _, content := range [][]byte{recording(60, 1), recording(60, 2), recording(120, 2),
		recording(60, 1)[:50*8000+44]} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		w.launch("--", "sh", "-c", "cksum <$0 >>"+transcripts, path).ends(0, "credits are charged")
		want += cksum(t, path)
	}
	if got, err := os.ReadFile(transcripts); err != nil || string(got) != want {
		t.Errorf("transcripts: got %q, %v; want %q", got, err, want)
	}
	w.Standing(quota.Credits(60_000+60_000+120_000+50_000), 0, 0)
}

func cksum(t *testing.T, path string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `cksum <"$0"`, path)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestChargedBefore: what the same pod was charged for runs again, because nobody knows what has become of its output,
// and is not charged again. It needs a slot all the same.
func TestChargedBefore(t *testing.T) {
	w := newWorld(t)
	again := filepath.Join(w.dir, "again")
	args := []string{"--", "sh", "-c",
		"if [ -e " + again + " ]; then echo transcript; exit $(cat " + again + "); fi", toneFile}
	w.launch(args...).ends(0, "0.021 credits are charged")
	for _, code := range []int{0, 0, 3} {
		if err := os.WriteFile(again, fmt.Append(nil, code), 0o600); err != nil {
			t.Fatal(err)
		}
		p := w.launch(args...)
		p.ends(code, "the same work was charged before", "admitted: 1.234s of audio, charged to alice before",
			"nothing is charged")
		if got := p.out.String(); got != "transcript\n" {
			t.Errorf("the command was to be run again; it wrote %q", got)
		}
	}
	w.Standing(toneCredits, 0, 0)

	until, open := w.gate("first")
	other := w.launch("--", "sh", "-c", until, toneFile)
	other.says("admitted")
	w.launch(append([]string{"--no-queue"}, args...)...).ends(exitOwn,
		"the same work was asked for before in this pod with another --duration")
	p := w.launch(args...)
	p.says("queued, position 1 of 1")
	open()
	other.ends(0)
	p.ends(3)
	w.Standing(2*toneCredits, 0, 0)
}

// TestKey: whoever names a piece of work is told by 0 that it is done.
func TestKey(t *testing.T) {
	w := newWorld(t)
	ran := filepath.Join(w.dir, "ran")
	args := []string{"--key=interview-4", "--", "sh", "-c", "echo ran >>" + ran, toneFile}
	w.launch(args...).ends(0, "0.021 credits are charged")
	w.launch(args...).ends(0, "key interview-4 is done and charged already: not run again")
	if got, err := os.ReadFile(ran); err != nil || string(got) != "ran\n" {
		t.Errorf("got %q, %v, want that it ran once", got, err)
	}
	// A charge does not say that it is done where a failure is charged too.
	failing := []string{"--key=interview-5", "--charge-on-failure", "--", "sh", "-c", "exit 3", toneFile}
	w.launch(failing...).ends(3, "0.021 credits are charged")
	w.launch(failing...).ends(3, "the same work was charged before, as interview-5: it is run again",
		"nothing is charged")
	w.Standing(2*toneCredits, 0, 0)
}

// TestContentUnknown: without a file nobody can tell whether it is the same audio.
func TestContentUnknown(t *testing.T) {
	w := newWorld(t)
	args := []string{"--duration=60s", "--file-size=1000", "true"}
	w.launch(args...).ends(0, "1 credits are charged")
	w.launch(args...).ends(exitOwn,
		"nobody can tell whether this is the same audio: name the file by --audio, or the piece of work by --key")
	w.launch("--duration=61s", "--file-size=1000", "true").ends(0, "1.017 credits are charged")
	w.launch(append([]string{"--key=another"}, args...)...).ends(0, "1 credits are charged")
	w.Standing(quota.Credits(60_000+61_000+60_000), 0, 0)
}

// jobAdmission books the admission of a Job that declared a minute, as the Job controller does.
func (w *world) jobAdmission() uuid.UUID {
	w.t.Helper()
	job := uuid.New()
	res, err := w.Service.Admit(w.t.Context(), metering.AdmitRequest{
		UserID: "alice", ID: quota.ID(job), Source: quota.SourceJob, Namespace: "transcripts", Name: "interview",
		RequestedBy: "system:serviceaccount:transcripts:transcriber", Estimate: quota.Credit, Queue: true, Park: true,
		Lease: metering.JobLease,
	})
	if err != nil || res.Admission == nil {
		w.t.Fatalf("admit the Job: %+v, %v", res, err)
	}
	return job
}

// labels writes what the downward API shows of a Job's pod.
func (w *world) labels(job uuid.UUID) string {
	w.t.Helper()
	path := filepath.Join(w.dir, "labels")
	text := fmt.Sprintf("batch.kubernetes.io/controller-uid=%q\nbatch.kubernetes.io/job-name=\"interview\"\n"+
		"usage.cantonesescribe.io/user=\"alice\"", job)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

func TestJoinsItsJob(t *testing.T) {
	w := newWorld(t)
	job := w.jobAdmission()
	message := filepath.Join(w.dir, "termination-log")
	if err := os.WriteFile(message, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	flags := []string{"--user=", "--labels-file=" + w.labels(job), "--termination-log=" + message, "--"}
	// Its user has one slot, which the Job holds: a second admission would wait for ever. The first pod fails.
	w.launch(append(flags, "sh", "-c", "exit 5", toneFile)...).ends(5, "by Job "+job.String(), "nothing is reported")
	if text, err := os.ReadFile(message); err != nil || len(text) > 0 {
		t.Errorf("the termination message of a failure: %q, %v", text, err)
	}
	// The token is replaced while the second one runs.
	until, open := w.gate("first")
	p := w.launch(append(flags, "sh", "-c", until, toneFile)...)
	p.says("admitted: 1.234s of audio, 1 credits reserved for alice by Job")
	w.token("pod-1")
	open()
	p.ends(0, "0.021 credits are recorded, charged when the Job is over")
	w.Standing(0, quota.Credit, 1)
	if text, err := os.ReadFile(message); err != nil || string(text) != `{"duration_seconds":1.234}` {
		t.Errorf("termination message: got %q, %v", text, err)
	}
	// Another pod of the Job may run it again, and may have another opinion: the first report counts.
	w.launch(append([]string{"--duration=50s"},
		append(flags, "sh", "-c", "printf mine >"+message, toneFile)...)...).ends(0, "another use was recorded before")
	if text, err := os.ReadFile(message); err != nil || string(text) != "mine" {
		t.Errorf("the command's own termination message: got %q, %v", text, err)
	}
	if _, err := w.Service.SettleJob(t.Context(), quota.ID(job), quota.Credit); err != nil {
		t.Fatal(err)
	}
	w.Standing(toneCredits, 0, 0)
	w.launch(append(flags, "true", toneFile)...).ends(exitOwn, "is over: Settled")
}

func TestWaitsForItsJob(t *testing.T) {
	w := newWorld(t)
	first, second := w.jobAdmission(), w.jobAdmission()
	p := w.launch("--job-uid="+second.String(), "--", "true", toneFile)
	p.says("queued, position 1 of 1")
	if _, err := w.Service.SettleJob(t.Context(), quota.ID(first), 0); err != nil {
		t.Fatal(err)
	}
	p.ends(0, "recorded")
	if _, err := w.Service.SettleJob(t.Context(), quota.ID(second), 0); err != nil {
		t.Fatal(err)
	}
	w.Standing(toneCredits, 0, 0)
}

func TestJobWithoutAdmission(t *testing.T) {
	w := newWorld(t)
	job := "--job-uid=" + uuid.NewString()
	w.launch(job, "--user=", "--join-timeout=100ms", "--", "true", toneFile).ends(75, "has no admission after 100ms")
	w.launch(job, "--join-timeout=100ms", "--", "true", toneFile).ends(0, "one of its own is taken", "charged")
	w.Standing(toneCredits, 0, 0)
}

func TestLabels(t *testing.T) {
	path := filepath.Join(t.TempDir(), "labels")
	for name, tc := range map[string]struct {
		text string
		want string
	}{
		"none":         {"", "whose quota is to be spent?"},
		"not a label":  {"user=alice", `"user=alice" is not name="value"`},
		"not a UID":    {jobLabel + `="1"`, `"1" is not the UID of a Job`},
		"user and Job": {userLabel + "=\"alice\"\n" + jobLabel + "=\"" + uuid.NewString() + `"`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			w, err := describe(options{labelsFile: path, duration: time.Second, fileSize: 1, command: []string{"true"}})
			if tc.want == "" && (err != nil || w.user != "alice" || w.job == nil) {
				t.Errorf("got %+v, %v", w, err)
			}
			if tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("error: got %v, want it to contain %q", err, tc.want)
			}
		})
	}
	if _, err := describe(options{labelsFile: t.TempDir(), user: "alice"}); err == nil ||
		errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder of labels: got %v", err)
	}
}
