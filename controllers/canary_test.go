package controllers

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlzap "sigs.k8s.io/controller-runtime/pkg/log/zap"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/internal/dial"
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
	// A parameter is in its job, and in the receipt's spec, which must say what was sent: nowhere else.
	canaryParameter = "CanaryParameterValue77"
	canarySigning   = "Q2FuYXJ5U2lnbmluZ0tleQ"
	canaryKeyID     = "AKIACANARYKEYID00042"
	canarySecretKey = "CanarySecretAccessKey/+0123456789"
	canarySession   = "CanarySessionToken0123456789"
	canarySAS       = "CanarySharedAccessSignature0123456789"
	canaryPrivate   = "CanaryPrivateKey0123456789"
	canarySigned    = "CanaryUrlSignature0123456789"
)

var canaries = []string{
	canaryElement, canaryUser, canaryOrg, canaryName, "Quagmire", canaryMail, canaryColumn, canaryQuery, canaryRequest,
	canaryParameter, canarySigning, canaryKeyID, canarySecretKey, canarySession, canarySAS, canaryPrivate, canarySigned,
}

// talkative makes the house's operator log at every verbosity there is, as the manager does with --zap-log-level=10.
func (h *house) talkative() {
	h.t.Helper()
	flags, options := flag.NewFlagSet("manager", flag.ContinueOnError), ctrlzap.Options{DestWriter: &operatorLog}
	options.BindFlags(flags)
	if err := flags.Parse([]string{"--zap-log-level=10"}); err != nil {
		h.t.Fatal(err)
	}
	h.stop()
	h.logger = Discreet(ctrlzap.New(ctrlzap.UseFlagOptions(&options)))
	h.start()
}

// TestNothingLeaks walks through failures of all kinds with an endpoint that
// repeats whatever it was sent, and then looks for it in all that others can read.
func TestNothingLeaks(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.talkative()
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
	h.create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "signatures", Labels: map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials}},
		StringData: map[string]string{"signatureKey": canarySigning},
	})
	ci := newConnector(h.endpoint.url())
	callsBack(ci)
	h.create(ci)
	gossip := "for Element " + canaryElement + ", User " + canaryUser + ", Organization " + canaryOrg + ": '" + canaryName + "' <" + canaryMail + "> at " +
		h.endpoint.url() + "/bulk/contact?path=/" + canaryQuery + ".csv, request " + canaryRequest + ", listId '" + canaryParameter + "'"
	labelled := func(j *v1alpha1.BulkJob) {
		j.Spec.Path = "/" + canaryQuery + ".csv"
		j.Spec.BackoffLimit = new(int32(0))
		j.Spec.Parameters = map[string]v1alpha1.ParameterValue{"listId": canaryParameter}
	}
	token := func(text string) func(*v1alpha1.BulkJob) {
		return func(j *v1alpha1.BulkJob) { j.Spec.SendToken = text }
	}

	h.configMap("contacts", "id,email\n"+canaryName+","+canaryMail+"\n"+canaryName+"\n")
	h.waitReason(h.job("shown", labelled), v1alpha1.ReasonSourceInvalid)
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
	h.configMap("more", csv)
	h.waitEnd(h.job("listed", labelled, reported, token("6"), func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = "more" }), v1alpha1.ReasonRowsFailed)
	if words := h.failedContacts().Data[fileErrors]; !strings.Contains(words, canaryName) || strings.Contains(words, canaryElement) {
		t.Errorf("the report, which alone may have the endpoint's words and the rows in them, has: %s", words)
	}
	h.endpoint.set(func(e *fakeEndpoint) { e.states, e.fault = []string{"ABORTED"}, gossip })
	h.waitReason(h.job("aborted", fromSecret, labelled, token("4")), v1alpha1.ReasonRemoteFailed)
	h.running()
	polled := h.job("polled", fromSecret, labelled, token("5"))
	h.waitState(polled, "RUNNING")
	h.endpoint.answer(http.MethodGet, "/status", 401, gossip)
	h.waitReason(polled, v1alpha1.ReasonPollFailed)
	h.calm()
	if !strings.Contains(operatorLog.String(), `"level":"debug"`) || len(h.receipts()) == 0 || len(h.events()) == 0 {
		t.Error("there are no receipts, no events, or nothing that was logged at a higher verbosity: the test shows less than it says")
	}
	h.searchFor(canaries)
	if !strings.Contains(h.endpoint.taken()[0].csv, canaryName) {
		t.Error("the endpoint was not sent the rows: the test shows nothing")
	}
}

// gossiping is a store that refuses everything, repeats what it was asked, and talks of rows and keys.
func gossiping(t *testing.T) *httptest.Server {
	t.Helper()
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code := http.StatusForbidden
		if strings.Contains(r.URL.Path, "gone") {
			code = http.StatusNotFound
		}
		gossip := fmt.Sprintf("%s %s %v: %s has %s, %s, %s", r.Method, r.URL, r.Header, canaryName, canarySecretKey, canarySession, canarySAS)
		w.Header().Set("X-Amz-Request-Id", canaryRequest)
		w.Header().Set("X-Ms-Error-Code", gossip)
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(code)
		fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message><RequestId>%s</RequestId></Error>", gossip, gossip, canaryRequest)
	}))
	t.Cleanup(store.Close)
	return store
}

