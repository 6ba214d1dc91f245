package endpoint_test

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"bulkjob.dev/operator/internal/endpoint"
	"bulkjob.dev/operator/internal/endpoint/memory"
	"bulkjob.dev/operator/internal/openconnectors"
)

// TestListedToken asserts that a client that lost an answer finds its job in the list, whatever the dialect, without a
// notification URL.
func TestListedToken(t *testing.T) {
	for _, dialect := range endpoint.Dialects {
		t.Run(string(dialect), func(t *testing.T) {
			r := start(t, endpoint.Options{Connector: memory.New(memory.Options{}), Dialect: dialect})
			metaData := map[string]string{
				"string": `{"callback-payload":"br-abc.1.nonce","batchSize":7}`, "object": `{"callback-payload":{"token":"br-abc.2.nonce","x":[1]}}`,
				"other": `{"callback-payload":{"uid":1}}`, "none": "",
			}
			ids := map[string]string{}
			for name, text := range metaData {
				id, ok := r.upload("contact", contacts(1), text).object(t)["id"].(string)
				if !ok {
					id = fmt.Sprintf("%.0f", r.get("/bulk/jobs?pageSize=1").list(t)[0][listedID[dialect]])
				}
				ids[name] = id
			}
			base, err := url.Parse(r.url)
			if err != nil {
				t.Fatal(err)
			}
			client := openconnectors.New(base, "", openconnectors.Credentials{Element: "token=", User: "secret="}, http.DefaultTransport, http.DefaultTransport)
			found, jobs := map[string]string{}, 0
			for job, err := range client.Jobs(t.Context(), "") {
				if err != nil {
					t.Fatal(err)
				}
				jobs++
				for _, token := range []string{"br-abc.1.nonce", "br-abc.2.nonce", "br-abc.3.nonce"} {
					if job.Carries(token) {
						found[token] = job.ID
					}
				}
			}
			if jobs != 4 || len(found) != 2 || found["br-abc.1.nonce"] != ids["string"] || found["br-abc.2.nonce"] != ids["object"] {
				t.Errorf("of %d jobs found %v, want those of %v that have a token", jobs, found, ids)
			}
		})
	}
}

// listedID is the name of a job's id in lists, where answers to uploads have numbers.
var listedID = map[endpoint.Dialect]string{endpoint.DialectV3: "id", endpoint.DialectList0: "job_id", endpoint.DialectList1: "job_id"}
