package endpoint_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bulkjob.dev/operator/internal/endpoint"
	"bulkjob.dev/operator/internal/endpoint/memory"
	"bulkjob.dev/operator/internal/endpoint/postgresql"
)

func TestStraight(t *testing.T) {
	each(t, func(t *testing.T, c endpoint.Connector) {
		t.Helper()
		r := start(t, endpoint.Options{Connector: c})
		for _, prefix := range []string{"", "/hubs/marketing", "/hubs/nonsense"} {
			body, contentType := multipartBody(contacts(10), "", false)
			a := r.do("POST", prefix+"/bulk/contact?path=/sample.csv", body, "Content-Type", contentType)
			created := a.object(t)
			id, _ := created["id"].(string)
			if diff := cmp.Diff(map[string]any{"id": id, "status": "CREATED"}, created); a.status != 200 || diff != "" {
				t.Errorf("%q: answered %d, -want, +got:\n%s", prefix, a.status, diff)
			}
			if diff := cmp.Diff("COMPLETE 10/0", outcome(r.wait(id))); diff != "" {
				t.Errorf("%q: -want, +got:\n%s", prefix, diff)
			}
			if a := r.get(prefix + "/bulk/" + id + "/errors"); a.body != "[]\n" || a.header.Get("Elements-Returned-Count") != "0" {
				t.Errorf("%q: errors of a sound file: %s", prefix, a.body)
			}
			if got := len(a.header.Get("Elements-Request-Id")); got != 24 {
				t.Errorf("%q: the request's id has %d digits", prefix, got)
			}
			if got := a.header.Get("Elements-Element-Instance-Id"); got != strconv.FormatInt(c.InstanceID(), 10) {
				t.Errorf("%q: instance %q", prefix, got)
			}
		}
		r.spoolEmpties()
	})
}

