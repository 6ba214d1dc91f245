package v1alpha1_test

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// admission is an object that the API server is asked to take.
type admission struct {
	name   string
	reason string
	with   changes
	// refusal is what the answer must hold; empty if the object is to be taken.
	refusal string
}

// anything is part of every refusal, for cases where the schema's own words are the API server's business.
const anything = "invalid"

type list = []any

func TestBulkJobAdmission(t *testing.T) {
	testAdmission(t, bareBulkJob, slices.Concat(bulkJobs, sources, parameters(), resolutions, failedRows(), bulkJobBounds))
}

func TestConnectorInstanceAdmission(t *testing.T) {
	testAdmission(t, bareConnector, slices.Concat(connectors, connectorBounds))
}

func TestBulkReceiptAdmission(t *testing.T) {
	testAdmission(t, bareReceipt, receipts)
}

func testAdmission(t *testing.T, bare string, cases []admission) {
	t.Helper()
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			err := api.Create(t.Context(), object(t, bare, tc.with), client.DryRunAll)
			expect(t, err, tc.refusal, tc.reason)
		})
	}
}

// expect compares the API server's answer with the refusal that was to come, or with none.
func expect(t *testing.T, err error, refusal, reason string) {
	t.Helper()
	switch {
	case refusal == "" && err != nil:
		t.Errorf("%s: refused: %v", reason, err)
	case refusal != "" && err == nil:
		t.Errorf("%s: taken, want a refusal with %q", reason, refusal)
	case refusal != "" && !apierrors.IsInvalid(err):
		t.Errorf("%s: got %v, want an Invalid error", reason, err)
	case refusal != "" && !strings.Contains(err.Error(), refusal):
		t.Errorf("%s: got %v, want it to say %q", reason, err, refusal)
	}
}

const (
	keyNeeded     = "keyField is required for action Upsert: it names the field that rows are matched by"
	resendRefused = "onUnknown Resend is for action Upsert with a keyField only: a Create that is sent again doubles its rows"
	routes        = "query, download, workflows and jobs are routes of the Bulk API, not objects"
)

