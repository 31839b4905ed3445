// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/cantonesescribe/usage-operator/internal/testing/kubetest"
)

func TestUsagePlanValidation(t *testing.T) {
	t.Parallel()
	const (
		fileSize = "must be a whole number of bytes, more than 0 and at most 1Ti, for example 25Mi"
		duration = "must be a duration in hours, minutes, seconds and milliseconds, more than 0 and at most 720h"
		decimal  = "must be a decimal number in quotes, not negative, with at most 9 digits before and 6 after the point"
		schedule = "must have the five fields of cron (minute, hour, day, month, weekday; always UTC, without TZ=)"
		remove   = "remove one of them"
	)
	testValidation(t, plan, map[string]validationCase{
		"as it is":            {},
		"name of 63":          {patch: "metadata: {generateName: null, name: " + long(63) + "}"},
		"name too long":       {"metadata: {generateName: null, name: " + long(64) + "}", []string{"metadata.name must have at most 63 characters"}},
		"no spec":             {"spec: null", []string{"spec: Required"}},
		"no display name":     {"spec: {displayName: null}", []string{"spec.displayName: Required"}},
		"empty display name":  {`spec: {displayName: ""}`, []string{"spec.displayName", "at least 1"}},
		"display name of 63":  {patch: "spec: {displayName: " + long(63) + "}"},
		"long display name":   {"spec: {displayName: " + long(64) + "}", []string{"spec.displayName: Too long", "63"}},
		"default":             {patch: "spec: {default: true}"},
		"rank 1000":           {patch: "spec: {rank: 1000}"},
		"rank negative":       {"spec: {rank: -1}", []string{"spec.rank", "-1", "greater than or equal to 0"}},
		"rank beyond":         {"spec: {rank: 1001}", []string{"spec.rank", "1001", "less than or equal to 1000"}},
		"no limits":           {"spec: {limits: null}", []string{"spec.limits: Required"}},
		"credits 0":           {patch: "spec: {limits: {credits: 0}}"},
		"credits 10000000":    {patch: "spec: {limits: {credits: 10000000}}"},
		"credits negative":    {"spec: {limits: {credits: -1}}", []string{"spec.limits.credits", "-1", "greater than or equal to 0"}},
		"credits beyond":      {"spec: {limits: {credits: 10000001}}", []string{"spec.limits.credits", "10000001", "less than or equal to 10000000"}},
		"credits not whole":   {"spec: {limits: {credits: 1.5}}", []string{"spec.limits.credits", "integer"}},
		"credits missing":     {"spec: {limits: {credits: null}}", []string{"spec.limits.credits: Required", "list Credits in limits.unlimited"}},
		"credits unlimited":   {patch: "spec: {limits: {credits: null, unlimited: [Credits]}}"},
		"credits both":        {"spec: {limits: {unlimited: [Credits]}}", []string{"spec.limits.credits: Forbidden", "limits.unlimited lists Credits", remove}},
		"file size in bytes":  {patch: "spec: {limits: {fileSize: 26214400}}"},
		"file size 1Ti":       {patch: "spec: {limits: {fileSize: 1Ti}}"},
		"file size 1e3":       {patch: "spec: {limits: {fileSize: '1e3'}}"},
		"file size 0":         {"spec: {limits: {fileSize: 0}}", []string{"spec.limits.fileSize", "limits.fileSize is 0: " + fileSize}},
		"file size negative":  {"spec: {limits: {fileSize: -25Mi}}", []string{"spec.limits.fileSize", "limits.fileSize is -25Mi: " + fileSize}},
		"file size beyond":    {"spec: {limits: {fileSize: 1025Gi}}", []string{"spec.limits.fileSize", "limits.fileSize is 1025Gi: " + fileSize}},
		"file size absurd":    {"spec: {limits: {fileSize: '99999999999999999999E'}}", []string{"spec.limits.fileSize", fileSize}},
		"file size fraction":  {"spec: {limits: {fileSize: 500m}}", []string{"spec.limits.fileSize", "limits.fileSize is 500m: " + fileSize}},
		"file size words":     {"spec: {limits: {fileSize: 25 MB}}", []string{"spec.limits.fileSize", "limits.fileSize is 25 MB: " + fileSize}},
		"file size empty":     {"spec: {limits: {fileSize: ''}}", []string{"spec.limits.fileSize", fileSize}},
		"file size long":      {"spec: {limits: {fileSize: '1" + long(32) + "'}}", []string{"spec.limits.fileSize: Too long", "32"}},
		"file size missing":   {"spec: {limits: {fileSize: null}}", []string{"spec.limits.fileSize: Required", "list FileSize in limits.unlimited"}},
		"file size unlimited": {patch: "spec: {limits: {fileSize: null, unlimited: [FileSize]}}"},
		"file size both":      {"spec: {limits: {unlimited: [FileSize]}}", []string{"spec.limits.fileSize: Forbidden", "limits.unlimited lists FileSize", remove}},

		"audio 1ms":         {patch: "spec: {limits: {audioDuration: 1ms}}"},
		"audio 720h":        {patch: "spec: {limits: {audioDuration: 720h}}"},
		"audio 12m30s":      {patch: "spec: {limits: {audioDuration: 12m30s}}"},
		"audio 1.5h":        {patch: "spec: {limits: {audioDuration: 1.5h}}"},
		"audio as Go says":  {patch: "spec: {limits: {audioDuration: 1h0m1.001s}}"},
		"audio 0":           {"spec: {limits: {audioDuration: 0s}}", []string{"spec.limits.audioDuration", "limits.audioDuration is 0s: " + duration}},
		"audio negative":    {"spec: {limits: {audioDuration: -1h}}", []string{"spec.limits.audioDuration", "limits.audioDuration is -1h: " + duration}},
		"audio beyond":      {"spec: {limits: {audioDuration: 720h0m0.001s}}", []string{"spec.limits.audioDuration", duration}},
		"audio absurd":      {"spec: {limits: {audioDuration: 999999h}}", []string{"spec.limits.audioDuration", duration}},
		"audio all nines":   {"spec: {limits: {audioDuration: 99999h9999999m999999999s}}", []string{"spec.limits.audioDuration", duration}},
		"audio below 1ms":   {"spec: {limits: {audioDuration: 1.5ms}}", []string{"spec.limits.audioDuration", duration}},
		"audio days":        {"spec: {limits: {audioDuration: 1d}}", []string{"spec.limits.audioDuration", duration}},
		"audio empty":       {"spec: {limits: {audioDuration: ''}}", []string{"spec.limits.audioDuration", duration}},
		"audio long":        {"spec: {limits: {audioDuration: " + long(33) + "}}", []string{"spec.limits.audioDuration: Too long", "32"}},
		"audio unlimited":   {patch: "spec: {limits: {unlimited: [AudioDuration]}}"},
		"audio read back":   {patch: "spec: {limits: {audioDuration: 24h0m0s, unlimited: [AudioDuration]}}"},
		"audio both":        {"spec: {limits: {audioDuration: 2h, unlimited: [AudioDuration]}}", []string{"spec.limits.audioDuration: Forbidden", "limits.audioDuration is 2h and limits.unlimited lists AudioDuration", remove}},
		"concurrent 10000":  {patch: "spec: {limits: {concurrent: 10000}}"},
		"concurrent 0":      {"spec: {limits: {concurrent: 0}}", []string{"spec.limits.concurrent", "greater than or equal to 1"}},
		"concurrent beyond": {"spec: {limits: {concurrent: 10001}}", []string{"spec.limits.concurrent", "10001", "less than or equal to 10000"}},
		"concurrent none":   {"spec: {limits: {concurrent: null}}", []string{"spec.limits.concurrent: Required", "list Concurrent in limits.unlimited"}},
		"concurrent free":   {patch: "spec: {limits: {concurrent: null, unlimited: [Concurrent]}}"},
		"concurrent both":   {"spec: {limits: {unlimited: [Concurrent]}}", []string{"spec.limits.concurrent: Forbidden", "limits.unlimited lists Concurrent", remove}},
		"queued 0":          {patch: "spec: {limits: {queued: 0}}"},
		"queued 10000":      {patch: "spec: {limits: {queued: 10000}}"},
		"queued negative":   {"spec: {limits: {queued: -1}}", []string{"spec.limits.queued", "greater than or equal to 0"}},
		"queued beyond":     {"spec: {limits: {queued: 10001}}", []string{"spec.limits.queued", "less than or equal to 10000"}},
		"queued unlimited":  {patch: "spec: {limits: {unlimited: [Queued]}}"},
		"queued both":       {"spec: {limits: {queued: 5, unlimited: [Queued]}}", []string{"spec.limits.queued: Forbidden", "limits.unlimited lists Queued", remove}},
		"unlimited unknown": {"spec: {limits: {unlimited: [Everything]}}", []string{"spec.limits.unlimited[0]: Unsupported value", `"Credits"`}},
		"unlimited twice":   {"spec: {limits: {unlimited: [Queued, Queued]}}", []string{"spec.limits.unlimited[1]: Duplicate value"}},
		"unlimited all":     {patch: "spec: {limits: {credits: null, fileSize: null, concurrent: null, unlimited: [Credits, FileSize, AudioDuration, Concurrent, Queued]}}"},
		"unlimited six":     {"spec: {limits: {unlimited: [" + strings.Repeat("Queued, ", 6) + "]}}", []string{"spec.limits.unlimited: Too many", "5"}},

		"calendar":            {patch: "spec: {period: {anchor: Calendar}}"},
		"final after":         {patch: "spec: {period: {finalAfter: 36h30m}}"},
		"final at once":       {"spec: {period: {finalAfter: 59m}}", []string{"period.finalAfter is '59m'", "from 1h to 720h"}},
		"never final":         {"spec: {period: {finalAfter: 720h1s}}", []string{"period.finalAfter is '720h1s'", "from 1h to 720h"}},
		"final after days":    {"spec: {period: {finalAfter: 3d}}", []string{"period.finalAfter is '3d'", "for example 72h"}},
		"final after nothing": {"spec: {period: {finalAfter: ''}}", []string{"period.finalAfter is ''"}},
		"unknown anchor":      {"spec: {period: {anchor: Monday}}", []string{"spec.period.anchor: Unsupported value", `"AccountCreation", "Calendar"`}},
		"unknown period":      {"spec: {period: {type: Week}}", []string{"spec.period.type: Unsupported value", `"Month"`}},
		"schedule":            {patch: "spec: {reset: {schedule: '*/5 1-3  * JAN,FEB MON'}}"},
		"schedule daily":      {patch: "spec: {reset: {schedule: '@daily'}}"},
		"schedule of four":    {"spec: {reset: {schedule: '0 2 * *'}}", []string{"spec.reset.schedule", "reset.schedule is '0 2 * *': " + schedule}},
		"schedule of six":     {"spec: {reset: {schedule: '0 0 2 * * *'}}", []string{"spec.reset.schedule", schedule}},
		"schedule with zone":  {"spec: {reset: {schedule: 'TZ=Asia/Hong_Kong 0 2 * * *'}}", []string{"spec.reset.schedule", schedule}},
		"schedule on reboot":  {"spec: {reset: {schedule: '@reboot'}}", []string{"spec.reset.schedule", schedule}},
		"schedule empty":      {"spec: {reset: {schedule: ''}}", []string{"spec.reset.schedule", schedule}},
		"schedule long":       {"spec: {reset: {schedule: " + long(129) + "}}", []string{"spec.reset.schedule: Too long", "128"}},
		"batch 10000":         {patch: "spec: {reset: {batchSize: 10000}}"},
		"batch 0":             {"spec: {reset: {batchSize: 0}}", []string{"spec.reset.batchSize", "greater than or equal to 1"}},
		"batch beyond":        {"spec: {reset: {batchSize: 10001}}", []string{"spec.reset.batchSize", "less than or equal to 10000"}},
		"features 32":         {patch: "spec: {features: " + list(32) + "}"},
		"features 33":         {"spec: {features: " + list(33) + "}", []string{"spec.features: Too many", "32"}},
		"features twice":      {"spec: {features: [srt, srt]}", []string{"spec.features[1]: Duplicate value"}},
		"features empty text": {"spec: {features: ['']}", []string{"spec.features[0]", "at least 1"}},
		"features long text":  {"spec: {features: [" + long(64) + "]}", []string{"spec.features[0]: Too long", "63"}},

		"usage types":            {patch: "spec: {usageTypes: [{name: export, creditsPerUnit: '0.25'}, {name: a, creditsPerUnit: '1000000'}, {name: video_2}]}"},
		"usage type long":        {"spec: {usageTypes: [{name: " + long(33) + "}]}", []string{"spec.usageTypes[0].name: Too long", "32"}},
		"usage type capital":     {"spec: {usageTypes: [{name: Export}]}", []string{"usageTypes.name is 'Export': must begin with a small letter"}},
		"usage type hyphen":      {"spec: {usageTypes: [{name: a-b}]}", []string{"usageTypes.name is 'a-b'"}},
		"usage type built in":    {"spec: {usageTypes: [{name: transcription}]}", []string{"a transcription is charged by its audio"}},
		"usage type nameless":    {"spec: {usageTypes: [{creditsPerUnit: '1'}]}", []string{"spec.usageTypes[0].name: Required"}},
		"usage type twice":       {"spec: {usageTypes: [{name: a}, {name: a}]}", []string{"spec.usageTypes[1]: Duplicate value"}},
		"usage type dear":        {"spec: {usageTypes: [{name: a, creditsPerUnit: '1000000.000001'}]}", []string{"usageTypes.creditsPerUnit is 1000000.000001: must be at most 1000000"}},
		"usage type by the word": {"spec: {usageTypes: [{name: a, creditsPerUnit: one}]}", []string{"spec.usageTypes[0].creditsPerUnit", "must be a decimal number in quotes"}},
		"usage types 33":         {"spec: {usageTypes: [" + strings.Repeat("{name: a}, ", 33) + "]}", []string{"spec.usageTypes: Too many", "32"}},

		"currency":           {patch: "spec: {pricing: {currency: HKD}}"},
		"currency lower":     {"spec: {pricing: {currency: usd}}", []string{"spec.pricing.currency", "usd", "ISO 4217 code of three capital letters"}},
		"currency short":     {"spec: {pricing: {currency: US}}", []string{"spec.pricing.currency", "ISO 4217 code of three capital letters"}},
		"currency long":      {"spec: {pricing: {currency: USDT}}", []string{"spec.pricing.currency: Too long", "3"}},
		"price":              {patch: "spec: {pricing: {perPeriod: '999999999.999999'}}"},
		"price negative":     {"spec: {pricing: {perPeriod: '-1'}}", []string{"spec.pricing.perPeriod", "-1", decimal}},
		"price a number":     {"spec: {pricing: {perPeriod: 9.99}}", []string{"spec.pricing.perPeriod", "string"}},
		"price ten digits":   {"spec: {pricing: {perPeriod: '1000000000'}}", []string{"spec.pricing.perPeriod", decimal}},
		"price seven places": {"spec: {pricing: {perPeriod: '0.0000001'}}", []string{"spec.pricing.perPeriod", decimal}},
		"price no places":    {"spec: {pricing: {perPeriod: '1.'}}", []string{"spec.pricing.perPeriod", decimal}},
		"price exponent":     {"spec: {pricing: {perPeriod: '1e3'}}", []string{"spec.pricing.perPeriod", decimal}},
		"price empty":        {"spec: {pricing: {perPeriod: ''}}", []string{"spec.pricing.perPeriod", decimal}},
		"price long":         {"spec: {pricing: {perPeriod: '00000000000000001'}}", []string{"spec.pricing.perPeriod: Too long", "16"}},
		"provider cost":      {"spec: {pricing: {providerCostPerMinute: '0,006'}}", []string{"spec.pricing.providerCostPerMinute", decimal}},

		"overage allowed":      {patch: "spec: {overage: {policy: Allow, maxCredits: 10, pricePerCredit: '0.05'}}"},
		"overage without cap":  {"spec: {overage: {policy: Allow, pricePerCredit: '0.05'}}", []string{"spec.overage.maxCredits: Required", "overage.policy Allow needs the most credits"}},
		"overage unpriced":     {"spec: {overage: {policy: Allow, maxCredits: 10}}", []string{"spec.overage.pricePerCredit: Required", "overage.policy Allow needs the price"}},
		"block with cap":       {"spec: {overage: {policy: Block, maxCredits: 10}}", []string{"spec.overage.maxCredits: Forbidden", "set overage.policy to Allow"}},
		"no policy with cap":   {"spec: {overage: {maxCredits: 10}}", []string{"spec.overage.maxCredits: Forbidden", "set overage.policy to Allow"}},
		"block with price":     {"spec: {overage: {pricePerCredit: '1'}}", []string{"spec.overage.pricePerCredit: Forbidden", "set overage.policy to Allow"}},
		"overage unknown":      {"spec: {overage: {policy: Maybe}}", []string{"spec.overage.policy: Unsupported value", `"Block", "Allow"`}},
		"overage cap 0":        {"spec: {overage: {policy: Allow, maxCredits: 0, pricePerCredit: '1'}}", []string{"spec.overage.maxCredits", "greater than or equal to 1"}},
		"overage cap beyond":   {"spec: {overage: {policy: Allow, maxCredits: 10000001, pricePerCredit: '1'}}", []string{"spec.overage.maxCredits", "less than or equal to 10000000"}},
		"overage price":        {"spec: {overage: {policy: Allow, maxCredits: 1, pricePerCredit: free}}", []string{"spec.overage.pricePerCredit", decimal}},
		"carry over":           {patch: "spec: {carryOver: {maxCredits: 10000000}}"},
		"carry over negative":  {"spec: {carryOver: {maxCredits: -1}}", []string{"spec.carryOver.maxCredits", "greater than or equal to 0"}},
		"carry over beyond":    {"spec: {carryOver: {maxCredits: 10000001}}", []string{"spec.carryOver.maxCredits", "less than or equal to 10000000"}},
		"rate":                 {patch: "spec: {rateLimit: {requests: 1000000, windowSeconds: 86400}}"},
		"rate 0":               {"spec: {rateLimit: {requests: 0}}", []string{"spec.rateLimit.requests", "greater than or equal to 1"}},
		"rate beyond":          {"spec: {rateLimit: {requests: 1000001}}", []string{"spec.rateLimit.requests", "less than or equal to 1000000"}},
		"window 0":             {"spec: {rateLimit: {windowSeconds: 0}}", []string{"spec.rateLimit.windowSeconds", "greater than or equal to 1"}},
		"window beyond":        {"spec: {rateLimit: {windowSeconds: 86401}}", []string{"spec.rateLimit.windowSeconds", "less than or equal to 86400"}},
		"no alerts":            {patch: "spec: {alertThresholds: []}"},
		"ten alerts":           {patch: "spec: {alertThresholds: [1, 20, 30, 40, 50, 60, 70, 80, 90, 100]}"},
		"eleven alerts":        {"spec: {alertThresholds: [1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]}", []string{"spec.alertThresholds: Too many", "10"}},
		"alert twice":          {"spec: {alertThresholds: [80, 80]}", []string{"spec.alertThresholds[1]: Duplicate value"}},
		"alert 0":              {"spec: {alertThresholds: [0]}", []string{"spec.alertThresholds[0]", "greater than or equal to 1"}},
		"alert beyond":         {"spec: {alertThresholds: [101]}", []string{"spec.alertThresholds[0]", "less than or equal to 100"}},
		"ceiling":              {patch: "spec: {dailyCostCeiling: '0'}"},
		"ceiling negative":     {"spec: {dailyCostCeiling: '-50'}", []string{"spec.dailyCostCeiling", decimal}},
		"database admit":       {patch: "spec: {databaseUnavailable: Admit}"},
		"database unknown":     {"spec: {databaseUnavailable: Hope}", []string{"spec.databaseUnavailable: Unsupported value", `"Deny", "Admit"`}},
		"more than one reason": {"spec: {rank: -1, limits: {concurrent: 0}}", []string{"spec.rank", "spec.limits.concurrent"}},
	})
}

func TestUsagePlanDefaults(t *testing.T) {
	t.Parallel()
	env := kubetest.Shared(t)
	got := object(t, plan, "")
	if err := env.Client.Create(t.Context(), got, client.DryRunAll); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"spec.default":             `false`,
		"spec.rank":                `0`,
		"spec.limits":              `{"audioDuration":"24h","concurrent":1,"credits":30,"fileSize":"25Mi","queued":100}`,
		"spec.period":              `{"anchor":"AccountCreation","finalAfter":"72h","type":"Month"}`,
		"spec.reset":               `{"batchSize":500,"schedule":"0 2 * * *"}`,
		"spec.features":            ``,
		"spec.pricing":             `{"currency":"USD","perPeriod":"0","providerCostPerMinute":"0.006"}`,
		"spec.overage":             `{"policy":"Block"}`,
		"spec.carryOver":           `{"maxCredits":0}`,
		"spec.rateLimit":           `{"requests":100,"windowSeconds":3600}`,
		"spec.alertThresholds":     `[80,100]`,
		"spec.dailyCostCeiling":    `"50"`,
		"spec.databaseUnavailable": `"Deny"`,
	} {
		if got := field(t, got, path); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
}