func TestRefusals(t *testing.T) {
	const form = "multipart/form-data; boundary=x"
	part := func(name, content string) string {
		return "--x\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + content + "\r\n"
	}
	file, end := part("file", "id\n1"), "--x--\r\n"
	cases := map[string]struct {
		reason, method, path, contentType, body string
		status                                  int
		message                                 string
	}{
		"NotMultipart": {"a bare CSV isn't the documented form", "POST", "/bulk/contact", "text/csv", "id\n1\n", 415, "The request must be multipart/form-data with a boundary."},
		"NoFile":       {"there is nothing to load", "POST", "/bulk/contact", form, part("metaData", "{}") + end, 400, "The request has no part named file."},
		"TwoFiles":     {"it is unclear which to load", "POST", "/bulk/contact", form, file + file + end, 400, "The request has two parts named file."},
		"TwoMetaData":  {"it is unclear which counts", "POST", "/bulk/contact", form, file + part("metaData", "{}") + part("metaData", "{}") + end, 400, "The request has two parts named metaData."},
		"LongMetaData": {"metaData is held in memory", "POST", "/bulk/contact", form, part("metaData", strings.Repeat(" ", 65537)) + file + end, 400, "metaData is longer than 65536 bytes."},
		"ManyParts":    {"parts are bounded", "POST", "/bulk/contact", form, strings.Repeat(part("x", ""), 40) + file + end, 400, "The request has too many parts."},
		"OtherPart":    {"so is what nobody reads", "POST", "/bulk/contact", form, part("x", strings.Repeat("x", 65537)) + file + end, 400, "The request has an unexpected part that is too long."},
		"NoBoundary":   {"the closing boundary is missing though the request is whole", "POST", "/bulk/contact", form, file, 400, "The upload was cut before its end."},
		"NextPart":     {"so is the part that its last boundary announces", "POST", "/bulk/contact", form, file + "--x\r\n", 400, "The upload was cut before its end."},
		"Epilogue":     {"what follows the closing boundary is no end", "POST", "/bulk/contact", form, file + end + "more", 400, "The upload was cut before its end."},
		"HalfEnd":      {"half a closing boundary is none", "POST", "/bulk/contact", form, file + "--x-", 400, "The upload was cut before its end."},
		"Garbage":      {"no part begins", "POST", "/bulk/contact", form, "hello", 400, "The upload was cut before its end."},
		"MetaJSON":     {"metaData is a JSON object", "POST", "/bulk/contact", form, part("metaData", "[1]") + file + end, 400, "metaData isn't a JSON object."},
		"MetaNull":     {"null is none", "POST", "/bulk/contact", form, part("metaData", "null") + file + end, 400, "metaData isn't a JSON object."},
		"Format":       {"formats are a closed set", "POST", "/bulk/contact", form, part("metaData", `{"format":"xls"}`) + file + end, 400, "format in metaData must be one of csv, json."},
		"Action":       {"a wrong action must not become a create", "POST", "/bulk/contact", form, part("metaData", `{"action":"update"}`) + file + end, 400, "action in metaData must be one of create, upsert."},
		"ActionKind":   {"nor one that isn't a string", "POST", "/bulk/contact", form, part("metaData", `{"action":1}`) + file + end, 400, "action in metaData must be a short string."},
		"NoKey":        {"an upsert must know its key", "POST", "/bulk/contact", form, part("metaData", `{"action":"upsert"}`) + file + end, 400, "An upsert needs identifierFieldName or primaryKeyName in metaData."},
		"TwoKeys":      {"and only one", "POST", "/bulk/contact", form, part("metaData", `{"action":"upsert","identifierFieldName":"a","primaryKeyName":"b"}`) + file + end, 400, "identifierFieldName and primaryKeyName in metaData name different fields."},
		"BatchSize":    {"a batch has a row at least", "POST", "/bulk/contact", form, part("metaData", `{"bulkUploadRecordSize":0}`) + file + end, 400, "bulkUploadRecordSize in metaData must be a whole number from 1 to 1000000."},
		"LongToken":    {"tokens are bounded", "POST", "/bulk/contact", form, part("metaData", `{"callback-payload":"`+strings.Repeat("x", 513)+`"}`) + file + end, 400, "The token in callback-payload is longer than 512 bytes."},
		"NUL":          {"no database takes a NUL", "POST", "/bulk/contact?path=%00", form, file + end, 400, "The request has a NUL character or broken UTF-8 outside of the file."},
		"BrokenUTF8":   {"nor broken UTF-8", "POST", "/bulk/%ff", form, file + end, 400, "The request has a NUL character or broken UTF-8 outside of the file."},
		"Query":        {"downloads aren't offered, and query is no object", "POST", "/bulk/query?q=select", form, file + end, 400, "This endpoint takes uploads only; downloads are not supported."},
		"Download":     {"nor by the newer route", "POST", "/bulk/download", "application/json", "{}", 400, "This endpoint takes uploads only; downloads are not supported."},
		"Results":      {"nor are results", "GET", "/bulk/1/contact", "", "", 400, "This endpoint takes uploads only; downloads are not supported."},
		"NoJob":        {"unknown jobs", "GET", "/bulk/1/status", "", "", 404, "There is no such bulk job."},
		"NoNumber":     {"ids are numbers", "GET", "/bulk/abc/status", "", "", 404, "There is no such bulk job."},
		"NoJobErrors":  {"errors of unknown jobs", "GET", "/bulk/1/errors", "", "", 404, "There is no such bulk job."},
		"NoJobCancel":  {"unknown jobs can't be cancelled", "PUT", "/bulk/1/cancel", "", "", 404, "There is no such bulk job."},
		"PageSize":     {"pages have a size", "GET", "/bulk/jobs?pageSize=0", "", "", 400, "pageSize must be a whole number from 1."},
		"NextPage":     {"cursors are ours", "GET", "/bulk/jobs?nextPage=x", "", "", 400, "nextPage isn't a token of this endpoint."},
		"Where":        {"a bad clause is told at once", "GET", "/bulk/jobs?where=x", "", "", 400, "Error parsing query: expected field, operator and value, joined by and."},
		"NoObject":     {"metadata of an unknown object", "GET", "/objects/bad/metadata", "", "", 404, "There is no such object."},
		"Method":       {"jobs can't be deleted", "DELETE", "/bulk/jobs", "", "", 405, "DELETE isn't allowed here."},
		"NoRoute":      {"other routes", "GET", "/hubs/x/a/b/c", "", "", 404, "There is no such resource."},
	}
	each(t, func(t *testing.T, c endpoint.Connector) {
		t.Helper()
		r := start(t, endpoint.Options{Connector: c})
		for name, tc := range cases {
			t.Run(name, func(t *testing.T) {
				a := r.do(tc.method, tc.path, strings.NewReader(tc.body), "Content-Type", tc.contentType)
				got := a.object(t)
				if got["requestId"] != a.header.Get("Elements-Request-Id") {
					t.Errorf("%s: request id %v", tc.reason, got["requestId"])
				}
				delete(got, "requestId")
				if diff := cmp.Diff(map[string]any{"message": tc.message}, got); diff != "" || a.status != tc.status {
					t.Errorf("%s: want %d, got %d; -want, +got:\n%s", tc.reason, tc.status, a.status, diff)
				}
			})
		}
		if n := r.jobs(); n > 0 {
			t.Errorf("refused requests left %d jobs", n)
		}
		r.spoolEmpties()
	})
}