var bulkJobs = []admission{
	{name: "bare", reason: "the least that is needed is enough"},
	{name: "no connector", reason: "nobody guesses where rows go", with: changes{"spec.connectorRef": nil}, refusal: "Required value"},
	{name: "no object", reason: "nobody guesses what rows are", with: changes{"spec.object": nil}, refusal: "Required value"},
	{name: "no source", reason: "a job loads something", with: changes{"spec.source": nil}, refusal: "Required value"},
	{name: "no spec", reason: "a job without a spec means nothing", with: changes{"spec": nil}, refusal: "Required value"},

	{name: "upsert with key", reason: "rows are matched by the key", with: changes{"spec.action": "Upsert", "spec.keyField": "email"}},
	{name: "upsert without key", reason: "an upsert without a key is a create", with: changes{"spec.action": "Upsert"}, refusal: keyNeeded},
	{name: "upsert with empty key", reason: "an empty key is no key", with: changes{"spec.action": "Upsert", "spec.keyField": ""}, refusal: anything},
	{name: "resend of an upsert", reason: "the second load changes nothing", with: changes{"spec.action": "Upsert", "spec.keyField": "email", "spec.onUnknown": "Resend"}},
	{name: "resend of a create", reason: "the second load doubles the rows", with: changes{"spec.onUnknown": "Resend"}, refusal: resendRefused},
	{name: "resend of a create with key", reason: "the key of a create keeps no row from being doubled", with: changes{"spec.onUnknown": "Resend", "spec.keyField": "email"}, refusal: resendRefused},
	{name: "resend of an upsert without key", reason: "without a key there is nothing to match by", with: changes{"spec.action": "Upsert", "spec.onUnknown": "Resend"}, refusal: resendRefused},

	{name: "object with all signs", reason: "tables have such names", with: changes{"spec.object": "_sales.Contact-2_x"}},
	{name: "object query", reason: "POST /bulk/query is another call", with: changes{"spec.object": "query"}, refusal: routes},
	{name: "object download", reason: "a route of the API", with: changes{"spec.object": "download"}, refusal: routes},
	{name: "object workflows", reason: "a route of the API", with: changes{"spec.object": "workflows"}, refusal: routes},
	{name: "object jobs", reason: "a route of the API", with: changes{"spec.object": "jobs"}, refusal: routes},
	{name: "object jobs2", reason: "only the routes themselves are reserved", with: changes{"spec.object": "jobs2"}},
	{name: "object with a slash", reason: "an object is one segment of a path", with: changes{"spec.object": "a/b"}, refusal: "spec.object"},
	{name: "object that is a way up", reason: "no way up the path", with: changes{"spec.object": ".."}, refusal: "spec.object"},
	{name: "object with a space", reason: "no object is called so", with: changes{"spec.object": "a b"}, refusal: "spec.object"},
	{name: "object with a newline", reason: "a line end would start another header", with: changes{"spec.object": "a\n"}, refusal: "spec.object"},
	{name: "empty object", reason: "an empty name is no name", with: changes{"spec.object": ""}, refusal: "spec.object"},

	{name: "all policies", reason: "every word of every enum that isn't a default", with: changes{
		"spec.format": "JSON", "spec.objectCheck": "Warn",
		"spec.duplicatePolicy": "Fail", "spec.deletionPolicy": "Cancel", "spec.suspend": true, "spec.cancel": true,
	}},
	{name: "format", reason: "an unknown format", with: changes{"spec.format": "XML"}, refusal: "Unsupported value"},
	{name: "action", reason: "enums are CamelCase", with: changes{"spec.action": "create"}, refusal: "Unsupported value"},
	{name: "objectCheck", reason: "an unknown check", with: changes{"spec.objectCheck": "Off"}, refusal: "Unsupported value"},
	{name: "duplicatePolicy", reason: "an unknown policy", with: changes{"spec.duplicatePolicy": "Resend"}, refusal: "Unsupported value"},
	{name: "deletionPolicy", reason: "an unknown policy", with: changes{"spec.deletionPolicy": "Delete"}, refusal: "Unsupported value"},
	{name: "onUnknown", reason: "an unknown policy", with: changes{"spec.onUnknown": "Guess"}, refusal: "Unsupported value"},
}

const oneSource = "exactly one of the fields in [configMap secret objectStore] must be set"

var (
	key   = changes{"name": "contacts", "key": "sample.csv"}
	store = changes{"url": "s3://bucket/contacts.csv"}
)

