package controllers

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

const refusedAbout = "The API server refuses these by the CRDs' own rules, whoever applies them, whether the operator runs or not. `kubectl apply` shows the message\n" +
	"after `The BulkJob \"contacts\" is invalid:`, and where an error stands in the way of other rules a second line that says so. An unknown field is an\n" +
	"error as well, unless `kubectl` is told not to validate."

// refused is a manifest that the API server does not take.
type refused struct {
	input string
	kind  string         // "": BulkJob
	with  map[string]any // by path; nil takes a field away
	says  string
}

const (
	plainJob = `{apiVersion: bulkjob.dev/v1alpha1, kind: BulkJob, metadata: {name: contacts},
		spec: {connectorRef: {name: crm-db}, object: contact, source: {configMap: {name: contacts, key: sample.csv}}}}`
	plainConnector = `{apiVersion: bulkjob.dev/v1alpha1, kind: ConnectorInstance, metadata: {name: crm-db},
		spec: {baseURL: "https://api.example.com/elements/api-v2", credentialsRef: {name: crm-db}}}`
)

type fields = map[string]any

func refusedJobs() []refused {
	parameters := fields{}
	for i := range 21 {
		parameters[fmt.Sprintf("key%02d", i)] = "x"
	}
	receipt := "br-" + strings.Repeat("a", 52)
	return []refused{
		{input: "no spec", with: fields{"spec": nil}, says: "spec: Required value"},
		{input: "no connectorRef", with: fields{"spec.connectorRef": nil}, says: "spec.connectorRef: Required value"},
		{input: "no object", with: fields{"spec.object": nil}, says: "spec.object: Required value"},
		{input: "no source", with: fields{"spec.source": nil}, says: "spec.source: Required value"},
		{input: "an empty source", with: fields{"spec.source": fields{}}, says: "exactly one of the fields"},
		{input: "two sources", with: fields{"spec.source.secret": fields{"name": "contacts", "key": "a.csv"}}, says: "exactly one of the fields"},
		{input: "split without a size", with: fields{"spec.split": fields{"parallelism": 2}}, says: "say how large a part may be"},
		{input: "split of JSON", with: fields{"spec.split": fields{"maxRows": 2}, "spec.format": "JSON"}, says: "for CSV only"},
		{input: "split.parallelism: 101", with: fields{"spec.split": fields{"maxRows": 2, "parallelism": 101}}, says: "less than or equal to 100"},
		{input: "canary.rows: 0", with: fields{"spec.canary": fields{"rows": 0}}, says: "greater than or equal to 1"},
		{input: "a field that is misspelt", with: fields{"spec.sorce": fields{}}, says: `unknown field "spec.sorce"`},
		{input: "a field of another level", with: fields{"spec.sha256": strings.Repeat("a", 64)}, says: `unknown field "spec.sha256"`},
		{input: "a namespace in a reference", with: fields{"spec.connectorRef.namespace": "other"}, says: `unknown field "spec.connectorRef.namespace"`},
		{input: "an object of 129 characters", with: fields{"spec.object": strings.Repeat("a", 129)}, says: "spec.object: Too long"},
		{input: "an object with a slash", with: fields{"spec.object": "contact/../jobs"}, says: "spec.object"},
		{input: "an object with a blank", with: fields{"spec.object": "my contacts"}, says: "spec.object"},
		{input: "object: jobs", with: fields{"spec.object": "jobs"}, says: "routes of the Bulk API"},
		{input: "object: query", with: fields{"spec.object": "query"}, says: "routes of the Bulk API"},
		{input: "a connector's name in capitals", with: fields{"spec.connectorRef.name": "CRM"}, says: "spec.connectorRef.name"},
		{input: "a ConfigMap's name of 254 characters", with: fields{"spec.source.configMap.name": strings.Repeat("a", 254)}, says: "spec.source.configMap.name: Too long"},
		{input: "a key with a slash", with: fields{"spec.source.configMap.key": "2026/sample.csv"}, says: "spec.source.configMap.key"},
		{input: "format: XML", with: fields{"spec.format": "XML"}, says: `supported values: "CSV", "JSON"`},
		{input: "format: csv", with: fields{"spec.format": "csv"}, says: `supported values: "CSV", "JSON"`},
		{input: "action: Delete", with: fields{"spec.action": "Delete"}, says: `supported values: "Create", "Upsert"`},
		{input: "compression: Zip", with: fields{"spec.source.compression": "Zip"}, says: `supported values: "None", "Gzip", "Zstd"`},
		{input: "Upsert without keyField", with: fields{"spec.action": "Upsert"}, says: "keyField is required"},
		{input: "keyField of 129 characters", with: fields{"spec.action": "Upsert", "spec.keyField": strings.Repeat("a", 129)}, says: "spec.keyField: Too long"},
		{input: "onUnknown: Resend for a Create", with: fields{"spec.onUnknown": "Resend"}, says: "doubles its rows"},
		{input: "a digest in capitals", with: fields{"spec.source.sha256": strings.Repeat("AB", 32)}, says: "spec.source.sha256"},
		{input: "a digest that is cut off", with: fields{"spec.source.sha256": "abc123"}, says: "spec.source.sha256"},
		{input: "batchSize: 0", with: fields{"spec.batchSize": 0}, says: "greater than or equal to 1"},
		{input: "batchSize: many", with: fields{"spec.batchSize": "many"}, says: "spec.batchSize"},
		{input: "batchSize: 5000000000, beyond 32 bits", with: fields{"spec.batchSize": 5_000_000_000}, says: "spec.batchSize"},
		{input: "maxFailedRows: -1", with: fields{"spec.maxFailedRows": -1}, says: "0% to 100%"},
		{input: "maxFailedRows: 101%", with: fields{"spec.maxFailedRows": "101%"}, says: "0% to 100%"},
		{input: "maxFailedRows: some", with: fields{"spec.maxFailedRows": "some"}, says: "0% to 100%"},
		{input: "backoffLimit: -1", with: fields{"spec.backoffLimit": -1}, says: "greater than or equal to 0"},
		{input: "activeDeadlineSeconds: 0", with: fields{"spec.activeDeadlineSeconds": 0}, says: "greater than or equal to 1"},
		{input: "ttlSecondsAfterFinished of 100 years", with: fields{"spec.ttlSecondsAfterFinished": 2_000_000_000}, says: "less than or equal to 31536000"},
		{input: "sendToken of 129 characters", with: fields{"spec.sendToken": strings.Repeat("a", 129)}, says: "spec.sendToken: Too long"},
		{input: "suspend: yes, as a text", with: fields{"spec.suspend": "yes"}, says: "must be of type boolean"},
		{input: "a path with a line break", with: fields{"spec.path": "/sample.csv\r\nX: y"}, says: "spec.path"},
		{input: "21 parameters", with: fields{"spec.parameters": parameters}, says: "must have at most 20 items"},
		{input: "a parameter that has a field of its own", with: fields{"spec.parameters": fields{"action": "delete"}}, says: "fields of their own"},
		{input: "a parameter's name with a blank", with: fields{"spec.parameters": fields{"list id": "7"}}, says: "a parameter's name starts"},
		{input: "a parameter that is a number", with: fields{"spec.parameters": fields{"listId": 7}}, says: "must be of type string"},
		{input: "a parameter of 1,025 characters", with: fields{"spec.parameters": fields{"listId": strings.Repeat("7", 1025)}}, says: "spec.parameters.listId: Too long"},
		{input: "an object store over plain http", with: store(fields{"url": "http://host/a.csv"}), says: "objectStore.url"},
		{input: "a file of the operator's own disk", with: store(fields{"url": "file:///etc/passwd"}), says: "objectStore.url"},
		{input: "a bucket without a path", with: store(fields{"url": "s3://bucket"}), says: "objectStore.url"},
		{input: "a pre-signed URL and credentials", with: store(fields{"url": "https://host/a.csv?sig=x", "credentialsRef": fields{"name": "s3"}}), says: "says everything"},
		{input: "an endpoint with a user and a password", with: store(fields{"url": "s3://b/a.csv", "endpoint": "https://me:pw@host"}), says: "objectStore.endpoint"},
		{input: "resolve: Adopt without jobID", with: fields{"spec.resolve": fields{"attempt": receipt + ".1", "action": "Adopt"}}, says: "jobID is needed"},
		{input: "resolve: Resend with jobID", with: fields{"spec.resolve": fields{"attempt": receipt + ".1", "action": "Resend", "jobID": "7"}}, says: "jobID is needed"},
		{input: "resolve: Retry", with: fields{"spec.resolve": fields{"attempt": receipt + ".1", "action": "Retry"}}, says: `supported values: "Adopt", "Resend", "Abandon"`},
		{input: "resolve of an attempt without its number", with: fields{"spec.resolve": fields{"attempt": receipt, "action": "Resend"}}, says: "spec.resolve.attempt"},
		{input: "resolve without an attempt", with: fields{"spec.resolve": fields{"action": "Resend"}}, says: "spec.resolve.attempt: Required value"},
	}
}