func TestUnauthorized(t *testing.T) {
	r := start(t, endpoint.Options{Connector: memory.New(memory.Options{})})
	for _, header := range []string{"", "Element x, User secret=", "Element token=", "Bearer token="} {
		a := r.get("/objects", "Authorization", header)
		message := a.object(t)["message"]
		if a.status != 401 || message != "Invalid Organization or User secret, or invalid Element token provided." {
			t.Errorf("%q: %d %v", header, a.status, message)
		}
		if a.header.Get("Elements-Element-Instance-Id") != "" {
			t.Errorf("%q: told the instance's id", header)
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		resp, err := http.Get("http://" + r.addr + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
}

func TestDiscovery(t *testing.T) {
	dsn, _ := database(t, `create table "Contact" (id integer primary key, "Full name" text not null, born date, ok boolean default true,
		twice integer generated always as (id * 2) stored); create table account (id integer);
		create schema other; create table other.hidden (id integer); create view seen as select 1 as one`)
	c := openPostgreSQL(t, dsn, postgresql.Options{})
	t.Cleanup(c.Close)
	r := start(t, endpoint.Options{Connector: c})
	if diff := cmp.Diff("[\"Contact\",\"account\"]\n", r.get("/objects").body); diff != "" {
		t.Errorf("objects: -want, +got:\n%s", diff)
	}
	want := []map[string]any{
		{"name": "Contact", "vendorName": "Contact", "type": "vendor"}, {"name": "account", "vendorName": "account", "type": "vendor"},
	}
	if diff := cmp.Diff(want, r.get("/objects", "Elements-Version", "Helium").list(t)); diff != "" {
		t.Errorf("objects, Helium: -want, +got:\n%s", diff)
	}
	var fields []string
	for _, f := range r.get("/objects/Contact/metadata").object(t)["fields"].([]any) {
		f := f.(map[string]any)
		fields = append(fields, fmt.Sprint(f["vendorPath"], "|", f["type"], "|", f["vendorNativeType"], "|", f["vendorRequired"], "|", f["vendorReadOnly"]))
	}
	if diff := cmp.Diff([]string{
		"id|number|integer|true|false", "Full name|string|text|true|false", "born|date|date|false|false",
		"ok|boolean|boolean|false|false", "twice|number|integer|false|true",
	}, fields); diff != "" {
		t.Errorf("fields: -want, +got:\n%s", diff)
	}
	ping := r.get("/ping").object(t)
	if _, err := time.Parse(time.RFC3339, fmt.Sprint(ping["dateTime"])); err != nil || ping["endpoint"] != "postgresql" || ping["valid"] != true {
		t.Errorf("ping: %v", ping)
	}
	if got := openPostgreSQLInstance(t, r, c, dsn); got != c.InstanceID() {
		t.Errorf("the instance's id changed to %d by a restart", got)
	}
}

func openPostgreSQLInstance(t *testing.T, r *rig, c *postgresql.Connector, dsn string) int64 {
	t.Helper()
	r.stop()
	c.Close()
	again := openPostgreSQL(t, dsn, postgresql.Options{})
	defer again.Close()
	return again.InstanceID()
}

func TestMetaDataEitherSide(t *testing.T) {
	each(t, func(t *testing.T, c endpoint.Connector) {
		t.Helper()
		r := start(t, endpoint.Options{Connector: c})
		for _, first := range []bool{true, false} {
			body, contentType := multipartBody(`[{"id":1},{"id":2,"name":"x"}]`, `{"format":"json","bulkUploadRecordSize":"1"}`, first)
			id := fmt.Sprint(r.do("POST", "/bulk/contact", body, "Content-Type", contentType).object(t)["id"])
			if diff := cmp.Diff("COMPLETE 2/0", outcome(r.wait(id))); diff != "" {
				t.Errorf("metaData first: %v: -want, +got:\n%s", first, diff)
			}
		}
	})
}

func TestUnknownObject(t *testing.T) {
	each(t, func(t *testing.T, c endpoint.Connector) {
		t.Helper()
		r := start(t, endpoint.Options{Connector: c})
		id, status := r.load("bad", contacts(37), "")
		if diff := cmp.Diff("COMPLETE 37/37", outcome(status)); diff != "" {
			t.Errorf("-want, +got:\n%s", diff)
		}
		first := r.get("/bulk/" + id + "/errors?pageSize=30")
		token := first.header.Get("Elements-Next-Page-Token")
		rest := r.get("/bulk/" + id + "/errors?pageSize=30&nextPage=" + token)
		if got := fmt.Sprint(first.header.Get("Elements-Returned-Count"), " ", rest.header.Get("Elements-Returned-Count"), " ",
			len(first.list(t)), " ", len(rest.list(t)), " ", rest.header.Get("Elements-Next-Page-Token")); got != "30 7 30 7 " {
			t.Errorf("pages of 30 and 7 errors, the last without a token: got %q", got)
		}
		want := map[string]any{"rowNum": 31.0, "status": `there is no object "bad"`, "response": ""}
		if diff := cmp.Diff(want, rest.list(t)[0]); diff != "" {
			t.Errorf("-want, +got:\n%s", diff)
		}
	})
}

func TestAborted(t *testing.T) {
	cases := map[string]struct{ reason, file, metaData, want string }{
		"Empty":    {"an empty file has no header", "", "", "the file is empty: it must begin with a row of column names"},
		"Quote":    {"a file that can't be split loads no row", "id,name,email\n1,a,b\n2,\"c,d\n", "", "a quote that opens in the row of line 3 is never closed"},
		"NoKey":    {"the key must be in the file", "id\n1\n", `{"action":"upsert","primaryKeyName":"email"}`, `the file has no column "email" to match by`},
		"JSONRead": {"a JSON file that isn't", "id\n1\n", `{"format":"json"}`, "the file isn't sound JSON at object 1"},
	}
	each(t, func(t *testing.T, c endpoint.Connector) {
		t.Helper()
		r := start(t, endpoint.Options{Connector: c})
		for name, tc := range cases {
			t.Run(name, func(t *testing.T) {
				_, status := r.load("contact", tc.file, tc.metaData)
				if diff := cmp.Diff("ABORTED 0/0 "+tc.want, outcome(status)); diff != "" {
					t.Errorf("%s: -want, +got:\n%s", tc.reason, diff)
				}
			})
		}
		r.spoolEmpties()
	})
}

func TestRepeatedToken(t *testing.T) {
	each(t, func(t *testing.T, c endpoint.Connector) {
		t.Helper()
		r := start(t, endpoint.Options{Connector: c})
		for name, metaData := range map[string]string{
			"string": `{"callback-payload":"br-abc.1.nonce"}`, "object": `{"callback-payload":{"token":"br-abc.2.nonce","x":[1]}}`,
		} {
			before := r.jobs()
			id, _ := r.load("contact", contacts(3), metaData)
			again := r.upload("contact", contacts(3), metaData)
			if got := again.object(t); again.status != 200 || got["id"] != id || got["status"] != "CREATED" {
				t.Errorf("%s: repeated: %d %v, want id %s", name, again.status, got, id)
			}
			for other, a := range map[string]answer{
				"file": r.upload("contact", contacts(4), metaData), "object": r.upload("account", contacts(3), metaData),
			} {
				if a.status != 409 {
					t.Errorf("%s: with another %s: %d %s", name, other, a.status, a.body)
				}
			}
			if got := r.jobs() - before; got != 1 {
				t.Errorf("%s: %d jobs", name, got)
			}
		}
		for _, metaData := range []string{"", `{"callback-payload":{"uid":1}}`, `{"callback-payload":7}`, `{"callback-payload":""}`} {
			first, _ := r.load("contact", contacts(1), metaData)
			if second, _ := r.load("contact", contacts(1), metaData); first == second {
				t.Errorf("%s: no token, yet two uploads became one job", metaData)
			}
		}
		r.spoolEmpties()
	})
}

func TestRepeatedTokenAtOnce(t *testing.T) {
	each(t, func(t *testing.T, c endpoint.Connector) {
		t.Helper()
		r := start(t, endpoint.Options{Connector: c, MaxUploads: 16})
		var mu sync.Mutex
		ids := map[any]int{}
		var group sync.WaitGroup
		for range 12 {
			group.Go(func() {
				a := r.upload("contact", contacts(50), `{"callback-payload":"same"}`)
				mu.Lock()
				defer mu.Unlock()
				ids[a.object(t)["id"]]++
			})
		}
		group.Wait()
		if len(ids) != 1 || r.jobs() != 1 {
			t.Errorf("answers by id: %v; jobs: %d", ids, r.jobs())
		}
	})
}

func TestCancel(t *testing.T) {
	each(t, func(t *testing.T, c endpoint.Connector) {
		t.Helper()
		r := start(t, endpoint.Options{Connector: c, ProcessingDelay: 400 * time.Millisecond})
		created := fmt.Sprint(r.upload("contact", contacts(5), "").object(t)["id"])
		if a := r.do("PUT", "/bulk/"+created+"/cancel", nil); a.status != 200 || a.object(t)["status"] != "CANCELLED" {
			t.Errorf("a job that hasn't begun: %d %s", a.status, a.body)
		}
		running := fmt.Sprint(r.upload("account", contacts(5), "").object(t)["id"])
		for r.get("/bulk/" + running + "/status").object(t)["status"] != "RUNNING" {
			time.Sleep(5 * time.Millisecond)
		}
		if a := r.do("PUT", "/bulk/"+running+"/cancel", nil); a.status != 200 || a.object(t)["status"] != "CANCELLATION_PENDING" {
			t.Errorf("a running job: %d %s", a.status, a.body)
		}
		for _, id := range []string{created, running} {
			status := r.wait(id)
			if diff := cmp.Diff("CANCELLED 0/0", outcome(status)); diff != "" {
				t.Errorf("-want, +got:\n%s", diff)
			}
			if a := r.do("PUT", "/bulk/"+id+"/cancel", nil); a.status != 400 {
				t.Errorf("a job that has ended: %d %s", a.status, a.body)
			}
		}
		r.spoolEmpties()
	})
}

func TestJobsList(t *testing.T) {
	each(t, func(t *testing.T, c endpoint.Connector) {
		t.Helper()
		r := start(t, endpoint.Options{Connector: c})
		var ids []string
		for i := 1; i <= 5; i++ {
			object := []string{"contact", "bad"}[i%2]
			id, _ := r.load(object, contacts(i), "")
			ids = append(ids, id)
		}
		first := r.get("/bulk/jobs?pageSize=3")
		rest := r.get("/bulk/jobs?pageSize=3&nextPage=" + first.header.Get("Elements-Next-Page-Token"))
		var listed []string
		for _, job := range append(first.list(t), rest.list(t)...) {
			listed = append([]string{fmt.Sprintf("%.0f", job["id"])}, listed...)
		}
		if diff := cmp.Diff(ids, listed); diff != "" || rest.header.Get("Elements-Next-Page-Token") != "" {
			t.Errorf("newest first, over two pages: -want, +got:\n%s", diff)
		}
		for where, want := range map[string]int{
			"job_direction='UPLOAD'": 5, "job_direction='DOWNLOAD'": 0, "object_name='bad'": 3, "object_name!='bad'": 2,
			"job_status='COMPLETE'": 5, "status='RUNNING'": 0, "record_count>=4": 2, "record_count < 3 and object_name = 'bad'": 1,
			"record_count=3": 1, "record_count!=3": 4, "record_count<=3": 3, "record_count>3": 2, "object_name='x''y'": 0,
		} {
			req, _ := http.NewRequest("GET", "http://x/bulk/jobs", nil)
			query := req.URL.Query()
			query.Set("where", where)
			if got := len(r.get("/bulk/jobs?" + query.Encode()).list(t)); got != want {
				t.Errorf("where %s: want %d jobs, got %d", where, want, got)
			}
		}
	})
}

func TestDialects(t *testing.T) {
	type spelling struct{ Created, Status, Listed []string }
	v2 := []string{
		"bulk_finish_time", "bulk_start_time", "fileFormat=csv", "fileSize=17", "id=ID", "instanceId=7", "job_direction=UPLOAD",
		"metadata={\"x\":1}", "object_name=contact", "recordsCount=1", "recordsFailedCount=0", "status=COMPLETED", "vendorJobId=<nil>",
	}
	seed := append([]string(nil), v2...)
	seed[11] = "status=COMPLETE"
	item := []string{"completion_time", "createdDate", "error_count=0", "fileFormat=csv"}
	tail := []string{"job_direction=UPLOAD", "job_reset_attempt=0", "notification_url=", "object_name=contact", "record_count=1"}
	join := func(parts ...[]string) (all []string) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	number := append([]string(nil), v2...)
	number[4] = "id=#ID"
	cases := map[endpoint.Dialect]spelling{
		endpoint.DialectSeed: {
			[]string{"id=ID", "status=CREATED"},
			seed,
			join(item, []string{"id=#ID", "instanceId=7"}, tail, []string{"status=COMPLETE"}),
		},
		endpoint.DialectV2: {
			[]string{"id=ID", "instanceId=7", "status=CREATED"},
			v2,
			join(item, []string{"id=#ID", "instanceId=7"}, tail, []string{"status=COMPLETED"}),
		},
		endpoint.DialectList2: {
			[]string{"id=ID", "instanceId=7", "status=CREATED"},
			v2,
			join(item, []string{"id=#ID", "instanceId=7"}, tail, []string{"status=COMPLETED"}),
		},
		endpoint.DialectList1: {
			[]string{"id=#ID", "status=CREATED"},
			number,
			join(item, tail[:1], []string{"job_id=#ID"}, tail[1:2], []string{"job_status=COMPLETED"}, tail[2:]),
		},
		endpoint.DialectList0: {
			[]string{"id=#ID", "status=CREATED"},
			number,
			join([]string{"bulk_status=COMPLETED"}, item, tail[:1], []string{"job_id=#ID"}, tail[1:]),
		},
		endpoint.DialectV3: {
			[]string{"id=#ID", "status=CREATED"},
			[]string{
				"completionTime", "createdDate", "errorCount=0", "fileFormat=CSV", "id=#ID", "jobDirection=UPLOAD", "jobStatus=COMPLETED",
				"metaData=map[x:1]", "native=false", "notificationUrl=", "objectName=contact", "recordCount=1",
				"statusMessage=Uploaded 1 records", "vendorJobId=<nil>",
			},
			join(item, []string{"id=#ID", "instanceId=7"}, tail, []string{"status=COMPLETED"}),
		},
	}
	for dialect, want := range cases {
		t.Run(string(dialect), func(t *testing.T) {
			r := start(t, endpoint.Options{Connector: memory.New(memory.Options{InstanceID: 7}), Dialect: dialect})
			created := r.upload("contact", "id,name\n1,abcdef\n", `{"x":1}`).object(t)
			id := fmt.Sprint(created["id"])
			if number, ok := created["id"].(float64); ok {
				id = fmt.Sprintf("%.0f", number)
			}
			for r.get("/bulk/jobs").list(t)[0]["completion_time"] == nil {
				time.Sleep(time.Millisecond)
			}
			got := spelling{
				Created: words(created, id),
				Status:  words(r.get("/bulk/"+id+"/status").object(t), id),
				Listed:  words(r.get("/bulk/jobs").list(t)[0], id),
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want, +got:\n%s", diff)
			}
		})
	}
}

// words are the keys and values of a body in order; ID stands for the job's id, #ID for one that is a number, and
// times, which must be milliseconds of this century, are left out.
func words(body map[string]any, id string) (all []string) {
	for _, key := range slices.Sorted(maps.Keys(body)) {
		value := body[key]
		switch number, isNumber := value.(float64); {
		case value == id:
			all = append(all, key+"=ID")
		case isNumber && fmt.Sprintf("%.0f", number) == id:
			all = append(all, key+"=#ID")
		case isNumber && number > 946684800000:
			all = append(all, key)
		default:
			all = append(all, fmt.Sprintf("%s=%v", key, value))
		}
	}
	return all
}

func TestCallback(t *testing.T) {
	type call struct {
		Signature, ContentType string
		Body                   map[string]any
	}
	calls := make(chan call, 10)
	failures := 1
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if failures > 0 {
			failures--
			w.WriteHeader(503)
			return
		}
		c := call{Signature: req.Header.Get("Elements-Webhook-Signature"), ContentType: req.Header.Get("Content-Type")}
		text, _ := io.ReadAll(req.Body)
		_ = json.Unmarshal(text, &c.Body)
		calls <- c
	}))
	t.Cleanup(target.Close)
	host := strings.TrimPrefix(target.URL, "http://")
	each(t, func(t *testing.T, c endpoint.Connector) {
		t.Helper()
		r := start(t, endpoint.Options{Connector: c, SignatureKey: "key", CallbackHosts: []string{host}})
		a := r.upload("contact", contacts(2), `{"callback-payload":{"uid":"u-1"}}`, "Elements-Async-Callback-Url", target.URL+"/cb?x=1")
		id := a.object(t)["id"]
		var got call
		select {
		case got = <-calls:
		case <-time.After(20 * time.Second):
			t.Fatal("nobody called")
		}
		want := map[string]any{
			"id": id, "status": "COMPLETE", "recordsCount": 2.0, "recordsFailedCount": 0.0, "fileFormat": "csv",
			"callback-payload": map[string]any{"uid": "u-1"},
		}
		for key := range got.Body {
			if _, ok := want[key]; !ok {
				delete(got.Body, key)
			}
		}
		if diff := cmp.Diff(want, got.Body); diff != "" || got.ContentType != "application/json" || !strings.HasPrefix(got.Signature, "sha256=") {
			t.Errorf("signature %q, type %q; -want, +got:\n%s", got.Signature, got.ContentType, diff)
		}
		if url := r.get("/bulk/jobs").list(t)[0]["notification_url"]; url != target.URL+"/cb?x=1" {
			t.Errorf("listed with callback %v", url)
		}
	})
	t.Run("not allowed", func(t *testing.T) {
		r := start(t, endpoint.Options{Connector: memory.New(memory.Options{}), CallbackHosts: []string{"example.com"}})
		for _, url := range []string{target.URL, "/formulas/instances/1/executions", "file:///etc/passwd", "http://", "://"} {
			a := r.upload("contact", contacts(1), "", "Elements-Async-Callback-Url", url)
			r.wait(fmt.Sprint(a.object(t)["id"]))
		}
		r.stop()
		if len(calls) > 0 {
			t.Errorf("a host that isn't allowed was called")
		}
	})
	t.Run("redirect", func(t *testing.T) {
		asked := 0
		redirecting := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			asked++
			http.Redirect(w, req, target.URL, http.StatusTemporaryRedirect)
		}))
		defer redirecting.Close()
		r := start(t, endpoint.Options{Connector: memory.New(memory.Options{}), CallbackHosts: []string{"127.0.0.1"}})
		r.wait(fmt.Sprint(r.upload("contact", contacts(1), "", "Elements-Async-Callback-Url", redirecting.URL).object(t)["id"]))
		r.stop()
		if asked != 3 || len(calls) > 0 {
			t.Errorf("asked %d times, want 3; followed the redirect: %v", asked, len(calls) > 0)
		}
	})
}