var sources = []admission{
	{name: "secret", reason: "a Secret alone is one source", with: changes{"spec.source": changes{"secret": key}}},
	{name: "objectStore", reason: "an object store alone is one source", with: changes{"spec.source": changes{"objectStore": store}}},
	{name: "empty source", reason: "a source names something", with: changes{"spec.source": changes{}}, refusal: oneSource},
	{name: "only a guard", reason: "a digest is no source", with: changes{"spec.source": changes{"sha256": strings.Repeat("a", 64)}}, refusal: oneSource},
	{name: "configMap and secret", reason: "which one would it be", with: changes{"spec.source.secret": key}, refusal: oneSource},
	{name: "configMap and objectStore", reason: "which one would it be", with: changes{"spec.source.objectStore": store}, refusal: oneSource},
	{name: "all three", reason: "which one would it be", with: changes{"spec.source.secret": key, "spec.source.objectStore": store}, refusal: oneSource},
	{name: "guard", reason: "64 hexadecimal digits", with: changes{"spec.source.sha256": strings.Repeat("0f", 32)}},
	{name: "short guard", reason: "a digit is missing", with: changes{"spec.source.sha256": strings.Repeat("0", 63)}, refusal: "sha256"},
	{name: "upper-case guard", reason: "one spelling, so that digests compare as text", with: changes{"spec.source.sha256": strings.Repeat("A", 64)}, refusal: "sha256"},
	{name: "gzip", reason: "a known compression", with: changes{"spec.source.compression": "Gzip"}},
	{name: "zstd", reason: "a known compression", with: changes{"spec.source.compression": "Zstd"}},
	{name: "brotli", reason: "an unknown compression", with: changes{"spec.source.compression": "Brotli"}, refusal: "Unsupported value"},
	{name: "source name", reason: "no ConfigMap is called so", with: changes{"spec.source.configMap.name": "Contacts"}, refusal: "spec.source.configMap.name"},
	{name: "source key", reason: "no key has a slash", with: changes{"spec.source.configMap.key": "a/b.csv"}, refusal: "spec.source.configMap.key"},
	{name: "source without key", reason: "a ConfigMap has many", with: changes{"spec.source.configMap.key": nil}, refusal: "Required value"},
	{name: "store in full", reason: "every field of an object store", with: changes{"spec.source": changes{"objectStore": changes{
		"url":      "s3://bucket/a/b.csv",
		"endpoint": "https://minio.example.com:9000", "region": "eu-central-1", "versionID": "3/L4kqtJ", "credentialsRef": changes{"name": "s3"},
	}}}},
	{name: "store over http", reason: "files of people's data don't travel in the open", with: changes{"spec.source": changes{"objectStore": changes{"url": "http://host/a.csv"}}}, refusal: "url"},
	{name: "store on disk", reason: "the operator's own files are no source", with: changes{"spec.source": changes{"objectStore": changes{"url": "file:///etc/passwd"}}}, refusal: "url"},
	{name: "store without path", reason: "a bucket is no file", with: changes{"spec.source": changes{"objectStore": changes{"url": "s3://bucket"}}}, refusal: "url"},
	{name: "store endpoint with path", reason: "an endpoint is a host", with: changes{"spec.source": changes{"objectStore": changes{"url": "s3://b/c", "endpoint": "https://host/x"}}}, refusal: "endpoint"},
	{name: "azure endpoint with path", reason: "an emulator's has its account in the path", with: changes{"spec.source": changes{"objectStore": changes{"url": "azblob://b/c", "endpoint": "http://host:10000/account"}}}},
	{name: "store endpoint with query", reason: "an endpoint holds no secrets", with: changes{"spec.source": changes{"objectStore": changes{"url": "azblob://b/c", "endpoint": "https://host/?sig=x"}}}, refusal: "endpoint"},
	{name: "pre-signed URL", reason: "it needs nothing else", with: changes{"spec.source": changes{"objectStore": changes{"url": "https://host/b/c?sig=x"}}}},
	{name: "pre-signed URL with credentials", reason: "they would go to nobody", with: changes{"spec.source": changes{"objectStore": changes{"url": "https://host/b/c", "credentialsRef": changes{"name": "keys"}}}}, refusal: "pre-signed"},
	{name: "pre-signed URL with a version", reason: "the URL names it", with: changes{"spec.source": changes{"objectStore": changes{"url": "https://host/b/c", "versionID": "1"}}}, refusal: "pre-signed"},
	{name: "store region", reason: "regions are lower case", with: changes{"spec.source": changes{"objectStore": changes{"url": "s3://b/c", "region": "EU West"}}}, refusal: "region"},
}

// parameters may be twenty, of sane names, and none that has a field of its own.
func parameters() []admission {
	const (
		name     = "a parameter's name starts with a letter and has at most 64 letters, digits, '_', '.' or '-'"
		reserved = "format, action, keyField and batchSize have fields of their own, and callback-payload is the operator's"
	)
	many := changes{}
	for len(many) < 20 {
		many["p"+strconv.Itoa(len(many))] = "v"
	}
	more := maps.Clone(many)
	more["p20"] = "v"
	cases := []admission{
		{name: "parameter", reason: "a key that a connector knows", with: changes{"spec.parameters": changes{"listId": "7"}}},
		{name: "twenty parameters", reason: "as many as may be", with: changes{"spec.parameters": many}},
		{name: "21 parameters", reason: "one too many", with: changes{"spec.parameters": more}, refusal: "spec.parameters"},
		{name: "long parameter name", reason: "64 characters", with: changes{"spec.parameters": changes{strings.Repeat("p", 64): "v"}}},
		{name: "too long parameter name", reason: "65 characters", with: changes{"spec.parameters": changes{strings.Repeat("p", 65): "v"}}, refusal: name},
		{name: "parameter name with a digit first", reason: "no such key is known", with: changes{"spec.parameters": changes{"7list": "v"}}, refusal: name},
		{name: "parameter name with a quote", reason: "names go into JSON and logs", with: changes{"spec.parameters": changes{`li"st`: "v"}}, refusal: name},
		{name: "long parameter value", reason: "1024 characters", with: changes{"spec.parameters": changes{"a": strings.Repeat("v", 1024)}}},
		{name: "too long parameter value", reason: "1025 characters", with: changes{"spec.parameters": changes{"a": strings.Repeat("v", 1025)}}, refusal: "spec.parameters.a"},
		{name: "parameter that is a number", reason: "metaData values are strings", with: changes{"spec.parameters": changes{"a": 7}}, refusal: "must be of type string"},
	}
	for _, taken := range []string{"format", "action", "identifierFieldName", "primaryKeyName", "bulkUploadRecordSize", "callback-payload"} {
		cases = append(cases, admission{
			name: "parameter " + taken, reason: "two fields would say different things",
			with: changes{"spec.parameters": changes{taken: "v"}}, refusal: reserved,
		})
	}
	return cases
}