func store(of fields) fields { return fields{"spec.source": fields{"objectStore": of}} }

func refusedConnectors() []refused {
	const kind = "ConnectorInstance"
	return []refused{
		{"connector: no baseURL", kind, fields{"spec.baseURL": nil}, "spec.baseURL: Required value"},
		{"connector: a baseURL without a scheme", kind, fields{"spec.baseURL": "api.example.com/elements/api-v2"}, "spec.baseURL"},
		{"connector: a baseURL by ftp", kind, fields{"spec.baseURL": "ftp://api.example.com"}, "spec.baseURL"},
		{"connector: a baseURL with a user and a password", kind, fields{"spec.baseURL": "https://me:pw@api.example.com"}, "spec.baseURL"},
		{"connector: a baseURL with a query", kind, fields{"spec.baseURL": "https://api.example.com/?key=x"}, "spec.baseURL"},
		{"connector: a hub with a slash", kind, fields{"spec.hub": "db/.."}, "spec.hub"},
		{"connector: the secrets themselves instead of credentialsRef", kind, fields{"spec.credentialsRef": fields{"element": "x", "user": "y"}}, "spec.credentialsRef"},
		{"connector: jobListing: Full", kind, fields{"spec.jobListing": "Full"}, "supported values"},
		{"connector: requestsPerSecond: 0", kind, fields{"spec.limits": fields{"requestsPerSecond": 0}}, "greater than or equal to 1"},
		{"connector: maxConcurrentUploads: 101", kind, fields{"spec.limits": fields{"maxConcurrentUploads": 101}}, "less than or equal to 100"},
		{"connector: maxUploadBytes: -1", kind, fields{"spec.limits": fields{"maxUploadBytes": -1}}, "greater than or equal to 1"},
		{"connector: minIntervalSeconds beyond maxIntervalSeconds", kind, fields{"spec.polling": fields{"minIntervalSeconds": 60, "maxIntervalSeconds": 5}}, "must not exceed"},
		{"connector: discoveryIntervalSeconds: 1", kind, fields{"spec.discoveryIntervalSeconds": 1}, "greater than or equal to 10"},
		{"connector: tls without caRef", kind, fields{"spec.tls": fields{}}, "spec.tls.caRef: Required value"},
		{"connector: callback without signatureKeyRef", kind, fields{"spec.callback": fields{}}, "spec.callback.signatureKeyRef: Required value"},
	}
}