func TestLimits(t *testing.T) {
	each(t, func(t *testing.T, c endpoint.Connector) {
		t.Helper()
		r := start(t, endpoint.Options{Connector: c, MaxUploadBytes: 1000, MaxSpoolBytes: 1500, ProcessingDelay: time.Hour})
		if a := r.upload("contact", strings.Repeat("x", 1001), ""); a.status != 429 || a.header.Get("Retry-After") != "" {
			t.Errorf("a file over the limit: %d %s", a.status, a.body)
		}
		if a := r.upload("contact", strings.Repeat("x", 1000), ""); a.status != 200 {
			t.Errorf("a file at the limit: %d %s", a.status, a.body)
		}
		if a := r.upload("contact", strings.Repeat("x", 501), ""); a.status != 429 || a.header.Get("Retry-After") != "60" {
			t.Errorf("a file that finds no room: %d %s", a.status, a.body)
		}
		if a := r.upload("contact", strings.Repeat("x", 500), ""); a.status != 200 {
			t.Errorf("a file that just finds room: %d %s", a.status, a.body)
		}
		for _, job := range r.get("/bulk/jobs").list(t) {
			r.do("PUT", fmt.Sprintf("/bulk/%.0f/cancel", job["id"]), nil)
		}
		if a := r.upload("contact", strings.Repeat("x", 1000), ""); a.status != 200 {
			t.Errorf("a file after the room was given back: %d %s", a.status, a.body)
		}
		if n := r.jobs(); n != 3 {
			t.Errorf("%d jobs", n)
		}
	})
}

