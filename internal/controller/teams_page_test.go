// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/cantonesescribe/usage-operator/api/v1alpha1"
	"github.com/cantonesescribe/usage-operator/internal/metering"
	"github.com/cantonesescribe/usage-operator/internal/quota"
)

var (
	pageYAML    = regexp.MustCompile("(?s)```yaml\n(.*?)```")
	pageConsole = regexp.MustCompile("(?s)```console\n\\$ kubectl get usageteams\n(.*?)```")
	pageRow     = regexp.MustCompile(`(?m)^\| (\d{4}-\S+Z) \| (\w+) (asks for|is done with) (\d+) \| (.*?) \| ` +
		`(\d+) \| (\d+) \| (\d+) \|$`)
)

// TestTeamsPage applies what docs/teams.md declares, plays its table and compares what kubectl shows.
func TestTeamsPage(t *testing.T) {
	text, err := os.ReadFile("../../docs/teams.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	declared, rows, console := pageYAML.FindAllStringSubmatch(page, -1), pageRow.FindAllStringSubmatch(page, -1),
		pageConsole.FindStringSubmatch(page)
	if len(declared) != 2 || len(rows) != 8 || console == nil {
		t.Fatalf("the page has %d declarations, %d rows and the console %q", len(declared), len(rows), console)
	}
	c := newCluster(t)
	at := func(instant string) {
		when, err := time.Parse(time.RFC3339, instant)
		if err != nil {
			t.Fatal(err)
		}
		c.ahead.Store(int64(time.Until(when)))
	}
	apply := func(text string) {
		for document := range strings.SplitSeq(text, "---\n") {
			object := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte(document), &object.Object); err != nil {
				t.Fatal(err)
			}
			c.create(object)
		}
	}
	at(rows[0][1])
	apply(declared[0][1])
	newsroom := newTeam("newsroom", "")
	alice, bob := memberQuota("alice", "newsroom"), memberQuota("bob", "newsroom")
	c.ready(newsroom, alice, bob)

	running := map[string]quota.AdmissionID{}
	for n, row := range rows {
		instant, user, does, amount, answer := row[1], row[2], row[3], row[4], row[5]
		at(instant)
		whole, err := strconv.ParseInt(amount, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		credits := quota.WholeCredits(whole)
		got := "charged"
		if does == "asks for" {
			res, err := c.service.Admit(t.Context(), metering.AdmitRequest{
				UserID: user, Key: fmt.Sprint(n), Source: quota.SourceAPI, Estimate: credits, Lease: time.Hour,
			})
			if err != nil {
				t.Fatal(err)
			}
			if got = "runs"; res.Admission == nil {
				got = res.Decision.Message()
			} else {
				running[user] = res.Admission.ID
			}
		} else if _, err := c.service.Complete(t.Context(), quota.ID{}, running[user], credits); err != nil {
			t.Fatal(err)
		}
		if got != answer {
			t.Errorf("%s: %s %s %s: %s, the page says %s", instant, user, does, amount, got, answer)
		}
		shows(c, newsroom, func(t *v1alpha1.UsageTeam) [3]string {
			return [3]string{t.Status.Usage.Used, t.Status.Usage.Reserved, t.Status.Usage.Remaining}
		}, [3]string{row[6], row[7], row[8]})
	}

	apply(declared[1][1])
	words := func(text string) string { // without the age
		var out []string
		for line := range strings.Lines(text) {
			fields := strings.Fields(line)
			out = append(out, strings.Join(fields[:len(fields)-1], " "))
		}
		return strings.Join(out, "\n")
	}
	c.eventually(func() string {
		got, err := c.env.Kubectl(t.Context(), "get", "usageteams")
		if err != nil || words(got) != words(console[1]) {
			return fmt.Sprintf("%v, kubectl shows\n%s", err, got)
		}
		return ""
	})
}
