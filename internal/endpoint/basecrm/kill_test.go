package basecrm_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"bulkjob.dev/operator/internal/endpoint/basecrm/crmtest"
)

// process is the real program.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	log bytes.Buffer
	url string
}

func launch(t *testing.T, binary, crm, dir string) *process {
	t.Helper()
	portFile := filepath.Join(dir, "port")
	_ = os.Remove(portFile)
	p := &process{t: t, cmd: exec.Command(binary, "-connector=basecrm", "-basecrm-url="+crm, "-basecrm-rate=5000", "-listen=127.0.0.1:0",
		"-port-file="+portFile, "-spool-dir="+filepath.Join(dir, "spool"))}
	p.cmd.Env = append(os.Environ(), "BULK_ENDPOINT_ELEMENT_TOKEN=e", "BULK_ENDPOINT_USER_SECRET=u", "BULK_ENDPOINT_BASECRM_TOKEN=crm")
	p.cmd.Stderr = &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if address, err := os.ReadFile(portFile); err == nil {
			p.url = "http://" + strings.TrimSpace(string(address)) + "/elements/api-v2"
			return p
		}
	}
	t.Fatalf("the program doesn't listen: %s", p.log.String())
	return nil
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func (p *process) ask(method, path string, body io.Reader, contentType string, to any) {
	p.t.Helper()
	request, err := http.NewRequest(method, p.url+path, body)
	if err != nil {
		p.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Element e, User u")
	request.Header.Set("Content-Type", contentType)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		p.t.Fatal(err)
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(to); err != nil || answer.StatusCode != http.StatusOK {
		p.t.Fatalf("%s %s: %s, %v", method, path, answer.Status, err)
	}
}

type status struct {
	Status  string
	Records int `json:"recordsCount"`
	Failed  int `json:"recordsFailedCount"`
}

func (p *process) status(id string) (s status) {
	p.t.Helper()
	p.ask("GET", "/bulk/"+id+"/status", nil, "", &s)
	return s
}

func (p *process) upload(file, metaData string) string {
	p.t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	_ = form.WriteField("metaData", metaData)
	part, _ := form.CreateFormFile("file", "contacts.csv")
	_, _ = io.WriteString(part, file)
	_ = form.Close()
	var job struct{ ID string }
	p.ask("POST", "/bulk/contacts", &body, form.FormDataContentType(), &job)
	return job.ID
}

// A process killed with -9 at any moment of a load writes no row twice, and reports each row that it doesn't know of.
func TestKill(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "bulk-endpoint")
	build := exec.Command("go", "build", "-trimpath", "-o", binary, "bulkjob.dev/operator/cmd/bulk-endpoint")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build compiles it
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const rows, kills = 1000, 8
	var file strings.Builder
	file.WriteString("last_name,phone\n")
	for i := 1; i <= rows; i++ {
		fmt.Fprintf(&file, "Name %d,%d\n", i, i)
	}
	for _, action := range []struct{ name, metaData string }{
		{"create", `{"callback-payload":"once"}`}, {"upsert", `{"callback-payload":"once","action":"upsert","primaryKeyName":"phone"}`},
	} {
		t.Run(action.name, func(t *testing.T) {
			crm := crmtest.New(crmtest.Options{Token: "crm", Fault: func(r crmtest.Request) crmtest.Fault {
				return crmtest.Fault{Delay: time.Duration(r.N%3) * time.Millisecond}
			}})
			web := httptest.NewServer(crm)
			defer web.Close()
			dir := t.TempDir()
			p := launch(t, binary, web.URL, dir)
			id := p.upload(file.String(), action.metaData)
			for kill := 1; kill <= kills; kill++ {
				for p.status(id).Records < rows*kill/(kills+1) {
					time.Sleep(time.Millisecond)
				}
				time.Sleep(time.Duration(kill*300) * time.Microsecond) // somewhere in a row's way
				p.kill()
				p = launch(t, binary, web.URL, dir)
			}
			for p.status(id).Status != "COMPLETE" {
				time.Sleep(5 * time.Millisecond)
			}
			check(t, p, id, crm, rows, kills, action.name == "create")
			if again := p.upload(file.String(), action.metaData); again != id {
				t.Errorf("the same token made job %s", again)
			}
		})
	}
}

func check(t *testing.T, p *process, id string, crm *crmtest.Server, rows, kills int, create bool) {
	t.Helper()
	var failed []struct {
		Row    int    `json:"rowNum"`
		Status string `json:"status"`
	}
	p.ask("GET", "/bulk/"+id+"/errors", nil, "", &failed)
	reported := map[string]bool{}
	for _, e := range failed {
		reported[strconv.Itoa(e.Row)] = true
		if !strings.HasPrefix(e.Status, "not known whether it was written") {
			t.Errorf("row %d: %s", e.Row, e.Status)
		}
	}
	seen := map[string]bool{}
	for _, record := range crm.Records("contacts") {
		row := record["phone"].(string)
		if seen[row] {
			t.Errorf("row %s was written twice", row)
		}
		seen[row] = true
	}
	for i := 1; i <= rows; i++ {
		if row := strconv.Itoa(i); !seen[row] && !reported[row] {
			t.Errorf("row %d is neither written nor reported", i)
		}
	}
	s := p.status(id)
	if s.Records != rows || s.Failed != len(failed) || len(failed) > kills || !create && len(failed) > 0 {
		t.Errorf("%+v, %d errors", s, len(failed))
	}
	t.Logf("killed %d times: %d records of %d rows, %d in doubt, none twice", kills, len(seen), rows, len(failed))
}