func TestUploadsAtOnce(t *testing.T) {
	r := start(t, endpoint.Options{Connector: memory.New(memory.Options{}), MaxUploads: 1})
	slow, feed := io.Pipe()
	answers := make(chan answer)
	go func() {
		answers <- r.do("POST", "/bulk/contact", slow, "Content-Type", "multipart/form-data; boundary=x")
	}()
	_, _ = io.WriteString(feed, "--x\r\nContent-Disposition: form-data; name=file\r\n\r\nid\n1\n")
	for len(r.spooled()) == 0 {
		time.Sleep(time.Millisecond)
	}
	if a := r.upload("contact", contacts(1), ""); a.status != 429 || a.header.Get("Retry-After") != "5" {
		t.Errorf("a second upload: %d %s", a.status, a.body)
	}
	_, _ = io.WriteString(feed, "\r\n--x--\r\n")
	_ = feed.Close()
	if a := <-answers; a.status != 200 {
		t.Errorf("the first upload: %d %s", a.status, a.body)
	}
	if a := r.upload("contact", contacts(1), ""); a.status != 200 {
		t.Errorf("an upload after it: %d %s", a.status, a.body)
	}
}

func TestUploadTimeout(t *testing.T) {
	r := start(t, endpoint.Options{Connector: memory.New(memory.Options{}), UploadTimeout: 100 * time.Millisecond})
	slow, feed := io.Pipe()
	defer feed.Close()
	go func() {
		_, _ = io.WriteString(feed, "--x\r\nContent-Disposition: form-data; name=file\r\n\r\nid\n1\n")
	}()
	a := r.do("POST", "/bulk/contact", slow, "Content-Type", "multipart/form-data; boundary=x")
	if a.status != 429 {
		t.Errorf("an upload that takes too long: %d %s", a.status, a.body)
	}
	if n := r.jobs(); n > 0 {
		t.Errorf("it left %d jobs", n)
	}
	r.spoolEmpties()
}

