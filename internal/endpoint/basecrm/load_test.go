package basecrm

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"bulkjob.dev/operator/internal/endpoint"
	"bulkjob.dev/operator/internal/endpoint/basecrm/crmtest"
)

// seeds is the object of the vendor's own example, as somebody may describe it.
var seeds = map[string]Object{"contact": {
	Resource: "contacts",
	Columns: map[string]string{
		"C_EmailAddress": "email", "C_FirstName": "first_name", "C_LastName": "last_name", "C_Company": "custom_fields.Company",
		"C_City": "address.city", "C_Staff": "custom_fields.Staff No.",
	},
	Types: map[string]string{"Staff No.": "number", "VIP": "boolean"},
}}

// posts is a fault for the nth POST, and nothing for any other request.
func posts(faults map[int]crmtest.Fault) func(crmtest.Request) crmtest.Fault {
	n := 0
	return func(r crmtest.Request) crmtest.Fault {
		if r.Method != http.MethodPost {
			return crmtest.Fault{}
		}
		n++
		return faults[n]
	}
}

func people(n int) string {
	var b strings.Builder
	b.WriteString("last_name,email\n")
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, "Name %d,%d@example.com\n", i, i)
	}
	return b.String()
}

const byEmail = `{"action":"upsert","primaryKeyName":"email"}`