// TestStoresLeakNothing has jobs read from stores with keys, tokens and signatures of all kinds, none of which works.
func TestStoresLeakNothing(t *testing.T) {
	t.Parallel()
	store := gossiping(t)
	address := netip.MustParseAddrPort(strings.TrimPrefix(store.URL, "http://"))
	h := newHouse(t, func(o *Options) {
		o.Dial.Private = append(o.Dial.Private, dial.Allowance{Prefix: netip.PrefixFrom(address.Addr(), 32), Port: address.Port()})
	})
	h.talkative()
	h.ready()
	for name, keys := range map[string]map[string]string{
		"s3":  {"accessKeyID": canaryKeyID, "secretAccessKey": canarySecretKey, "sessionToken": canarySession},
		"sas": {"sasToken": "sv=2024-11-04&sig=" + canarySAS},
		"two": {"sasToken": "sig=" + canarySAS, "accountName": "account", "accountKey": canarySecretKey},
		"bad": {"accountName": "account", "accountKey": canarySecretKey + "!"},
		"odd": {"sasToken": "comp=list&sig=" + canarySAS},
		"gs":  {"serviceAccountKey": `{"type":"service_account","client_email":"` + canaryMail + `","private_key":"` + canaryPrivate + `","token_uri":"https://127.0.0.1/` + canarySigned + `"}`},
		"no":  {"serviceAccountKey": canaryPrivate},
	} {
		h.create(&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials}},
			StringData: keys,
		})
	}
	secured := "https://" + address.String()
	for name, source := range map[string]v1alpha1.ObjectStoreSource{
		"s3":      {URL: "s3://bucket/key.csv", Endpoint: store.URL, Region: "eu-central-1", CredentialsRef: &v1alpha1.LocalReference{Name: "s3"}},
		"s3-gone": {URL: "s3://bucket/gone.csv?X-Amz-Signature=" + canarySigned, Endpoint: store.URL, CredentialsRef: &v1alpha1.LocalReference{Name: "s3"}},
		"sas":     {URL: "azblob://bucket/key.csv", Endpoint: store.URL, CredentialsRef: &v1alpha1.LocalReference{Name: "sas"}},
		"two":     {URL: "azblob://bucket/key.csv", Endpoint: store.URL, CredentialsRef: &v1alpha1.LocalReference{Name: "two"}},
		"bad":     {URL: "azblob://bucket/key.csv", Endpoint: store.URL, CredentialsRef: &v1alpha1.LocalReference{Name: "bad"}},
		"odd":     {URL: "azblob://bucket/key.csv", Endpoint: store.URL, CredentialsRef: &v1alpha1.LocalReference{Name: "odd"}},
		"gs":      {URL: "gs://bucket/key.csv", CredentialsRef: &v1alpha1.LocalReference{Name: "gs"}},
		"no":      {URL: "gs://bucket/key.csv", CredentialsRef: &v1alpha1.LocalReference{Name: "no"}},
		"tls":     {URL: secured + "/key.csv?X-Amz-Signature=" + canarySigned},
		"private": {URL: "https://127.0.0.1:1/key.csv?X-Amz-Signature=" + canarySigned},
		"nowhere": {URL: "https://nowhere.invalid/key.csv?X-Amz-Signature=" + canarySigned},
		"odd-url": {URL: "https://127.0.0.1/%zz?X-Amz-Signature=" + canarySigned},
	} {
		job := h.job(name, func(j *v1alpha1.BulkJob) { j.Spec.Source = v1alpha1.BulkJobSource{ObjectStore: &source} })
		h.eventually("job "+name+" says what is wrong with its source", func() (bool, string) {
			h.get(job)
			c := meta.FindStatusCondition(job.Status.Conditions, v1alpha1.ConditionReady)
			return c != nil && strings.HasPrefix(c.Reason, "Source"), fmt.Sprint(c)
		})
	}
	h.calm()
	h.searchFor(canaries)
	if posts := h.endpoint.posts(); posts != 0 {
		t.Errorf("%d uploads were begun", posts)
	}
}

// searchFor fails the test if any of the words is in what the operator has written anywhere.
func (h *house) searchFor(words []string) {
	h.t.Helper()
	places := map[string]string{"metrics": h.scraped()}
	for name, list := range map[string]client.ObjectList{
		"jobs": &v1alpha1.BulkJobList{}, "receipts": &v1alpha1.BulkReceiptList{}, "connectors": &v1alpha1.ConnectorInstanceList{}, "events": &eventsv1.EventList{},
	} {
		if err := h.client.List(context.Background(), list, client.InNamespace(h.namespace)); err != nil {
			h.t.Fatal(err)
		}
		withoutSpecs(list)
		text, err := json.Marshal(list)
		if err != nil {
			h.t.Fatal(err)
		}
		places[name] = unescape.Replace(string(text))
	}
	places["log"] = unescape.Replace(operatorLog.String())
	for place, text := range places {
		if len(text) < 100 && place != "receipts" && place != "events" { // where no file can be read there are none
			h.t.Errorf("there is next to nothing in the %s: %s", place, text)
		}
		for _, word := range words {
			if at := strings.Index(text, word); at >= 0 {
				h.t.Errorf("%q is in the %s: …%s…", word, place, text[max(0, at-200):min(len(text), at+100)])
			}
		}
	}
}

// withoutSpecs takes out what users have written themselves, and the parameters that a receipt repeats.
func withoutSpecs(list client.ObjectList) {
	switch list := list.(type) {
	case *v1alpha1.BulkJobList:
		for i := range list.Items {
			list.Items[i].Spec, list.Items[i].ManagedFields = v1alpha1.BulkJobSpec{}, nil
		}
	case *v1alpha1.BulkReceiptList:
		for i := range list.Items {
			list.Items[i].Spec.Parameters = nil
		}
	}
}

// scraped are the operator's metrics, names, labels and values.
func (h *house) scraped() string {
	h.t.Helper()
	families, err := h.registry.Gather()
	if err != nil {
		h.t.Fatal(err)
	}
	return fmt.Sprint(families)
}

// unescape undoes what JSON does to the characters of tokens and addresses.
var unescape = strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&", `\/`, "/")