func TestOrderPerObject(t *testing.T) {
	each(t, func(t *testing.T, c endpoint.Connector) {
		t.Helper()
		r := start(t, endpoint.Options{Connector: c, Workers: 4})
		var ids []string
		for range 6 {
			ids = append(ids, fmt.Sprint(r.upload("contact", contacts(200), `{"bulkUploadRecordSize":10}`).object(t)["id"]))
		}
		var last float64
		for _, id := range ids {
			status := r.wait(id)
			if begun := status["bulk_start_time"].(float64); begun < last {
				t.Errorf("job %s began before the one before it had ended", id)
			}
			last = status["bulk_finish_time"].(float64)
		}
	})
}

func TestRestart(t *testing.T) {
	dsn, pool := database(t, contactDDL)
	spool := t.TempDir()
	c := openPostgreSQL(t, dsn, postgresql.Options{})
	r := start(t, endpoint.Options{Connector: c, SpoolDir: spool})
	id := fmt.Sprint(r.upload("contact", contacts(6000), `{"bulkUploadRecordSize":5}`).object(t)["id"])
	for r.get("/bulk/" + id + "/status").object(t)["recordsCount"].(float64) == 0 {
		time.Sleep(time.Millisecond)
	}
	queued := fmt.Sprint(r.upload("contact", contacts(10), "").object(t)["id"])
	r.stop()
	c.Close()
	var rows, mark int
	if err := pool.QueryRow(t.Context(), "select (select count(*) from contact), records from bulk_endpoint.jobs where id = $1", id).Scan(&rows, &mark); err != nil {
		t.Fatal(err)
	}
	if rows != mark || rows == 0 || rows == 6000 {
		t.Fatalf("stopped in the middle: %d rows, mark at %d", rows, mark)
	}
	c = openPostgreSQL(t, dsn, postgresql.Options{})
	t.Cleanup(c.Close)
	r = start(t, endpoint.Options{Connector: c, SpoolDir: spool})
	if diff := cmp.Diff([]string{"COMPLETE 6000/0", "COMPLETE 10/0"}, []string{outcome(r.wait(id)), outcome(r.wait(queued))}); diff != "" {
		t.Errorf("-want, +got:\n%s", diff)
	}
	var distinct int
	if err := pool.QueryRow(t.Context(), "select count(*), count(distinct id) from contact").Scan(&rows, &distinct); err != nil {
		t.Fatal(err)
	}
	if rows != 6010 || distinct != 6000 {
		t.Errorf("%d rows, %d different", rows, distinct)
	}
}