func TestLoads(t *testing.T) {
	type want struct {
		Outcome string
		Errors  []string
		Records []string
	}
	three := []string{
		`{"email":"1@example.com","last_name":"Name 1"}`, `{"email":"2@example.com","last_name":"Name 2"}`, `{"email":"3@example.com","last_name":"Name 3"}`,
	}
	const looked = ": look before you load it again"
	cases := map[string]struct {
		reason, object, file, metaData string
		crm                            crmtest.Options
		want                           want
	}{
		"Values": {
			reason: "text becomes what the API wants: numbers, booleans, lists, nested objects; NULL is left out, and an empty string isn't NULL",
			object: "contacts",
			file: "last_name,first_name,owner_id,is_organization,tags,address.city,custom_fields.a.b,title\n" +
				"\"O\"\"Hara, J.\nJr\",,17,false,\"x, y\",Berlin,c d,\"\"\n",
			want: want{"COMPLETED 1/0", nil, []string{
				`{"address":{"city":"Berlin"},"custom_fields":{"a.b":"c d"},"is_organization":false,"last_name":"O\"Hara, J.\nJr","owner_id":17,"tags":["x","y"],"title":""}`,
			}},
		},
		"JSON": {
			reason: "rows of JSON find their types too; null and a missing key are left out", object: "contacts", metaData: `{"format":"json"}`,
			file: `[{"last_name":"A","tags":["x, y","z"],"is_organization":false,"owner_id":17,"phone":null},{"last_name":"B","phone":"1","address.city":"Ulm"}]`,
			want: want{"COMPLETED 2/0", nil, []string{
				`{"is_organization":false,"last_name":"A","owner_id":17,"tags":["x, y","z"]}`, `{"address":{"city":"Ulm"},"last_name":"B","phone":"1"}`,
			}},
		},
		"Described": {
			reason: "columns may have names of their own, and custom fields types",
			object: "contact", file: "C_LastName,C_Company,C_City,C_Staff,custom_fields.VIP,phone\nDoe,Acme,Ulm,7.50,TRUE,1\n",
			want: want{"COMPLETED 1/0", nil, []string{
				`{"address":{"city":"Ulm"},"custom_fields":{"Company":"Acme","Staff No.":7.5,"VIP":true},"last_name":"Doe","phone":"1"}`,
			}},
		},
		"Misfits": {
			reason: "a value that doesn't fit costs its row, and is shown nowhere; no request is made for it",
			object: "tasks",
			file: "content,due_date,completed,resource_id\nok,2026-01-31,1,5\nb,soon-canary,,\nc,,maybe-canary,\nd,,,1.5canary\n" +
				"e,,\nf\xff,,,\ng,2026-01-31T08:00:00+01:00,0,\n",
			want: want{"COMPLETED 7/5", []string{
				"2 column due_date: not a time like 2026-01-31T08:00:00Z", "3 column completed: neither true nor false",
				"4 column resource_id: not a whole number", "5 bad CSV: the row has 3 fields, the header 4", "6 column content: invalid UTF-8",
			}, []string{
				`{"completed":true,"content":"ok","due_date":"2026-01-31T00:00:00Z","resource_id":5}`,
				`{"completed":false,"content":"g","due_date":"2026-01-31T07:00:00Z"}`,
			}},
		},
		"Deals": {
			reason: "a deal's value travels as a string, as the vendor's client sends it; a needed value must be there",
			object: "deals", file: "name,contact_id,value,hot,estimated_close_date\nBig,1,12.50,true,2026-03-01\nNone,,1,,\n",
			want: want{"COMPLETED 2/1", []string{"2 column contact_id: a value is needed"}, []string{
				`{"contact_id":1,"estimated_close_date":"2026-03-01","hot":true,"name":"Big","value":"12.50"}`,
			}},
		},
		"Refused": {
			reason: "the API's refusals become row errors, by code and column; the rows around them are written",
			object: "contact", crm: crmtest.Options{UniqueEmails: true},
			file: "C_LastName,C_EmailAddress\nA,a@x\n,b@x\nC,a@x\n\"\",d@x\nE,e@x\n",
			want: want{"COMPLETED 5/3", []string{
				"2 422: missing, column C_LastName", "3 422: already exists, column C_EmailAddress", "4 422: blank, column C_LastName",
			}, []string{`{"email":"a@x","last_name":"A"}`, `{"email":"e@x","last_name":"E"}`}},
		},
		"Upsert": {
			reason: "records are matched by one column; the last row of a key wins, and what is NULL stays",
			object: "contacts", metaData: byEmail, file: "last_name,email,phone\nA,a@x,1\nB,b@x,2\nC,a@x,\n\"D & E\",d+e@x,\n,,9\n",
			want: want{"COMPLETED 5/1", []string{"5 column email: the row has no key"}, []string{
				`{"email":"a@x","last_name":"C","phone":"1"}`, `{"email":"b@x","last_name":"B","phone":"2"}`, `{"email":"d+e@x","last_name":"D \u0026 E"}`,
			}},
		},
		"UpsertCustom": {
			reason: "a custom field is a key as well",
			object: "contact", metaData: `{"action":"upsert","primaryKeyName":"C_Staff"}`, file: "C_Staff,C_LastName,C_Company\n7,A,X\n8,B,X\n7,C,\n",
			want: want{"COMPLETED 3/0", nil, []string{
				`{"custom_fields":{"Company":"X","Staff No.":7},"last_name":"C"}`, `{"custom_fields":{"Company":"X","Staff No.":8},"last_name":"B"}`,
			}},
		},
		"Columns": {
			reason: "unknown columns end the job before any row",
			object: "contacts", file: "last_name,a,b,c,d,e,f\n1,2,3,4,5,6,7\n",
			want: want{`ABORTED 0/0 contacts has no column "a", "b", "c", "d", "e" and 1 more`, nil, nil},
		},
		"ReadOnly": {
			reason: "what only the API sets can't be loaded", object: "contacts", file: "last_name,created_at\nA,2026-01-01\n",
			want: want{`ABORTED 0/0 column "created_at" of contacts can only be read`, nil, nil},
		},
		"Twice": {
			reason: "two columns can't be one attribute", object: "contact", file: "C_LastName,last_name\nA,B\n",
			want: want{`ABORTED 0/0 columns "C_LastName" and "last_name" are both last_name of contact`, nil, nil},
		},
		"Needed": {
			reason: "a file without a column that each record needs", object: "deals", file: "name\nA\n",
			want: want{`ABORTED 0/0 deals needs a column "contact_id", and the file has none`, nil, nil},
		},
		"NoUpsert": {
			reason: "notes have no upsert", object: "notes", metaData: `{"action":"upsert","primaryKeyName":"content"}`, file: "content\nA\n",
			want: want{`ABORTED 0/0 notes can only be created: Base CRM has no upsert of notes`, nil, nil},
		},
		"NoKey": {
			reason: "the key must be a column", object: "contacts", metaData: byEmail, file: "last_name\nA\n",
			want: want{`ABORTED 0/0 the file has no column "email" to match by`, nil, nil},
		},
		"ListKey": {
			reason: "a list is no key", object: "contacts", metaData: `{"action":"upsert","primaryKeyName":"tags"}`, file: "last_name,tags\nA,x\n",
			want: want{`ABORTED 0/0 contacts can't be matched by column "tags"`, nil, nil},
		},
		"TooMany": {
			reason: "429 says that nothing was written: the row is sent again", object: "contacts", file: people(3),
			crm:  crmtest.Options{Fault: posts(map[int]crmtest.Fault{2: {Status: 429, RetryAfter: "7"}, 3: {Status: 429}, 4: {Status: 429, RetryAfter: "Thu, 01 Jan 1970 00:00:00 GMT"}})},
			want: want{"COMPLETED 3/0", nil, three},
		},
		"Error500Before": {
			reason: "a create that failed at the server may have been written: it isn't sent again", object: "contacts", file: people(3),
			crm:  crmtest.Options{Fault: posts(map[int]crmtest.Fault{2: {Status: 500}})},
			want: want{"COMPLETED 3/1", []string{"2 not known whether it was written (it answered 500 server error)" + looked}, []string{three[0], three[2]}},
		},
		"Error500After": {
			reason: "… and here it was", object: "contacts", file: people(3),
			crm:  crmtest.Options{Fault: posts(map[int]crmtest.Fault{2: {Status: 502, Body: "<html>Bad Gateway</html>", Write: true}})},
			want: want{"COMPLETED 3/1", []string{"2 not known whether it was written (it answered 502)" + looked}, three},
		},
		"Reset": {
			reason: "a broken connection tells nothing", object: "contacts", file: people(3),
			crm: crmtest.Options{Fault: posts(map[int]crmtest.Fault{1: {Reset: true}, 2: {Reset: true, Write: true}})},
			want: want{"COMPLETED 3/2", []string{
				"1 not known whether it was written (the connection broke)" + looked, "2 not known whether it was written (the connection broke)" + looked,
			}, three[1:]},
		},
		"Slow": {
			reason: "an answer that doesn't come tells nothing either", object: "contacts", file: people(3),
			crm:  crmtest.Options{Fault: posts(map[int]crmtest.Fault{2: {Delay: 2 * time.Minute}, 3: {Delay: 50 * time.Second}})},
			want: want{"COMPLETED 3/1", []string{"2 not known whether it was written (no answer in time)" + looked}, []string{three[0], three[2], three[1]}},
		},
		"HTML": {
			reason: "a page with status 200 isn't the API's word for success", object: "contacts", file: people(3),
			crm:  crmtest.Options{Fault: posts(map[int]crmtest.Fault{2: {Status: 200, Body: "<html>Welcome</html>"}})},
			want: want{"COMPLETED 3/1", []string{"2 not known whether it was written (it answered 200)" + looked}, []string{three[0], three[2]}},
		},
		"Page400": {
			reason: "a refusal in no known form is still one", object: "contacts", file: people(3),
			crm:  crmtest.Options{Fault: posts(map[int]crmtest.Fault{2: {Status: 413, Body: "<html>canary</html>"}})},
			want: want{"COMPLETED 3/1", []string{"2 413: refused without a reason"}, []string{three[0], three[2]}},
		},
		"UpsertAgain": {
			reason: "an upsert is sent again until it is known to have been written", object: "contacts", metaData: byEmail, file: people(3),
			crm: crmtest.Options{Fault: posts(map[int]crmtest.Fault{
				2: {Status: 500}, 3: {Status: 500, Write: true}, 4: {Reset: true}, 5: {Status: 200, Body: "<html>"}, 7: {Status: 429, RetryAfter: "1"},
			})},
			want: want{"COMPLETED 3/0", nil, three},
		},
		"UpsertPoison": {
			reason: "a row that always makes the API fail doesn't hold up the others", object: "contacts", metaData: byEmail, file: people(3),
			crm: crmtest.Options{Fault: func(r crmtest.Request) crmtest.Fault {
				if strings.Contains(r.Body, "Name 2") {
					return crmtest.Fault{Status: 500}
				}
				return crmtest.Fault{}
			}},
			want: want{"COMPLETED 3/1", []string{"2 not known whether it was written (it answered 500 server error)" + looked}, []string{three[0], three[2]}},
		},
		"Ambiguous": {
			reason: "more than one record of a key", object: "contacts", metaData: `{"action":"upsert","primaryKeyName":"last_name"}`,
			file: "last_name,email\nA,a@x\n", crm: crmtest.Options{Fault: posts(map[int]crmtest.Fault{1: {
				Status: 409, Body: `{"errors":[{"error":{"code":"conflict","message":"2 match","field":"/last_name"}}]}`,
			}})},
			want: want{"COMPLETED 1/1", []string{"1 409: conflict, column last_name"}, nil},
		},
		"Unauthorized": {
			reason: "a token that isn't taken is no row's fault: the job waits", object: "contacts", file: people(3),
			crm: crmtest.Options{Fault: posts(map[int]crmtest.Fault{
				2: {Status: 401}, 3: {Status: 403}, 4: {Status: 302}, 5: {Status: 404, Body: "<html>"}, 6: {Status: 405, Body: "no"},
			})},
			want: want{"COMPLETED 3/0", nil, three},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, tc.crm, Options{Described: seeds})
				job := r.load(tc.object, tc.file, tc.metaData)
				time.Sleep(5 * time.Minute) // what was slow may still arrive
				resource := r.c.objects[tc.object].path
				got := want{outcome(job), r.errorLines(job.ID), r.records(resource)}
				if diff := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("%s: -want, +got:\n%s\nlog:\n%s", tc.reason, diff, r.log)
				}
				for _, secret := range []string{token, "canary", "example.com"} {
					if strings.Contains(r.log.String()+strings.Join(got.Errors, ""), secret) {
						t.Errorf("%q is in the log or in an error's status:\n%s", secret, r.log)
					}
				}
			})
		})
	}
}