const (
	jobIDRule = "jobID is needed for Adopt, and for Adopt only"
	receiptID = "br-aaaaaaaaaaaaaaaaaaaaaaaaaa22222222222222222222222222"
)

var resolutions = []admission{
	{name: "adopt", reason: "a person found the job", with: changes{"spec.resolve": changes{"attempt": receiptID + ".2", "action": "Adopt", "jobID": "1234"}}},
	{name: "resend", reason: "a person found none", with: changes{"spec.resolve": changes{"attempt": receiptID + ".10", "action": "Resend"}}},
	{name: "abandon", reason: "a person gives up", with: changes{"spec.resolve": changes{"attempt": receiptID + ".1", "action": "Abandon"}}},
	{name: "adopt without job", reason: "which job", with: changes{"spec.resolve": changes{"attempt": receiptID + ".2", "action": "Adopt"}}, refusal: jobIDRule},
	{name: "adopt of an empty job", reason: "an empty id is none", with: changes{"spec.resolve": changes{"attempt": receiptID + ".2", "action": "Adopt", "jobID": ""}}, refusal: "spec.resolve.jobID"},
	{name: "resend with job", reason: "it contradicts itself", with: changes{"spec.resolve": changes{"attempt": receiptID + ".2", "action": "Resend", "jobID": "1234"}}, refusal: jobIDRule},
	{name: "abandon with job", reason: "it contradicts itself", with: changes{"spec.resolve": changes{"attempt": receiptID + ".2", "action": "Abandon", "jobID": "1234"}}, refusal: jobIDRule},
	{name: "resolve without attempt", reason: "a decision is about one attempt", with: changes{"spec.resolve": changes{"action": "Resend"}}, refusal: "Required value"},
	{name: "resolve without action", reason: "nobody guesses a decision", with: changes{"spec.resolve": changes{"attempt": receiptID + ".2"}}, refusal: "Required value"},
	{name: "resolve of attempt 0", reason: "attempts count from 1", with: changes{"spec.resolve": changes{"attempt": receiptID + ".0", "action": "Resend"}}, refusal: "spec.resolve.attempt"},
	{name: "resolve of a receipt", reason: "the number is part of it", with: changes{"spec.resolve": changes{"attempt": receiptID, "action": "Resend"}}, refusal: "spec.resolve.attempt"},
	{name: "resolve by guess", reason: "an unknown decision", with: changes{"spec.resolve": changes{"attempt": receiptID + ".2", "action": "Retry"}}, refusal: "Unsupported value"},
}

// failedRows are counts from 0 and percentages from 0% to 100%.
func failedRows() []admission {
	const rule = "a number of rows from 0, or a percentage from 0% to 100%"
	var cases []admission
	for _, good := range []any{0, 7, 2147483647, "0%", "5%", "10%", "99%", "100%"} {
		cases = append(cases, admission{name: "maxFailedRows " + text(good), reason: "a count or a percentage", with: changes{"spec.maxFailedRows": good}})
	}
	for _, bad := range []any{-1, 2147483648, "5", "-1%", "101%", "05%", "5 %", "5.5%", "%", "many", ""} {
		cases = append(cases, admission{name: "maxFailedRows " + text(bad), reason: "neither count nor percentage", with: changes{"spec.maxFailedRows": bad}, refusal: rule})
	}
	return append(cases,
		admission{name: "maxFailedRows too long", reason: "a bound on what the rule reads", with: changes{"spec.maxFailedRows": "00000000005%"}, refusal: "spec.maxFailedRows"},
		admission{name: "maxFailedRows 1.5", reason: "rows are whole", with: changes{"spec.maxFailedRows": 1.5}, refusal: "spec.maxFailedRows"})
}

