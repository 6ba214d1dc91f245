package v1alpha1_test

import (
	"slices"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// transition is an object that is there, and the change that the API server is asked for.
type transition struct {
	name    string
	reason  string
	before  changes
	after   changes
	refusal string
}

func TestConnectorInstanceUpdate(t *testing.T) {
	const frozen = "targetID cannot be changed: it is part of what makes two loads the same load. Make another ConnectorInstance"
	testUpdate(t, bareConnector, []transition{
		{name: "target set", reason: "loads so far went to the object's name", after: changes{"spec.targetID": "crm"}, refusal: frozen},
		{name: "target taken away", reason: "loads so far went to crm", before: changes{"spec.targetID": "crm"}, after: changes{"spec.targetID": nil}, refusal: frozen},
		{name: "target changed", reason: "loads so far went to crm", before: changes{"spec.targetID": "crm"}, after: changes{"spec.targetID": "erp"}, refusal: frozen},
		{name: "target kept", reason: "anything else may change", before: changes{"spec.targetID": "crm"}, after: changes{"spec.baseURL": "https://other.example.com", "spec.suspend": true}},
		{name: "no target kept", reason: "anything else may change", after: changes{"spec.credentialsRef.name": "other"}},
	})
}

func TestBulkJobUpdate(t *testing.T) {
	testUpdate(t, bareBulkJob, []transition{
		{name: "other content", reason: "another identity, not an error", after: changes{"spec.source.configMap.name": "contacts-7f2k"}},
		{name: "other object and connector", reason: "another identity, not an error", after: changes{"spec.object": "account", "spec.connectorRef.name": "erp"}},
		{name: "to an upsert without key", reason: "rules hold for updates too", after: changes{"spec.action": "Upsert"}, refusal: keyNeeded},
		{name: "key taken from an upsert", reason: "rules hold for updates too", before: changes{"spec.action": "Upsert", "spec.keyField": "email"}, after: changes{"spec.keyField": nil}, refusal: keyNeeded},
		{name: "suspend and cancel", reason: "a person's switches", after: changes{"spec.suspend": true, "spec.cancel": true}},
	})
}

func TestBulkReceiptSpecUpdate(t *testing.T) {
	const (
		frozen = "the identity of a load cannot be changed"
		begun  = "a load that was begun in parts keeps these parts"
	)
	testUpdate(t, bareReceipt, []transition{
		{name: "other parts", reason: "what was begun in parts keeps them", before: changes{"record.division": division(0, 30)}, after: changes{"record.division": division(0, 40)}, refusal: begun},
		{name: "parts taken away", reason: "what was begun in parts keeps them", before: changes{"record.division": division(0, 30)}, after: changes{"record.division": nil}, refusal: begun},
		{name: "the same parts", reason: "what becomes of them is noted", before: changes{"record.division": division(0, 30)}, after: changes{"record.parts": list{changes{"number": 1, "jobID": "7"}}}},
		{
			name: "other parts of what came to nothing", reason: "nothing of it was loaded",
			before: changes{"record.division": division(0, 30), "record.outcome": "NeverAccepted"}, after: changes{"record.division": division(0, 40), "record.outcome": nil},
		},
		{name: "target", reason: "part of the identity", after: changes{"spec.target": "erp"}, refusal: frozen},
		{name: "object", reason: "part of the identity", after: changes{"spec.object": "account"}, refusal: frozen},
		{name: "action", reason: "part of the identity", after: changes{"spec.action": "Upsert", "spec.keyField": "email"}, refusal: frozen},
		{name: "content", reason: "part of the identity", after: changes{"spec.content": "sha256:01"}, refusal: frozen},
		{name: "content taken away", reason: "part of the identity", after: changes{"spec.content": nil}, refusal: frozen},
		{name: "parameters", reason: "part of the identity", after: changes{"spec.parameters": changes{"listId": "7"}}, refusal: frozen},
		{name: "token", reason: "part of the identity", after: changes{"spec.sendToken": "again"}, refusal: frozen},
		{name: "algorithm", reason: "part of the name", after: changes{"spec.algorithm": 2}, refusal: frozen},
		{name: "labels", reason: "no part of it", after: changes{"metadata.labels": changes{"a": "b"}}},
	})
}

func TestBulkReceiptOutcomeUpdate(t *testing.T) {
	const frozen = "a terminal outcome is frozen"
	var cases []transition
	for _, end := range []string{"Succeeded", "Failed", "Cancelled", "Abandoned"} {
		cases = append(cases,
			transition{name: end + " reached", reason: "a running load ends", after: changes{"record.outcome": end}},
			transition{name: end + " kept", reason: "more may be told about an end", before: changes{"record.outcome": end}, after: changes{"record.outcome": end, "record.message": "late words"}},
			transition{name: end + " turned", reason: "jobs have been told", before: changes{"record.outcome": end}, after: changes{"record.outcome": "NeverAccepted"}, refusal: frozen},
			transition{name: end + " taken away", reason: "jobs have been told", before: changes{"record.outcome": end}, after: changes{"record.outcome": nil}, refusal: frozen},
			transition{name: end + " found out", reason: "what was unknown may be known later", before: changes{"record.outcome": "Unknown"}, after: changes{"record.outcome": end}},
		)
	}
	testUpdate(t, bareReceipt, append(cases,
		transition{name: "claimed again", reason: "a load that was never taken may be claimed again", before: changes{"record.outcome": "NeverAccepted"}, after: changes{"record.outcome": nil, "record.attempts": attempts(1, 2)}},
		transition{name: "running again", reason: "an unknown load that is found runs", before: changes{"record.outcome": "Unknown"}, after: changes{"record.outcome": nil, "record.jobID": "1234"}}))
}

func TestBulkReceiptJobIDUpdate(t *testing.T) {
	const once = "jobID is set once"
	testUpdate(t, bareReceipt, []transition{
		{name: "set", reason: "the load was taken", after: changes{"record.jobID": "1234"}},
		{name: "kept", reason: "the load goes on", before: changes{"record.jobID": "1234"}, after: changes{"record.jobID": "1234", "record.state": "RUNNING"}},
		{name: "changed", reason: "one load is one job", before: changes{"record.jobID": "1234"}, after: changes{"record.jobID": "1235"}, refusal: once},
		{name: "taken away", reason: "what was sent stays sent", before: changes{"record.jobID": "1234"}, after: changes{"record.jobID": nil}, refusal: once},
		{name: "another one noted", reason: "a load that was sent twice keeps both", before: changes{"record.jobID": "1234"}, after: changes{"record.otherJobIDs": list{"1235"}}},
	})
}

func TestBulkReceiptAttemptsUpdate(t *testing.T) {
	const (
		appendOnly = "attempts are append-only; only the oldest may be folded away, and only beyond ten"
		higher     = "a new attempt has a higher number than all before it"
	)
	ended := attempts(1, 2)
	ended[1].(changes)["outcome"], ended[1].(changes)["fencedBy"] = "Unknown", "h2"
	testUpdate(t, bareReceipt, []transition{
		{name: "appended", reason: "a further attempt", after: changes{"record.attempts": attempts(1, 2)}},
		{name: "ended", reason: "outcome and fence are written later", before: changes{"record.attempts": attempts(1, 2)}, after: changes{"record.attempts": ended}},
		{name: "replaced", reason: "an attempt isn't taken back", after: changes{"record.attempts": attempts(2, 2)}, refusal: appendOnly},
		{name: "last taken away", reason: "an attempt isn't taken back", before: changes{"record.attempts": attempts(1, 3)}, after: changes{"record.attempts": attempts(1, 2)}, refusal: appendOnly},
		{name: "middle taken away", reason: "an attempt isn't taken back", before: changes{"record.attempts": attempts(1, 3)}, after: changes{"record.attempts": slices.Delete(attempts(1, 3), 1, 2)}, refusal: appendOnly},
		{name: "other nonce", reason: "the nonce is what was sent along", after: changes{"record.attempts": list{attempt(1, "other", "h")}}, refusal: appendOnly},
		{name: "other holder", reason: "nobody takes an attempt over", after: changes{"record.attempts": list{attempt(1, "n1", "other")}}, refusal: appendOnly},
		{name: "doubled number", reason: "one number, one attempt", after: changes{"record.attempts": list{attempt(1, "n1", "h"), attempt(1, "n2", "h")}}, refusal: higher},
		{name: "put before", reason: "the past isn't written anew", before: changes{"record.attempts": attempts(2, 3)}, after: changes{"record.attempts": attempts(1, 3)}, refusal: higher},
		{name: "eleventh", reason: "the oldest is folded away", before: changes{"record.attempts": attempts(1, 10)}, after: changes{"record.attempts": attempts(2, 11)}},
		{name: "folded too early", reason: "there is room for the oldest", before: changes{"record.attempts": attempts(1, 9)}, after: changes{"record.attempts": attempts(2, 10)}, refusal: appendOnly},
		{name: "folded to one", reason: "only as many as are in the way", before: changes{"record.attempts": attempts(1, 10)}, after: changes{"record.attempts": attempts(11, 11)}, refusal: appendOnly},
	})
}

func testUpdate(t *testing.T, bare string, cases []transition) {
	t.Helper()
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			current := object(t, bare, tc.before)
			if err := api.Create(t.Context(), current); err != nil {
				t.Fatalf("cannot make the object before: %v", err)
			}
			change(t, current, tc.after)
			expect(t, api.Update(t.Context(), current, client.DryRunAll), tc.refusal, tc.reason)
		})
	}
}