// The response has the API's own words, which may quote a value, as other connectors' do.
func TestResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, crmtest.Options{UniqueEmails: true}, Options{})
		job := r.load("contacts", "last_name,email\nA,a@x\nB,a@x\n", "")
		failed, err := r.c.RowErrors(t.Context(), job.ID, 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		want := []endpoint.RowError{{Row: 2, Status: "422: already exists, column email", Response: "already exists: The value a@x is taken."}}
		if diff := cmp.Diff(want, failed); diff != "" {
			t.Errorf("-want, +got:\n%s", diff)
		}
	})
}

// However long the API is away, one row of a create is in doubt and no more: after it, nothing is sent before the API is well.
func TestOutage(t *testing.T) {
	for _, action := range []struct{ name, metaData, want string }{
		{"create", "", "COMPLETED 30/1"}, {"upsert", byEmail, "COMPLETED 30/0"},
	} {
		t.Run(action.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				away := func() bool {
					since := time.Since(begin)
					return since > 2*time.Second && since < 3*time.Hour
				}
				r := newRig(t, crmtest.Options{Fault: func(crmtest.Request) crmtest.Fault {
					if away() {
						return crmtest.Fault{Status: 503}
					}
					return crmtest.Fault{}
				}}, Options{})
				if got := outcome(r.load("contacts", people(30), action.metaData)); got != action.want {
					t.Errorf("want %s, got %s", action.want, got)
				}
				if n := r.crm.Requests(); n > 300 {
					t.Errorf("%d requests in three hours of failure and one load of 30 rows", n)
				}
			})
		})
	}
}