func TestLostSpool(t *testing.T) {
	dsn, _ := database(t, contactDDL)
	c := openPostgreSQL(t, dsn, postgresql.Options{})
	t.Cleanup(c.Close)
	r := start(t, endpoint.Options{Connector: c, ProcessingDelay: time.Hour})
	id := fmt.Sprint(r.upload("contact", contacts(3), "").object(t)["id"])
	r.stop()
	r = start(t, endpoint.Options{Connector: c})
	if diff := cmp.Diff("ABORTED 0/0 the file was lost before all of it was loaded", outcome(r.wait(id))); diff != "" {
		t.Errorf("-want, +got:\n%s", diff)
	}
}

func TestNewRefuses(t *testing.T) {
	c := memory.New(memory.Options{})
	taken := t.TempDir()
	start(t, endpoint.Options{Connector: c, SpoolDir: taken})
	cases := map[string]struct {
		reason  string
		options endpoint.Options
		want    string
	}{
		"NoToken":   {"there are no default secrets", endpoint.Options{Connector: c, UserSecret: "u", SpoolDir: t.TempDir()}, "without an element token"},
		"NoSecret":  {"nor a default user", endpoint.Options{Connector: c, ElementToken: "e", SpoolDir: t.TempDir()}, "and a user secret"},
		"Comma":     {"no client could send it", endpoint.Options{Connector: c, ElementToken: "e,", UserSecret: "u", SpoolDir: t.TempDir()}, "comma"},
		"Connector": {"there is nothing to load into", endpoint.Options{ElementToken: "e", UserSecret: "u", SpoolDir: t.TempDir()}, "without a connector"},
		"Dialect":   {"dialects are a closed set", endpoint.Options{Connector: c, ElementToken: "e", UserSecret: "u", Dialect: "x", SpoolDir: t.TempDir()}, `dialect "x"`},
		"Spool":     {"there is nowhere to spool", endpoint.Options{Connector: c, ElementToken: "e", UserSecret: "u"}, "without a spool folder"},
		"Shared":    {"two would sweep each other's files", endpoint.Options{Connector: c, ElementToken: "e", UserSecret: "u", SpoolDir: taken}, "another process holds it"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if _, err := endpoint.New(context.Background(), tc.options); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: want %q, got %v", tc.reason, tc.want, err)
			}
		})
	}
}

func TestRowsPages(t *testing.T) {
	r := start(t, endpoint.Options{Connector: memory.New(memory.Options{})})
	r.load("contact", contacts(5), "")
	var pages []string
	for token, more := "", true; more; {
		a := r.get("/hubs/crm/contact?pageSize=2&nextPage=" + token)
		var page strings.Builder
		for _, row := range a.list(t) {
			fmt.Fprint(&page, row["id"])
		}
		pages = append(pages, page.String())
		token = a.header.Get("Elements-Next-Page-Token")
		more = token != ""
	}
	if diff := cmp.Diff([]string{"12", "34", "5"}, pages); diff != "" {
		t.Errorf("-want, +got:\n%s", diff)
	}
	if a := r.get("/bad"); a.status != 404 {
		t.Errorf("an unknown object: %d %s", a.status, a.body)
	}
}
