package controllers

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

// Canaries: none may be seen anywhere but at the endpoint.
const (
	canaryElement = "Q2FuYXJ5RWxlbWVudA+/=="
	canaryUser    = "Q2FuYXJ5VXNlcg+/=="
	canaryOrg     = "0123456789abcdef0123456789abcdef"
	canaryName    = "Zephyrine Quagmire"
	canaryMail    = "zephyrine@quagmire.example"
	canaryColumn  = "canary_column"
	canaryQuery   = "canary-query"
	canaryRequest = "fedcba987654321000000042"
)

var canaries = []string{canaryElement, canaryUser, canaryOrg, canaryName, "Quagmire", canaryMail, canaryColumn, canaryQuery, canaryRequest}

// TestNothingLeaks walks through failures of all kinds with an endpoint that
// repeats whatever it was sent, and then looks for it in all that others can read.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.endpoint.set(func(e *fakeEndpoint) { e.element, e.user = canaryElement, canaryUser })
	h.create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "crm-db", Labels: map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials}},
		StringData: map[string]string{keyElement: canaryElement, keyUser: canaryUser, keyOrganization: canaryOrg},
	})
	csv := canaryColumn + ",email\n" + canaryName + "," + canaryMail + "\n"
	h.create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "contacts", Labels: map[string]string{v1alpha1.LabelUse: v1alpha1.UseSource}},
		StringData: map[string]string{"sample.csv": csv, "broken.csv": csv + canaryName + "\n"},
	})
	h.create(newConnector(h.endpoint.url()))
	gossip := "for Element " + canaryElement + ", User " + canaryUser + ", Organization " + canaryOrg + ": '" + canaryName + "' <" + canaryMail + "> at " +
		h.endpoint.url() + "/bulk/contact?path=/" + canaryQuery + ".csv, request " + canaryRequest
	labelled := func(j *v1alpha1.BulkJob) {
		j.Spec.Path = "/" + canaryQuery + ".csv"
		j.Spec.BackoffLimit = new(int32(0))
	}
	token := func(text string) func(*v1alpha1.BulkJob) {
		return func(j *v1alpha1.BulkJob) { j.Spec.SendToken = text }
	}

	h.waitReason(h.job("broken", fromSecret, labelled, func(j *v1alpha1.BulkJob) { j.Spec.Source.Secret.Key = "broken.csv" }), v1alpha1.ReasonSourceInvalid)
	h.endpoint.refuseWhole(400, gossip)
	h.waitReason(h.job("refused", fromSecret, labelled, token("1")), v1alpha1.ReasonBackoffLimit)
	h.endpoint.refuseWhole(500, gossip)
	h.waitReason(h.job("unknown", fromSecret, labelled, token("2")), v1alpha1.ReasonSubmissionUnknown)
	h.endpoint.normal()
	h.endpoint.set(func(e *fakeEndpoint) {
		e.states, e.failed = []string{"COMPLETE"}, 1
		e.errors = []map[string]any{{"rowNum": 1, "status": "ERROR", "error": gossip, "response": csv}}
	})
	h.waitReason(h.job("rows", fromSecret, labelled, token("3")), v1alpha1.ReasonRowsFailed)
	h.endpoint.set(func(e *fakeEndpoint) { e.states, e.fault = []string{"ABORTED"}, gossip })
	h.waitReason(h.job("aborted", fromSecret, labelled, token("4")), v1alpha1.ReasonRemoteFailed)
	h.running()
	polled := h.job("polled", fromSecret, labelled, token("5"))
	h.waitState(polled, "RUNNING")
	h.endpoint.answer(http.MethodGet, "/status", 401, gossip)
	h.waitReason(polled, v1alpha1.ReasonPollFailed)
	h.calm()
	h.searchFor(canaries)
	if !strings.Contains(h.endpoint.taken()[0].csv, canaryName) {
		t.Error("the endpoint was not sent the rows: the test shows nothing")
	}
}

// searchFor fails the test if any of the words is in what the operator has written anywhere.
func (h *house) searchFor(words []string) {
	h.t.Helper()
	places := map[string]string{}
	for name, list := range map[string]client.ObjectList{
		"jobs": &v1alpha1.BulkJobList{}, "receipts": &v1alpha1.BulkReceiptList{}, "connectors": &v1alpha1.ConnectorInstanceList{}, "events": &eventsv1.EventList{},
	} {
		if err := h.client.List(context.Background(), list, client.InNamespace(h.namespace)); err != nil {
			h.t.Fatal(err)
		}
		if jobs, ok := list.(*v1alpha1.BulkJobList); ok {
			for i := range jobs.Items {
				jobs.Items[i].Spec.Path, jobs.Items[i].ManagedFields = "", nil // the user's own words
			}
		}
		text, err := json.Marshal(list)
		if err != nil {
			h.t.Fatal(err)
		}
		places[name] = unescape.Replace(string(text))
	}
	places["log"] = unescape.Replace(operatorLog.String())
	for place, text := range places {
		if len(text) < 100 {
			h.t.Errorf("there is next to nothing in the %s: %s", place, text)
		}
		for _, word := range words {
			if at := strings.Index(text, word); at >= 0 {
				h.t.Errorf("%q is in the %s: …%s…", word, place, text[max(0, at-200):min(len(text), at+100)])
			}
		}
	}
}

// unescape undoes what JSON does to the characters of tokens and addresses.
var unescape = strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&", `\/`, "/")