// What can't be reached wasn't written: the job waits, and no row is in doubt. The log tells why, without the URL, which in
// an upsert has a value of the row.
func TestUnreachable(t *testing.T) {
	for name, metaData := range map[string]string{"create": "", "upsert": byEmail} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, crmtest.Options{}, Options{})
				begin := time.Now()
				r.cut = func() bool { return time.Since(begin) > time.Second && time.Since(begin) < time.Hour }
				job := r.load("contacts", people(30), metaData)
				if got := outcome(job); got != "COMPLETED 30/0" || len(r.crm.Records("contacts")) != 30 {
					t.Errorf("%s, %d records", got, len(r.crm.Records("contacts")))
				}
				if log := r.log.String(); !strings.Contains(log, "cannot put row 1") || !strings.Contains(log, "connection refused") || strings.Contains(log, "example") {
					t.Errorf("log:\n%s", log)
				}
			})
		})
	}
}

// A job that waits for the API can be cancelled, and a process that waits can stop.
func TestWaitingIsNotDeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, crmtest.Options{Fault: posts(map[int]crmtest.Fault{3: {Status: 429, RetryAfter: "3600"}, 5: {Status: 429, RetryAfter: "3600"}})}, Options{})
		server, stop := r.endpoint()
		first := r.upload(server, "contacts", people(20), "")
		time.Sleep(time.Minute)
		if _, err := r.c.Cancel(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if diff := cmp.Diff("CANCELLED 2/0", outcome(r.job(first))); diff != "" {
			t.Errorf("cancelled: -want, +got:\n%s", diff)
		}
		second := r.upload(server, "contacts", people(20), "") // taken, though nothing can be sent now
		time.Sleep(time.Hour)
		begin := time.Now()
		stop()
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("it took %v to stop", took)
		}
		r.c.Close()
		r.open()
		if job := r.job(second); job.Failed != 0 || job.Ended() {
			t.Errorf("stopped while waiting: %s", outcome(job))
		}
		_, stop = r.endpoint()
		defer stop()
		if diff := cmp.Diff("COMPLETED 20/0", outcome(r.wait(second))); diff != "" {
			t.Errorf("after the restart: -want, +got:\n%s", diff)
		}
		if n := len(r.crm.Records("contacts")); n != 22 {
			t.Errorf("%d records", n)
		}
	})
}
