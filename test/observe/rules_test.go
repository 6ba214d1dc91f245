package observe_test

import (
	"cmp"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// scenario is what an alert sees, and when it is to fire. Samples are a minute apart, in promtool's notation: a+bxn counts
// up n times, axn stays, _xn is missing.
type scenario struct {
	reason string
	alert  string
	series map[string]string
	fires  []string          // minutes at which it does
	quiet  []string          // minutes at which it doesn't
	labels map[string]string // of the alert, beside its name and severity
	says   string            // the summary, where it isn't the same each time
}

const host = "crm.example.com"

func scenarios() []scenario {
	return slices.Concat(scenariosOfLoads(), scenariosOfWaiting(), scenariosOfEndpoints())
}

func scenariosOfLoads() []scenario {
	return []scenario{
		{
			reason: "one load was sent twice; after an hour everybody knows", alert: "BulkJobSentTwice",
			series: map[string]string{`bulkjob_sent_twice_total`: "0x10 1x120"}, quiet: []string{"5m", "80m"}, fires: []string{"15m", "60m"},
		},
		{
			reason: "a restart begins to count anew", alert: "BulkJobSentTwice",
			series: map[string]string{`bulkjob_sent_twice_total`: "1x70 0x60"}, quiet: []string{"65m", "75m", "120m"},
		},
		{
			reason: "one load came to be in doubt", alert: "BulkJobSubmissionUnknown",
			series: map[string]string{`bulkjob_submission_unknown_total`: "0x10 1x120"}, quiet: []string{"5m", "80m"}, fires: []string{"15m", "60m"},
		},
		{
			reason: "a load is held until somebody decides", alert: "BulkJobsHeld",
			series: map[string]string{`bulkjob_unfinished_jobs{reason="SubmissionUnknown", stalled="true"}`: "2x300 _x30"},
			quiet:  []string{"10m", "310m"}, fires: []string{"20m", "290m"},
			labels: map[string]string{"reason": "SubmissionUnknown"}, says: "2 BulkJobs need somebody, with reason SubmissionUnknown.",
		},
		{
			reason: "what waits is not held", alert: "BulkJobsHeld",
			series: map[string]string{`bulkjob_unfinished_jobs{reason="SourceNotFound", stalled="false"}`: "9x100"}, quiet: []string{"90m"},
		},
		{
			reason: "the first failure ever is a new series", alert: "BulkJobsFailing",
			series: map[string]string{`bulkjob_finished_total{result="Failed", reason="RowsFailed"}`: "_x10 1x120"},
			quiet:  []string{"5m", "90m"}, fires: []string{"12m", "60m"},
			labels: map[string]string{"reason": "RowsFailed"}, says: "BulkJobs failed within the last hour, with reason RowsFailed.",
		},
		{
			reason: "a further failure", alert: "BulkJobsFailing",
			series: map[string]string{`bulkjob_finished_total{result="Failed", reason="SourceInvalid"}`: "1x90 2x120"},
			quiet:  []string{"80m", "160m"}, fires: []string{"100m"},
			labels: map[string]string{"reason": "SourceInvalid"}, says: "BulkJobs failed within the last hour, with reason SourceInvalid.",
		},
		{
			reason: "success is none", alert: "BulkJobsFailing",
			series: map[string]string{`bulkjob_finished_total{result="Complete", reason="Complete"}`: "0+1x120"}, quiet: []string{"5m", "100m"},
		},
		{
			reason: "one row in eleven fails, for an hour", alert: "BulkRowsFailing",
			series: map[string]string{
				`bulkjob_rows_total{result="Loaded"}`: "0+100x200", `bulkjob_rows_total{result="Failed"}`: "0+10x60 600x140",
			},
			quiet: []string{"4m", "135m"}, fires: []string{"30m"}, says: "Of the rows loaded within the last hour, 9.091% failed.",
		},
		{
			reason: "half of a few rows", alert: "BulkRowsFailing",
			series: map[string]string{`bulkjob_rows_total{result="Loaded"}`: "0+1x90", `bulkjob_rows_total{result="Failed"}`: "0+1x90"},
			quiet:  []string{"30m", "80m"},
		},
	}
}

func scenariosOfWaiting() []scenario {
	return []scenario{
		{
			reason: "always somebody waits", alert: "BulkJobsWaiting",
			series: map[string]string{`bulkjob_jobs{state="Waiting"}`: "1x400 0x10"}, quiet: []string{"350m", "405m"}, fires: []string{"365m"},
		},
		{
			reason: "a pause begins the six hours anew", alert: "BulkJobsWaiting",
			series: map[string]string{`bulkjob_jobs{state="Waiting"}`: "1x200 0 1x300"}, quiet: []string{"365m", "500m"},
		},
		{
			reason: "the line never empties", alert: "BulkUploadsQueueing",
			series: map[string]string{`bulkjob_unfinished_jobs{reason="WaitingForUploadSlot", stalled="false"}`: "9x90 _x20"},
			quiet:  []string{"50m", "100m"}, fires: []string{"65m"},
		},
		{
			reason: "what is being sent does not queue", alert: "BulkUploadsQueueing",
			series: map[string]string{`bulkjob_unfinished_jobs{reason="Sending", stalled="false"}`: "9x90"}, quiet: []string{"80m"},
		},
		{
			reason: "reports don't come to be written", alert: "BulkReportsWaiting",
			series: map[string]string{`bulkjob_unfinished_jobs{reason="WritingReport", stalled="false"}`: "3x60 _x20"},
			quiet:  []string{"25m", "70m"}, fires: []string{"35m"},
		},
		{
			reason: "the only replica is gone, and comes back", alert: "BulkOperatorDown",
			series: map[string]string{`up{job="bulkjob-controller-manager-metrics"}`: "1x10 0x30 1x30"},
			quiet:  []string{"5m", "15m", "45m"}, fires: []string{"25m"}, labels: map[string]string{"job": "bulkjob-controller-manager-metrics"},
		},
		{
			reason: "one of two replicas is enough", alert: "BulkOperatorDown",
			series: map[string]string{
				`up{job="bulkjob-controller-manager-metrics", pod="a"}`: "0x60", `up{job="bulkjob-controller-manager-metrics", pod="b"}`: "1x60",
			},
			quiet: []string{"30m"},
		},
		{
			reason: "nothing is scraped at all", alert: "BulkOperatorDown",
			series: map[string]string{`up{job="another"}`: "1x60"}, quiet: []string{"5m"}, fires: []string{"15m"},
		},
		{
			reason: "one of two managers, which share the cluster", alert: "BulkOperatorDown",
			series: map[string]string{
				`up{job="bulkjob-controller-manager-metrics"}`: "1x60", `up{job="bulkjob-controller-manager-metrics-b"}`: "0x60",
			},
			fires: []string{"15m"}, labels: map[string]string{"job": "bulkjob-controller-manager-metrics-b"},
		},
	}
}

func scenariosOfEndpoints() []scenario {
	at := func(action, code string) string {
		return `bulkjob_endpoint_requests_total{endpoint="` + host + `", action="` + action + `", code="` + code + `"}`
	}
	took := func(le string) string {
		return `bulkjob_endpoint_request_duration_seconds_bucket{action="status", le="` + le + `"}`
	}
	return []scenario{
		{
			reason: "no answers, then answers", alert: "BulkEndpointUnreachable",
			series: map[string]string{at("status", "0"): "0+10x60 600x60", at("status", "200"): "0+1x120"},
			quiet:  []string{"10m", "80m"}, fires: []string{"30m"},
			labels: map[string]string{"endpoint": host}, says: "More than half of the requests to " + host + " get no answer, or a 5xx.",
		},
		{
			reason: "one in three", alert: "BulkEndpointUnreachable",
			series: map[string]string{at("status", "503"): "0+1x60", at("status", "200"): "0+2x60"}, quiet: []string{"50m"},
		},
		{
			reason: "a rotated secret", alert: "BulkEndpointRefusesCredentials",
			series: map[string]string{at("objects", "401"): "0+1x60 60x60"}, quiet: []string{"10m", "80m"}, fires: []string{"30m"},
			labels: map[string]string{"endpoint": host},
		},
		{
			reason: "files that are too large", alert: "BulkEndpointRefusesFiles",
			series: map[string]string{at("submit", "413"): "0+1x60 60x60"}, quiet: []string{"5m", "100m"}, fires: []string{"30m"},
			labels: map[string]string{"endpoint": host, "code": "413"}, says: host + " answers uploads with 413, again and again.",
		},
		{
			reason: "credentials have an alert of their own, and polls aren't uploads", alert: "BulkEndpointRefusesFiles",
			series: map[string]string{at("submit", "401"): "0+1x60", at("submit", "403"): "0+1x60", at("status", "404"): "0+1x60", at("submit", "200"): "0+1x60"}, quiet: []string{"30m"},
		},
		{
			reason: "polls take half a minute", alert: "BulkEndpointSlow",
			series: map[string]string{took("12.15"): "0x120", took("36.45"): "0+10x60 600x60", took("+Inf"): "0+10x60 600x60"},
			quiet:  []string{"10m", "80m"}, fires: []string{"30m"},
			says: "One in ten requests to endpoints, uploads aside, takes longer than 34.02s.",
		},
		{
			reason: "uploads may take their time", alert: "BulkEndpointSlow",
			series: map[string]string{
				`bulkjob_endpoint_request_duration_seconds_bucket{action="submit", le="12.15"}`: "0x60",
				`bulkjob_endpoint_request_duration_seconds_bucket{action="submit", le="+Inf"}`:  "0+10x60",
			},
			quiet: []string{"50m"},
		},
	}
}

// The shapes that promtool reads: https://prometheus.io/docs/prometheus/latest/configuration/unit_testing_rules/
type unit struct {
	Interval string      `json:"interval"`
	Series   []inputs    `json:"input_series"`
	Tests    []alertTest `json:"alert_rule_test"`
}

type inputs struct {
	Series string `json:"series"`
	Values string `json:"values"`
}

type alertTest struct {
	EvalTime string     `json:"eval_time"`
	Name     string     `json:"alertname"`
	Want     []expected `json:"exp_alerts"`
}

type expected struct {
	Labels      map[string]string `json:"exp_labels"`
	Annotations map[string]string `json:"exp_annotations"`
}

// unit is the scenario as promtool reads it. Promtool compares all labels and annotations.
func (s *scenario) unit(of rule) unit {
	u := unit{Interval: "1m"}
	for _, name := range slices.Sorted(maps.Keys(s.series)) {
		u.Series = append(u.Series, inputs{name, s.series[name]})
	}
	want := expected{Labels: maps.Clone(of.Labels), Annotations: maps.Clone(of.Annotations)}
	maps.Copy(want.Labels, s.labels)
	want.Annotations["summary"] = cmp.Or(s.says, of.Annotations["summary"])
	for _, at := range s.fires {
		u.Tests = append(u.Tests, alertTest{at, s.alert, []expected{want}})
	}
	for _, at := range s.quiet {
		u.Tests = append(u.Tests, alertTest{EvalTime: at, Name: s.alert})
	}
	return u
}

func TestRulesAreSound(t *testing.T) {
	dir := t.TempDir()
	if said, err := promtool(t.Context(), "check", "rules", "--lint=all", "--lint-fatal", write(t, dir, "rules.yaml", rules(t))); err != nil {
		t.Errorf("%v: %s", err, said)
	}
	for _, r := range rules(t).Groups[0].Rules {
		anchor := "docs/operations.md#" + strings.ToLower(r.Alert)
		if r.Annotations["runbook_url"] != anchor || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s lacks a summary, a description, or the runbook_url %s", r.Alert, anchor)
		}
		if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
			t.Errorf("%s has the severity %q", r.Alert, r.Labels["severity"])
		}
	}
}