func showRefused(t *testing.T) []sight {
	t.Helper()
	c, err := client.New(apiServer, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	c = client.WithFieldValidation(c, metav1.FieldValidationStrict) // as kubectl asks for
	var rows []sight
	for _, r := range append(refusedJobs(), refusedConnectors()...) {
		text := plainJob
		if r.kind != "" {
			text = plainConnector
		}
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
			t.Fatal(err)
		}
		o.SetNamespace(metav1.NamespaceDefault)
		for path, value := range r.with {
			place(t, o, path, value)
		}
		message := refusalText(c.Create(t.Context(), o, client.DryRunAll))
		if !strings.Contains(message, r.says) {
			t.Errorf("%s: the API server says %q, want in it %q", r.input, message, r.says)
		}
		rows = append(rows, sight{input: r.input, message: alike(message)})
	}
	return rows
}

// place puts a value at a path of an object, as a decoder would have put it there.
func place(t *testing.T, o *unstructured.Unstructured, path string, value any) {
	t.Helper()
	at := strings.Split(path, ".")
	if value == nil {
		unstructured.RemoveNestedField(o.Object, at...)
		return
	}
	if err := unstructured.SetNestedField(o.Object, decoded(value), at...); err != nil {
		t.Fatal(err)
	}
}

// decoded has the types of JSON's numbers.
func decoded(value any) any {
	switch v := value.(type) {
	case int:
		return int64(v)
	case fields:
		all := fields{}
		for key, inner := range v {
			all[key] = decoded(inner)
		}
		return all
	}
	return value
}