func text(value any) string {
	if number, ok := value.(int); ok {
		return "number " + strconv.Itoa(number)
	}
	return "text " + strconv.Quote(value.(string))
}

// bounds are a field's last good value and its first bad one.
func bounds(field string, good, bad any) []admission {
	return []admission{
		{name: field + " within", reason: "the last good value", with: changes{field: good}},
		{name: field + " beyond", reason: "the first bad value", with: changes{field: bad}, refusal: field},
	}
}

// lengths are bounds of a text.
func lengths(field string, most int) []admission {
	return bounds(field, strings.Repeat("a", most), strings.Repeat("a", most+1))
}

var bulkJobBounds = slices.Concat(
	lengths("spec.object", 128),
	lengths("spec.connectorRef.name", 253),
	lengths("spec.source.configMap.name", 253),
	lengths("spec.source.configMap.key", 253),
	lengths("spec.keyField", 128),
	lengths("spec.sendToken", 128),
	bounds("spec.path", "/"+strings.Repeat("a", 255), "/"+strings.Repeat("a", 256)),
	bounds("spec.path", "/", "sample.csv"),
	bounds("spec.path", "/a b", "/a\nb"),
	bounds("spec.batchSize", 1, 0),
	bounds("spec.batchSize", 100000, 100001),
	bounds("spec.backoffLimit", 0, -1),
	bounds("spec.backoffLimit", 100, 101),
	bounds("spec.split.maxRows", 1, 0),
	bounds("spec.split.maxBytes", 1024, 1023),
	[]admission{
		{name: "split by nothing", reason: "how large a part may be must be said", with: changes{"spec.split": changes{"parallelism": 2}}, refusal: "say how large a part may be"},
		{name: "split of JSON", reason: "parts are of rows behind a header", with: changes{"spec.split": changes{"maxRows": 2}, "spec.format": "JSON"}, refusal: "for CSV only"},
		{name: "canary of JSON", reason: "parts are of rows behind a header", with: changes{"spec.canary": changes{}, "spec.format": "JSON"}, refusal: "for CSV only"},
		{name: "canary", reason: "50 rows, of which none may fail", with: changes{"spec.canary": changes{}}},
		{name: "canary of more rows than a part", reason: "the canary is a part", with: changes{"spec.canary": changes{}, "spec.split": changes{"maxRows": 49}}, refusal: "canary.rows must not exceed split.maxRows"},
		{name: "canary of no rows", reason: "a canary has some", with: changes{"spec.canary": changes{"rows": 0}}, refusal: "spec.canary.rows"},
	},
	bounds("spec.activeDeadlineSeconds", 1, 0),
	bounds("spec.activeDeadlineSeconds", 31536000, 31536001),
	bounds("spec.ttlSecondsAfterFinished", 0, -1),
	bounds("spec.ttlSecondsAfterFinished", 31536000, 31536001),
	bounds("spec.connectorRef.name", "crm.db-1", "crm_db"),
	bounds("spec.connectorRef.name", "c", ""),
)

const intervals = "minIntervalSeconds must not exceed maxIntervalSeconds"

