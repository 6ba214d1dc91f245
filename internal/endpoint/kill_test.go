package endpoint_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// process is the real program.
type process struct {
	cmd *exec.Cmd
	log bytes.Buffer
}

func launch(t *testing.T, binary, dsn, dir string) (*process, *rig) {
	t.Helper()
	portFile := filepath.Join(dir, "port")
	_ = os.Remove(portFile)
	p := &process{cmd: exec.Command(binary, "-connector=postgresql", "-listen=127.0.0.1:0", "-port-file="+portFile,
		"-spool-dir="+filepath.Join(dir, "spool"))}
	p.cmd.Env = append(os.Environ(), "BULK_ENDPOINT_ELEMENT_TOKEN=token=", "BULK_ENDPOINT_USER_SECRET=secret=", "BULK_ENDPOINT_DATABASE_URL="+dsn)
	p.cmd.Stderr = &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if address, err := os.ReadFile(portFile); err == nil {
			addr := strings.TrimSpace(string(address))
			return p, &rig{t: t, url: "http://" + addr + "/elements/api-v2", addr: addr, spool: filepath.Join(dir, "spool")}
		}
	}
	t.Fatalf("the program doesn't listen: %s", p.log.String())
	return nil, nil
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// A process killed at any moment of a load repeats no row and loses none.
func TestKill(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "bulk-endpoint")
	build := exec.Command("go", "build", "-trimpath", "-o", binary, "bulkjob.dev/operator/cmd/bulk-endpoint")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build compiles it
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const rows = 200_000
	file := csvFile("id,name,email", rows, func(i int) string {
		if i%20_000 == 0 {
			return fmt.Sprintf("bad %d,,", i)
		}
		return fmt.Sprintf("%d,Name %d,%d@example.com", i, i, i)
	})
	dsn, pool := database(t, contactDDL)
	dir := t.TempDir()
	p, r := launch(t, binary, dsn, dir)
	id := fmt.Sprint(r.upload("contact", file, `{"bulkUploadRecordSize":500,"callback-payload":"once"}`).object(t)["id"])
	if _, err := os.Create(filepath.Join(r.spool, "orphan.part")); err != nil {
		t.Fatal(err)
	}
	marks := []float64{}
	for kill := 1; kill <= 6; kill++ {
		target := float64(rows * kill / 8)
		for r.get("/bulk/" + id + "/status").object(t)["recordsCount"].(float64) < target {
			time.Sleep(time.Duration(kill) * time.Millisecond)
		}
		p.kill()
		var mark float64
		if err := pool.QueryRow(t.Context(), "select records from bulk_endpoint.jobs where id = $1", id).Scan(&mark); err != nil {
			t.Fatal(err)
		}
		p, r = launch(t, binary, dsn, dir)
		if mark < target || mark >= rows {
			t.Fatalf("killed near row %.0f, yet the mark is at %.0f: nothing was proven", target, mark)
		}
		marks = append(marks, mark)
	}
	t.Logf("killed six times; after each the mark stood at %.0f", marks)
	if diff := cmp.Diff("COMPLETE 200000/10", outcome(r.wait(id))); diff != "" {
		t.Errorf("-want, +got:\n%s", diff)
	}
	if got := table(t, pool, "select count(*), count(distinct id), min(id), max(id) from contact")[0]; got != "199990|199990|1|199999" {
		t.Errorf("rows, different ids, first, last: %s", got)
	}
	if got := len(r.errorLines(id)); got != 10 {
		t.Errorf("%d errors", got)
	}
	if again := r.upload("contact", file, `{"callback-payload":"once"}`).object(t)["id"]; again != id {
		t.Errorf("the same token made job %v", again)
	}
	r.spoolEmpties()
}