// apiServersNote is in many refusals, beside what is wrong.
const apiServersNote = "Invalid value: null: some validation rules were not checked because the object was invalid"

// refusalText is what kubectl shows of a refusal behind the object's name: each cause, with its field.
func refusalText(err error) string {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return fmt.Sprint(err)
	}
	details := status.Status().Details
	if !apierrors.IsInvalid(err) || details == nil {
		return status.Status().Message
	}
	causes := make([]string, 0, len(details.Causes))
	for _, cause := range details.Causes {
		if strings.HasPrefix(cause.Message, apiServersNote) {
			continue
		}
		causes = append(causes, cause.Field+": "+cause.Message)
	}
	return strings.Join(causes, " · ")
}

const manifestsAbout = "What a manifest names may be missing, be another's, or come later. The job says what it waits for, and goes on by itself once it is there\n" +
	"(`Reconciling`), or says what somebody has to change (`Stalled`). Nothing is claimed or sent before."

func showManifests(t *testing.T) []sight {
	t.Helper()
	h := newHouse(t, quick)
	d := h.desk()
	h.ready(unbounded)
	h.namesakes()
	return h.showJobs(d, absent())
}

// namesakes are what the bad manifests name.
func (h *house) namesakes() {
	h.t.Helper()
	for name, use := range map[string]string{"unlabelled": "", "keys": v1alpha1.UseCredentials, "rows": v1alpha1.UseSource} {
		labels := map[string]string{v1alpha1.LabelUse: use}
		if use == "" {
			labels = nil
		}
		h.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, StringData: map[string]string{
			"sample.csv": soundCSV, "ragged.csv": "name,email\n" + canaryValue + "\n", "twins.csv": canaryValue + "," + canaryValue + "\n1,2\n",
		}})
	}
	h.connectorNamed("idle-db", func(ci *v1alpha1.ConnectorInstance) { ci.Spec.Suspend = true })
	h.connectorNamed("sealed-db", func(ci *v1alpha1.ConnectorInstance) { ci.Spec.CredentialsRef.Name = "unlabelled" })
}

func (h *house) connectorNamed(name string, change func(*v1alpha1.ConnectorInstance)) {
	h.t.Helper()
	ci := newConnector(h.endpoint.url())
	ci.Name = name
	change(ci)
	h.create(ci)
}