var connectors = []admission{
	{name: "bare", reason: "the least that is needed is enough"},
	{name: "full", reason: "every field of a connector", with: changes{
		"spec.hub": "db", "spec.targetID": "crm-production", "spec.jobListing": "Advisory",
		"spec.callback": changes{"signatureKeyRef": key}, "spec.tls": changes{"caRef": key}, "spec.deduplication": "Attempt",
		"spec.truncatedUploads": "MayBeAccepted", "spec.checkBeforeSend": true, "spec.suspend": true,
		"spec.staging": changes{"url": "s3://imports/staging/", "endpoint": "https://minio.example.com", "region": "eu-central-1", "credentialsRef": changes{"name": "s3"}},
	}},
	{name: "no baseURL", reason: "nobody guesses where to", with: changes{"spec.baseURL": nil}, refusal: "Required value"},
	{name: "no credentials", reason: "nothing is sent without a key", with: changes{"spec.credentialsRef": nil}, refusal: "Required value"},
	{name: "baseURL of a host", reason: "a path is not needed", with: changes{"spec.baseURL": "http://127.0.0.1:8080"}},
	{name: "baseURL with user", reason: "no secrets in a URL", with: changes{"spec.baseURL": "https://user:pass@host/x"}, refusal: "spec.baseURL"},
	{name: "baseURL with query", reason: "a query would be lost", with: changes{"spec.baseURL": "https://host/x?key=1"}, refusal: "spec.baseURL"},
	{name: "baseURL with fragment", reason: "a fragment is never sent", with: changes{"spec.baseURL": "https://host/x#y"}, refusal: "spec.baseURL"},
	{name: "baseURL by ftp", reason: "the Bulk API is spoken over HTTP", with: changes{"spec.baseURL": "ftp://host/x"}, refusal: "spec.baseURL"},
	{name: "baseURL without scheme", reason: "http or https", with: changes{"spec.baseURL": "host/x"}, refusal: "spec.baseURL"},
	{name: "hub with a slash", reason: "a hub is one segment", with: changes{"spec.hub": "db/x"}, refusal: "spec.hub"},
	{name: "targetID with a slash", reason: "a plain name", with: changes{"spec.targetID": "a/b"}, refusal: "spec.targetID"},
	{name: "empty targetID", reason: "unset or a name", with: changes{"spec.targetID": ""}, refusal: "spec.targetID"},
	{name: "checkBeforeSend without a list", reason: "there is nothing to look through", with: changes{"spec.checkBeforeSend": true, "spec.jobListing": "None"}, refusal: "it needs jobListing"},
	{name: "jobListing", reason: "an unknown word", with: changes{"spec.jobListing": "Full"}, refusal: "Unsupported value"},
	{name: "deduplication", reason: "an unknown word", with: changes{"spec.deduplication": "Content"}, refusal: "Unsupported value"},
	{name: "truncatedUploads", reason: "an unknown word", with: changes{"spec.truncatedUploads": "Maybe"}, refusal: "Unsupported value"},
	{name: "callback without key", reason: "a callback is verified by one", with: changes{"spec.callback": changes{}}, refusal: "Required value"},
	{name: "tls without ca", reason: "what would be trusted", with: changes{"spec.tls": changes{}}, refusal: "Required value"},
	{name: "staging without keys", reason: "nobody writes anonymously", with: changes{"spec.staging": changes{"url": "s3://imports/"}}, refusal: "Required value"},
	{name: "staging by a pre-signed URL", reason: "it names one file", with: changes{"spec.staging": changes{"url": "https://host/x/", "credentialsRef": changes{"name": "s3"}}}, refusal: "spec.staging.url"},
	{name: "staging in a file", reason: "a folder ends with a slash", with: changes{"spec.staging": changes{"url": "s3://imports/x", "credentialsRef": changes{"name": "s3"}}}, refusal: "spec.staging.url"},
	{name: "equal intervals", reason: "a fixed pace", with: changes{"spec.polling": changes{"minIntervalSeconds": 5, "maxIntervalSeconds": 5}}},
	{name: "crossed intervals", reason: "no time is between them", with: changes{"spec.polling": changes{"minIntervalSeconds": 6, "maxIntervalSeconds": 5}}, refusal: intervals},
	{name: "least interval beyond the default", reason: "the other one is 300 by default", with: changes{"spec.polling": changes{"minIntervalSeconds": 301}}, refusal: intervals},
	{name: "most interval below the default", reason: "the other one is 2 by default", with: changes{"spec.polling": changes{"maxIntervalSeconds": 1}}, refusal: intervals},
}

