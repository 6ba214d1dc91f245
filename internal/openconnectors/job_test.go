package openconnectors

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestDecodeJob(t *testing.T) {
	created, finished := time.UnixMilli(1542829826619).UTC(), time.UnixMilli(1542829827804).UTC()
	cases := map[string]struct {
		reason, body string
		want         Job
	}{
		"SeedUpload": {"the seed's answer to an upload", `{"id":"1234","status":"CREATED"}`, Job{ID: "1234", State: "CREATED"}},
		"SeedStatus": {"the seed's status", `{"id":"1234","status":"COMPLETE"}`, Job{ID: "1234", State: "COMPLETE"}},
		"SAPUpload": {
			"SAP's answer to an upload", `{"instanceId":425904,"id":"42114492","status":"CREATED"}`,
			Job{ID: "42114492", State: "CREATED", InstanceID: "425904"},
		},
		"Gen1Upload": {"id as a number", `{"id":1234,"status":"CREATED"}`, Job{ID: "1234", State: "CREATED"}},
		"Gen2Query":  {"instance_id", `{"instance_id":7,"id":"1","status":"CREATED"}`, Job{ID: "1", State: "CREATED", InstanceID: "7"}},
		"V1Status": {
			"all that v1 and v2 send",
			`{"id":"42114492","instanceId":425904,"object_name":"contacts","job_direction":"UPLOAD","status":"COMPLETED",
			  "recordsCount":24,"recordsFailedCount":0,"fileFormat":"csv","fileSize":1045,"vendorJobId":null,
			  "metadata":"{\"action\":\"upsert\"}","bulk_start_time":1542829826000,"bulk_finish_time":1542829827804}`,
			Job{
				ID: "42114492", InstanceID: "425904", Object: "contacts", Direction: "UPLOAD", State: "COMPLETED",
				Records: new(int64(24)), Failed: new(int64(0)), Metadata: json.RawMessage(`{"action":"upsert"}`), Finished: &finished,
			},
		},
		"V1Failure": {
			"ABORTED with its text", `{"id":"1","status":"ABORTED","error":"All prospects require an email","recordsCount":0,"recordsFailedCount":0}`,
			Job{ID: "1", State: "ABORTED", Error: "All prospects require an email", Records: new(int64(0)), Failed: new(int64(0))},
		},
		"V3Status": {
			"all that v3 sends",
			`{"id":1722,"recordCount":100,"errorCount":3,"objectName":"contacts","metaData":{"action":"create"},"jobDirection":"UPLOAD",
			  "jobStatus":"COMPLETED","statusMessage":"Successfully uploaded 100 records","createdDate":1542829826619,"completionTime":1542829827804,
			  "vendorJobId":null,"notificationUrl":"https://cb.example.com/x","defaultSelectFields":"","fileFormat":"CSV","jobCriteria":{},"native":false}`,
			Job{
				ID: "1722", Records: new(int64(100)), Failed: new(int64(3)), Object: "contacts", Metadata: json.RawMessage(`{"action":"create"}`),
				Direction: "UPLOAD", State: "COMPLETED", Created: &created, Finished: &finished, NotificationURL: "https://cb.example.com/x",
			},
		},
		"V3Failure": {
			"statusMessage tells of a failure once the job has failed", `{"id":1,"jobStatus":"ERROR","statusMessage":"The vendor is down"}`,
			Job{ID: "1", State: "ERROR", Error: "The vendor is down"},
		},
		"V3Canceled": {"v3's own spelling", `{"id":1,"jobStatus":"CANCELED"}`, Job{ID: "1", State: "CANCELED"}},
		"ListGen2": {
			"an item of GET /bulk/jobs",
			`{"id":1722,"instanceId":123453,"status":"COMPLETED","object_name":"systemuser","job_direction":"DOWNLOAD","job_query":"SELECT x","job_state":"y","job_reset_attempt":0,
			  "record_count":41,"error_count":0,"fileFormat":"csv","notification_url":"/cb","createdDate":1542829826619,"completion_time":1542829827804}`,
			Job{
				ID: "1722", InstanceID: "123453", State: "COMPLETED", Object: "systemuser", Direction: "DOWNLOAD", Records: new(int64(41)), Failed: new(int64(0)),
				NotificationURL: "/cb", Created: &created, Finished: &finished,
			},
		},
		"ListGen1": {"job_id and job_status", `{"job_id":1722,"job_status":"RUNNING"}`, Job{ID: "1722", State: "RUNNING"}},
		"ListGen0": {"bulk_status", `{"job_id":1722,"bulk_status":"SCHEDULED"}`, Job{ID: "1722", State: "SCHEDULED"}},
		"Marketo": {
			"the relic in the swagger", `{"batchId":1,"message":"Import failed","numOfLeadsProcessed":5,"numOfRowsFailed":2,"numOfRowsWithWarning":0,"status":"ERROR"}`,
			Job{State: "ERROR", Error: "Import failed", Failed: new(int64(2))},
		},
		"MarketoGood": {"a message isn't an error", `{"message":"Import completed","status":"COMPLETED"}`, Job{State: "COMPLETED"}},
		"Callback": {
			"a callback with its payload beside the rest", `{"id":"1","status":"COMPLETED","callback-payload":{"token":"t"}}`,
			Job{ID: "1", State: "COMPLETED", Metadata: json.RawMessage(`{"callback-payload":{"token":"t"}}`)},
		},
		"Nulls": {
			"null is not told", `{"id":null,"job_id":5,"status":null,"jobStatus":"RUNNING","recordsCount":null,"metadata":null,"error":null,"createdDate":null}`,
			Job{ID: "5", State: "RUNNING"},
		},
		"NumbersAsStrings": {
			"some writers quote all", `{"id":"1","status":"RUNNING","recordsCount":"10","recordsFailedCount":"0","createdDate":"1542829826619"}`,
			Job{ID: "1", State: "RUNNING", Records: new(int64(10)), Failed: new(int64(0)), Created: &created},
		},
		"NumbersAsFloats": {
			"some writers have floats only", `{"id":1234.0,"status":"RUNNING","recordsCount":1e1,"recordsFailedCount":0.0,"createdDate":1.542829826619e12}`,
			Job{ID: "1234", State: "RUNNING", Records: new(int64(10)), Failed: new(int64(0)), Created: &created},
		},
		"BigID":        {"no digit is lost", `{"id":123456789012345678901234567890,"status":"CREATED"}`, Job{ID: "123456789012345678901234567890", State: "CREATED"}},
		"OddNumbers":   {"what can't be a count isn't one", `{"id":"1","status":"X","recordsCount":-1,"recordsFailedCount":1.5}`, Job{ID: "1", State: "X"}},
		"HugeNumbers":  {"nor what is beyond all rows", `{"id":1e999999999,"status":"X","recordsCount":1e300,"createdDate":9e18}`, Job{State: "X"}},
		"BoolID":       {"true is no id", `{"id":true,"status":"X"}`, Job{State: "X"}},
		"Dates":        {"dates may be dates", `{"id":"1","status":"X","createdDate":"2018-11-21T19:50:26.619Z","bulk_finish_time":"2018-11-21T20:50:27.804+0100"}`, Job{ID: "1", State: "X", Created: &created, Finished: &finished}},
		"Seconds":      {"or seconds", `{"id":"1","status":"X","createdDate":1542829826}`, Job{ID: "1", State: "X", Created: new(created.Truncate(time.Second))}},
		"NoDate":       {"or nothing", `{"id":"1","status":"X","createdDate":0,"bulk_finish_time":"yesterday"}`, Job{ID: "1", State: "X"}},
		"Unprintable":  {"a state goes to a terminal", `{"id":"1","status":"RUN\u0007\u202eNING\n"}`, Job{ID: "1", State: "RUNNING"}},
		"LongState":    {"at most 64 characters", `{"id":"1","status":"` + strings.Repeat("é", 100) + `"}`, Job{ID: "1", State: strings.Repeat("é", 63) + "…"}},
		"ErrorObject":  {"an error may be an object", `{"id":"1","status":"ERROR","error":{"message":"The vendor is down"}}`, Job{ID: "1", State: "ERROR", Error: "The vendor is down"}},
		"ErrorRowData": {"a failure may echo a row", `{"id":"1","status":"ABORTED","error":"Bad value 'Zoë' for zoe@example.com"}`, Job{ID: "1", State: "ABORTED", Error: "Bad value '…' for …"}},
		"PlainMeta":    {"metadata that isn't JSON stays text", `{"id":"1","status":"X","metadata":"hello"}`, Job{ID: "1", State: "X", Metadata: json.RawMessage(`"hello"`)}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := DecodeJob([]byte(tc.body))
			if err != nil {
				t.Fatalf("%s: %v", tc.reason, err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s: -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func TestDecodeJobRefuses(t *testing.T) {
	for _, body := range []string{"", "null", "[]", `"x"`, "12", "{", "<html>", `{"id":"1"} trailing`} {
		if _, err := DecodeJob([]byte(body)); !errors.Is(err, ErrAnswer) {
			t.Errorf("DecodeJob(%q) = %v, want ErrAnswer", body, err)
		}
	}
}

func TestDecodeJobs(t *testing.T) {
	cases := map[string]struct {
		reason, body string
		want         []string // ids
		err          error
	}{
		"Array":     {"what is sent", `[{"id":1},{"job_id":"2"}]`, []string{"1", "2"}, nil},
		"One":       {"what the schema says", `{"id":1}`, []string{"1"}, nil},
		"None":      {"no jobs", `[]`, []string{}, nil},
		"Null":      {"no jobs", `null`, []string{}, nil},
		"NoID":      {"a job that can't be named must not be passed over", `[{"id":1},{"status":"X"}]`, nil, ErrName},
		"NotAJob":   {"nor what isn't a job", `[{"id":1},7]`, nil, ErrAnswer},
		"Text":      {"not a list", `"x"`, nil, ErrAnswer},
		"Empty":     {"not a list", ``, nil, ErrAnswer},
		"Truncated": {"not a list", `[{"id":1}`, nil, ErrAnswer},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			jobs, err := decodeJobs([]byte(tc.body))
			if !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil) {
				t.Fatalf("%s: got %v, want %v", tc.reason, err, tc.err)
			}
			var ids []string
			if err == nil {
				ids = []string{}
			}
			for _, job := range jobs {
				ids = append(ids, job.ID)
			}
			if diff := cmp.Diff(tc.want, ids); diff != "" {
				t.Errorf("%s: -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func TestCarries(t *testing.T) {
	const token = "br-abc.1.xyz"
	cases := map[string]struct {
		reason  string
		body    string
		carries bool
		payload string
	}{
		"Segment":       {"a callback's last segment", `{"notification_url":"https://cb.example.com/callbacks/br-abc.1.xyz"}`, true, ""},
		"MiddleSegment": {"any segment", `{"notificationUrl":"/cb/br-abc.1.xyz/end"}`, true, ""},
		"Query":         {"a query's value", `{"notification_url":"cb.example.com?x=1&token=br-abc.1.xyz"}`, true, ""},
		"Escaped":       {"escaped by the platform", `{"notification_url":"https://cb/br%2Dabc%2E1%2Exyz"}`, true, ""},
		"LongerNonce":   {"another attempt's token begins alike", `{"notification_url":"https://cb/br-abc.1.xyz9"}`, false, ""},
		"LongerPrefix":  {"or ends alike", `{"notification_url":"https://cb/xbr-abc.1.xyz"}`, false, ""},
		"PayloadText":   {"payload as a string", `{"metadata":{"callback-payload":"br-abc.1.xyz"}}`, true, token},
		"PayloadObject": {"payload as an object", `{"metaData":{"callback-payload":{"token":"br-abc.1.xyz","n":1}}}`, true, `{"token":"br-abc.1.xyz","n":1}`},
		"PayloadNested": {"metadata and payload as strings", `{"metadata":"{\"callback-payload\":\"{\\\"token\\\":\\\"br-abc.1.xyz\\\"}\"}"}`, true, `{"token":"br-abc.1.xyz"}`},
		"PayloadOther":  {"somebody else's", `{"metadata":{"callback-payload":{"token":"br-abc.2.xyz"}}}`, false, `{"token":"br-abc.2.xyz"}`},
		"OtherKey":      {"a token elsewhere proves nothing", `{"metadata":{"comment":"br-abc.1.xyz"}}`, false, ""},
		"None":          {"neither", `{}`, false, ""},
		"PayloadNumber": {"no token at all", `{"metadata":{"callback-payload":7}}`, false, "7"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			job, err := DecodeJob([]byte(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			if got := job.Carries(token); got != tc.carries {
				t.Errorf("%s: Carries = %t, want %t", tc.reason, got, tc.carries)
			}
			if diff := cmp.Diff(tc.payload, job.CallbackPayload()); diff != "" {
				t.Errorf("%s: payload: -want, +got:\n%s", tc.reason, diff)
			}
			if job.Carries("") {
				t.Errorf("%s: the empty token is carried", tc.reason)
			}
		})
	}
}

func FuzzDecodeJob(f *testing.F) {
	for _, seed := range []string{
		`{"id":"1","status":"COMPLETE"}`, `{"id":1e5,"recordsCount":"1.0","createdDate":1e12}`, `{"metadata":"{}","callback-payload":[]}`,
		`{"job_id":99999999999999999999,"bulk_status":"\u0000","error":{"message":"'"}}`, `[{"id":1}]`, `{"notification_url":"%zz/a?b"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		job, err := DecodeJob(body)
		if err != nil {
			return
		}
		for _, shown := range []string{job.State, job.Direction, job.InstanceID} {
			if utf8.RuneCountInString(shown) > maxState || strings.ContainsFunc(shown, unprintable) {
				t.Errorf("%q isn't fit to be shown", shown)
			}
		}
		if utf8.RuneCountInString(job.Error) > maxError || strings.ContainsFunc(job.Error, unprintable) {
			t.Errorf("%q isn't fit to be shown", job.Error)
		}
		if job.Records != nil && *job.Records < 0 || job.Failed != nil && *job.Failed < 0 {
			t.Errorf("a negative count in %+v", job)
		}
		if len(job.Metadata) > 0 && !json.Valid(job.Metadata) {
			t.Errorf("the metadata %q isn't JSON", job.Metadata)
		}
		if payload := job.CallbackPayload(); payload != "" && payload[0] != '{' && !job.Carries(payload) && !json.Valid([]byte(payload)) {
			t.Errorf("the payload %q isn't carried", payload)
		}
		_, _ = decodeJobs(body)
	})
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }
