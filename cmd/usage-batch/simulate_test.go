// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const goldPlan = `
apiVersion: usage.cantonesescribe.io/v1alpha1
kind: UsagePlan
metadata: {name: gold}
spec:
  displayName: Gold
  limits: {credits: 100, fileSize: 50Mi, audioDuration: 1h, concurrent: 5}
  pricing: {perPeriod: "9.99", providerCostPerMinute: "0.01"}
  overage: {policy: Allow, maxCredits: 20, pricePerCredit: "0.05"}
  dailyCostCeiling: "1000"
`

// A plan is tried on generated users of whom it is known what becomes of them: 100 credits are included, 20 more are
// sold at 0.05.
func TestSimulate(t *testing.T) {
	t.Parallel()
	const users = 60
	l := newLedger(t, users)
	defer l.exec(`TRUNCATE usage_analytics, usage_rollups_complete, usage_totals`)
	now := time.Now().UTC()
	today := now.Truncate(24 * time.Hour)
	l.exec(`INSERT INTO usage_rollups_complete (as_of) VALUES (now())`)
	r := rand.New(rand.NewPCG(1, 2))
	var want simulatedOutcome
	fits, large := int64(0), int64(0)
	exhausted := int64(0)
	for i := range users {
		fit, big := true, i%7 == 0
		for span := range 3 {
			used := int64(r.IntN(150)) // whole credits, on one to five days, the first day of the span among them
			days := 1 + r.IntN(5)
			for d := range days {
				part := used / int64(days)
				if d == 0 {
					part += used % int64(days)
				}
				bytes := int64(1 << 20)
				if big && span == 1 && d == 0 {
					bytes = 51 << 20
				}
				l.exec(fmt.Sprintf(`INSERT INTO usage_analytics
					SELECT u.id, d, d::timestamp AT TIME ZONE 'UTC', 0, u.id, 'free', 'transcription', 'USD', 'USD', 1,
					    0, %d, 0, 0, 0, 0, 0, 0, 0, %[1]d, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 60000, %d
					FROM users AS u, (SELECT date '%s') AS x (d) WHERE u.user_id = 'user-%d'`, part*60_000, bytes,
					today.AddDate(0, 0, -90+30*span+6*d).Format(time.DateOnly), i))
			}
			served := min(used, 120)
			want.Periods++
			want.ServedMs += served * 60_000
			want.RefusedMs += (used - served) * 60_000
			want.OverageMs += max(0, served-100) * 60_000
			want.PeriodPriceMicros += 9_990_000
			want.OveragePriceMicros += max(0, served-100) * 50_000
			want.CostMicros += served * 10_000
			fit = fit && served == used
		}
		want.Users++
		if !fit {
			exhausted++
		}
		if big {
			large++
		}
		if fit && !big {
			fits++
		}
	}
	want.Currency, want.RevenueMicros = "USD", want.PeriodPriceMicros+want.OveragePriceMicros
	want.MarginMicros = want.RevenueMicros - want.CostMicros
	file := filepath.Join(t.TempDir(), "gold.yaml")
	if err := os.WriteFile(file, []byte(goldPlan), 0o600); err != nil {
		t.Fatal(err)
	}
	simulate := func(args ...string) (string, error) {
		return run(t, l.dsn, append([]string{"simulate", "--allow-unsafe-database"}, args...)...)
	}
	out, err := simulate(file, "-o", "json")
	var got simulatedAnswer
	if err != nil || json.Unmarshal([]byte(out), &got) != nil {
		t.Fatalf("%q, %v", out, err)
	}
	if got.Outcome != want || got.UsersThatFit != fits || got.To != today.Format(time.DateOnly) {
		t.Errorf("got %+v, %d fit, want %+v, %d", got.Outcome, got.UsersThatFit, want, fits)
	}
	refused := fmt.Sprintf("[{FileTooLarge %d} {CreditsExhausted %d}]", large, exhausted)
	if text := fmt.Sprint(got.Refused); text != refused {
		t.Errorf("refused: %s, want %s", text, refused)
	}
	if again, err := simulate(file, "-o", "json", "--of-plan=free"); err != nil ||
		strings.Replace(again, "  \"of_plan\": \"free\",\n", "", 1) != out {
		t.Errorf("all are on free, so the answer is the same, got %s, %v", again, err)
	}
	if none, err := simulate(file, "--of-plan=starter"); err == nil ||
		err.Error() != `plan "starter": not found` || exitCode(err) != exitFailed {
		t.Errorf("there is no such plan, got %s, %v", none, err)
	}
	table, err := simulate(file)
	for _, line := range []string{"ON             USERS  PERIODS  SERVED", "gold           60     180      ",
		fmt.Sprintf("%d of 60 users fit", fits), fmt.Sprintf("%d do not: CreditsExhausted", exhausted)} {
		if err != nil || !strings.Contains(table, line) {
			t.Errorf("want %q in the table, got %v\n%s", line, err, table)
		}
	}
}

func TestSimulateIsRefused(t *testing.T) {
	t.Parallel()
	l := newLedger(t, 1)
	file := filepath.Join(t.TempDir(), "gold.yaml")
	for name, tc := range map[string]struct {
		manifest string
		args     []string
		code     int
		want     string
	}{
		"wrong": {strings.Replace(goldPlan, "credits: 100", "credits: -100", 1), []string{file}, exitWrongManifest,
			"spec.limits.credits: Invalid value: -100"},
		"nothing is known":  {goldPlan, []string{file}, exitFailed, "nothing is rolled up yet"},
		"no file":           {goldPlan, []string{file + "x"}, exitFailed, "no such file"},
		"an unknown output": {goldPlan, []string{file, "-o", "yaml"}, exitFailed, `--output "yaml": must be json`},
	} {
		if err := os.WriteFile(file, []byte(tc.manifest), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := run(t, l.dsn, append([]string{"simulate", "--allow-unsafe-database"}, tc.args...)...)
		if err == nil || exitCode(err) != tc.code || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %q, %v, want %q", name, out, err, tc.want)
		}
	}
}