func absent() []badJob {
	held := func(input, want, says string, edit func(*v1alpha1.BulkJob)) badJob {
		return badJob{input: input, stopped: beforeSending, want: want, says: says, edit: func(j *v1alpha1.BulkJob) {
			j.Spec.Object = "contact"
			edit(j)
		}}
	}
	secret := func(name, key string) func(*v1alpha1.BulkJob) {
		return func(j *v1alpha1.BulkJob) {
			j.Spec.Source = v1alpha1.BulkJobSource{Secret: &v1alpha1.KeyReference{Name: name, Key: key}}
		}
	}
	object := func(name string) func(*v1alpha1.BulkJob) { return func(j *v1alpha1.BulkJob) { j.Spec.Object = name } }
	stored := func(url, endpoint string) func(*v1alpha1.BulkJob) {
		return func(j *v1alpha1.BulkJob) {
			j.Spec.Source = v1alpha1.BulkJobSource{ObjectStore: &v1alpha1.ObjectStoreSource{URL: url, Endpoint: endpoint, Region: "eu-central-1"}}
		}
	}
	connector := func(name string) func(*v1alpha1.BulkJob) {
		return func(j *v1alpha1.BulkJob) { j.Spec.ConnectorRef.Name = name }
	}
	return []badJob{
		held("a connector that is not there", v1alpha1.ReasonConnectorNotFound, "ConnectorInstance no-db", connector("no-db")),
		held("a connector that is suspended", v1alpha1.ReasonConnectorSuspended, "idle-db", connector("idle-db")),
		held("a connector whose Secret may not be read", v1alpha1.ReasonConnectorNotReady, "label it", connector("sealed-db")),
		held("an object in the plural", v1alpha1.ReasonObjectUnknown, "did you mean contact?", object("contacts")),
		held("an object in capitals", v1alpha1.ReasonObjectUnknown, "did you mean contact?", object("CONTACT")),
		held("an object of another connector", v1alpha1.ReasonObjectUnknown, "the connector lists", object("opportunity")),
		held("a ConfigMap that is not there", v1alpha1.ReasonSourceNotFound, `ConfigMap "nowhere"`, func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Name = "nowhere" }),
		held("a key that the ConfigMap does not have", v1alpha1.ReasonSourceNotFound, `it has ["sample.csv"]`, func(j *v1alpha1.BulkJob) { j.Spec.Source.ConfigMap.Key = "other.csv" }),
		held("a Secret that is not there", v1alpha1.ReasonSourceNotFound, `Secret "nowhere"`, secret("nowhere", "sample.csv")),
		held("a Secret without the label", v1alpha1.ReasonSourceNotPermitted, "bulkjob.dev/use=source", secret("unlabelled", "sample.csv")),
		held("a Secret with a connector's keys", v1alpha1.ReasonSourceNotPermitted, "bulkjob.dev/use=source", secret("keys", "sample.csv")),
		held("a key that the Secret does not have", v1alpha1.ReasonSourceNotFound, `no key "other.csv"`, secret("rows", "other.csv")),
		held("a Secret's CSV with a bad row", v1alpha1.ReasonSourceInvalid, "row 1", secret("rows", "ragged.csv")),
		held("a Secret's CSV with two columns of one name, which is not shown", v1alpha1.ReasonSourceInvalid, "columns 1 and 2", secret("rows", "twins.csv")),
		held("a path with a way up in it", v1alpha1.ReasonSourceNotSupported, "name the object itself", stored("s3://bucket/../contacts.csv", "")),
		held("an object store at the cloud's metadata address", v1alpha1.ReasonSourceNotPermitted, "169.254.169.254", stored("s3://bucket/contacts.csv", "http://169.254.169.254")),
		held("an object store on the operator's own machine", v1alpha1.ReasonSourceNotPermitted, "127.0.0.1", stored("s3://bucket/contacts.csv", "http://127.0.0.1:1")),
		held("an object store that needs credentials, of a Secret that is not there", v1alpha1.ReasonSourceNotFound, `Secret "nowhere"`, func(j *v1alpha1.BulkJob) {
			stored("s3://bucket/contacts.csv", "https://store.example.com")(j)
			j.Spec.Source.ObjectStore.CredentialsRef = &v1alpha1.LocalReference{Name: "nowhere"}
		}),
		held("an object store that needs credentials, of a Secret without the label", v1alpha1.ReasonSourceNotPermitted, "bulkjob.dev/use=credentials", func(j *v1alpha1.BulkJob) {
			stored("s3://bucket/contacts.csv", "https://store.example.com")(j)
			j.Spec.Source.ObjectStore.CredentialsRef = &v1alpha1.LocalReference{Name: "unlabelled"}
		}),
		{
			input: "resolve for a load about which there is no doubt", stopped: notStopped, want: v1alpha1.ReasonComplete, says: "COMPLETE",
			edit: func(j *v1alpha1.BulkJob) {
				j.Spec.Object, j.Spec.SendToken = "account", "resolve"
				j.Spec.Resolve = &v1alpha1.Resolve{Attempt: "br-" + strings.Repeat("a", 52) + ".1", Action: v1alpha1.ResolveResend}
			},
		},
	}
}