var connectorBounds = slices.Concat(
	bounds("spec.baseURL", "https://host/"+strings.Repeat("a", 1011), "https://host/"+strings.Repeat("a", 1012)),
	lengths("spec.hub", 64),
	lengths("spec.targetID", 253),
	lengths("spec.credentialsRef.name", 253),
	bounds("spec.limits.maxConcurrentUploads", 1, 0),
	bounds("spec.limits.maxConcurrentUploads", 100, 101),
	bounds("spec.limits.maxUploadBytes", 1, 0),
	bounds("spec.limits.requestsPerSecond", 1, 0),
	bounds("spec.limits.requestsPerSecond", 1000, 1001),
	bounds("spec.polling.minIntervalSeconds", 1, 0),
	bounds("spec.polling.minIntervalSeconds", 300, 3601),
	bounds("spec.polling.maxIntervalSeconds", 86400, 86401),
	bounds("spec.discoveryIntervalSeconds", 10, 9),
	bounds("spec.discoveryIntervalSeconds", 86400, 86401),
)

// division is that of a file whose parts begin at these places.
func division(offsets ...int) changes {
	parts := list{}
	for i, at := range offsets {
		parts = append(parts, changes{"offset": at, "row": i + 1})
	}
	return changes{"headerBytes": 10, "bytes": 100, "rows": len(offsets), "parts": parts}
}

const receiptName = "a receipt's name is made of the identity of its load; only the operator makes receipts"

var receipts = slices.Concat([]admission{
	{name: "bare", reason: "a claim"},
	{name: "no record", reason: "a claim has its attempt from the start", with: changes{"record": nil}, refusal: "Required value"},
	{name: "no spec", reason: "a claim is of an identity", with: changes{"spec": nil}, refusal: "Required value"},
	{name: "no attempts", reason: "a claim is an attempt", with: changes{"record.attempts": list{}}, refusal: "a load that is not sent in parts has attempts"},
	{name: "in parts", reason: "the parts have the attempts", with: changes{"record.attempts": list{}, "record.division": division(0, 30)}},
	{name: "in one part", reason: "one part is the whole", with: changes{"record.attempts": list{}, "record.division": division(0)}, refusal: "record.division.parts"},
	{name: "name of a person's choice", reason: "a name that is no digest claims nothing", with: changes{"metadata.name": "contacts"}, refusal: receiptName},
	{name: "name one sign short", reason: "a digest has 52 signs of base32", with: changes{"metadata.name": receiptID[:54]}, refusal: receiptName},
	{name: "name one sign long", reason: "a digest has 52 signs of base32", with: changes{"metadata.name": receiptID + "a"}, refusal: receiptName},
	{name: "name with sign 1", reason: "base32 has no 1", with: changes{"metadata.name": "br-1" + receiptID[4:]}, refusal: receiptName},
	{name: "outcome", reason: "a closed set", with: changes{"record.outcome": "Done"}, refusal: "Unsupported value"},
	{name: "rows that were not told", reason: "no number is not 0", with: changes{"record.rows": changes{}}},
	{name: "eleven attempts", reason: "the last ten are kept", with: changes{"record.attempts": attempts(1, 11)}, refusal: "record.attempts"},
	{name: "attempt 0", reason: "attempts count from 1", with: changes{"record.attempts": attempts(0, 0)}, refusal: "record.attempts[0].number"},
	{name: "eleven row errors", reason: "the first ten are kept", with: changes{"record.rowErrors": slices.Repeat(list{changes{"row": 1, "reason": "r"}}, 11)}, refusal: "record.rowErrors"},
	{name: "long row error", reason: "a reason, not a row", with: changes{"record.rowErrors": list{changes{"reason": strings.Repeat("r", 257)}}}, refusal: "record.rowErrors[0].reason"},
},
	lengths("spec.content", 1100),
	lengths("record.jobID", 256),
	lengths("record.state", 64),
	lengths("record.reason", 64),
	lengths("record.message", 1024),
	lengths("record.claimedFor.name", 253),
)

// attempts are those numbered first to last, each with a nonce of its own.
func attempts(first, last int) list {
	var all list
	for number := first; number <= last; number++ {
		all = append(all, attempt(number, "n"+strconv.Itoa(number), "h"))
	}
	return all
}

func attempt(number int, nonce, holder string) changes {
	return changes{"number": number, "nonce": nonce, "holder": holder, "at": "2026-01-02T03:04:05.000000Z", "submitTimeoutSeconds": 60}
}