func TestAlertsFireAndResolve(t *testing.T) {
	dir := t.TempDir()
	all := map[string]rule{}
	for _, r := range rules(t).Groups[0].Rules {
		all[r.Alert] = r
	}
	write(t, dir, "rules.yaml", rules(t))
	for _, s := range scenarios() {
		t.Run(s.alert+"/"+s.reason, func(t *testing.T) {
			test := map[string]any{
				"rule_files": []string{filepath.Join(dir, "rules.yaml")}, "evaluation_interval": "1m", "tests": []unit{s.unit(all[s.alert])},
			}
			if said, err := promtool(t.Context(), "test", "rules", write(t, t.TempDir(), "test.yaml", test)); err != nil {
				t.Errorf("%v: %s", err, said)
			}
		})
	}
}

// Each alert is seen to fire, and to be quiet both before and, some time later, after that.
func TestEveryAlertIsTested(t *testing.T) {
	for _, r := range rules(t).Groups[0].Rules {
		fires, quiet := 0, 0
		for _, s := range scenarios() {
			if s.alert == r.Alert {
				fires, quiet = max(fires, len(s.fires)), max(quiet, min(len(s.fires), 1)*len(s.quiet))
			}
		}
		if fires == 0 || quiet < 2 {
			t.Errorf("%s is not seen to fire, to be quiet before, and to resolve", r.Alert)
		}
	}
}
