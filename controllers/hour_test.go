package controllers

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/openconnectors"
	"bulkjob.dev/operator/internal/upload"
)

// TestOneHourIsSixPolls lets the reconciler follow loads that take an hour each, and has an endpoint that calls back say
// when they have ended. The reconciler is woken every minute as well, as it is when anything changes near a load.
func TestOneHourIsSixPolls(t *testing.T) {
	for _, tc := range []struct {
		reason string
		tells  bool
		most   int
	}{
		{"the endpoint has called back within a day", true, 6},
		{"nobody knows whether it will", false, 61},
	} {
		t.Run(tc.reason, func(t *testing.T) {
			for i := range 50 {
				synctest.Test(t, func(t *testing.T) {
					polls, late := anHour(t, fmt.Sprint("uid-", i), tc.tells)
					if polls > tc.most || late > time.Second {
						t.Errorf("load %d: %d polls, its end known %v after it came; want %d polls at most", i, polls, late, tc.most)
					}
				})
			}
		})
	}
}

// anHour follows a load for an hour, until its end is known: how often it was polled, and how late that was.
func anHour(t *testing.T, uid string, tells bool) (polls int, late time.Duration) {
	t.Helper()
	began := time.Now()
	receipt := calledReceipt(func(r *v1alpha1.BulkReceipt) {
		r.UID = types.UID(uid)
		r.Record.JobID, r.Record.SubmitTime, r.Record.TargetFingerprint = "42114492", new(metav1.NewTime(began)), "them"
		r.Record.Attempts[0].At, r.Record.Attempts[0].Outcome = metav1.NewMicroTime(began), v1alpha1.AttemptAccepted
	})
	connector := callingConnector(func(ci *v1alpha1.ConnectorInstance) { ci.Spec.Polling = v1alpha1.Polling{} })
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Namespace: "n", Name: "crm-db", Labels: map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials},
	}}
	o := guarded(t, receipt, connector, secret)
	o.now, o.gates, o.pool, o.workers = time.Now, &upload.Gates{}, upload.NewPool(1, ctrl.Log), 4
	o.callback = &Callback{URL: "https://bulk.example.com"}
	if tells {
		o.callback.note(openReceipt(requestedAt(began.Add(-23 * time.Hour))))
	}
	status := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/elements/api-v2/bulk/42114492/status" {
			t.Errorf("it asks for %s", r.URL.Path)
		}
		polls++
		answer := map[string]any{"id": "42114492", "status": "RUNNING"}
		if time.Since(began) >= time.Hour {
			answer = map[string]any{"id": "42114492", "status": "COMPLETED", "recordsCount": 3, "recordsFailedCount": 0}
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}
	o.connections.found = map[types.NamespacedName]*discovered{client.ObjectKeyFromObject(connector): {
		uid: connector.UID, generation: connector.Generation, secret: versionOf(kept(t, o, secret)),
		connection: &connection{host: "api.example.com", fingerprint: "them", client: clientOf(t, connector, status)},
	}}
	hints := &called{client: o.client, now: time.Now}
	r := &ReceiptReconciler{Client: o.client, operator: o}
	for next, told := began, false; ; {
		time.Sleep(time.Until(next))
		result, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKeyFromObject(receipt)})
		if err != nil {
			t.Fatal(err)
		}
		if kept(t, o, receipt).Record.Outcome == v1alpha1.LoadSucceeded {
			return polls, time.Since(began) - time.Hour
		}
		if time.Since(began) > 2*time.Hour {
			t.Fatal("its end is not known an hour after it came")
		}
		next = time.Now().Add(min(result.RequeueAfter, time.Minute))
		if end := began.Add(time.Hour); !told && !next.Before(end) {
			time.Sleep(time.Until(end))
			if err := hints.Heard(t.Context(), calledToken, "42114492"); err != nil {
				t.Fatal(err)
			}
			next, told = end, true
		}
	}
}

// kept is an object as the API server has it.
func kept[T client.Object](t *testing.T, o *operator, object T) T {
	t.Helper()
	if err := o.live.Get(t.Context(), client.ObjectKeyFromObject(object), object); err != nil {
		t.Fatal(err)
	}
	return object
}

// clientOf speaks to an endpoint without a network.
func clientOf(t *testing.T, ci *v1alpha1.ConnectorInstance, answer http.HandlerFunc) *openconnectors.Client {
	t.Helper()
	base, err := url.Parse(ci.Spec.BaseURL)
	if err != nil {
		t.Fatal(err)
	}
	there := roundTripper(func(r *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		answer(w, r)
		return w.Result(), nil
	})
	return openconnectors.New(base, "", openconnectors.Credentials{Element: "e", User: "u"}, there, there)
}
