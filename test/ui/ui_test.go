// Package ui_test looks at the endpoint's status page as people do: the real endpoint, and a real browser.
package ui_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bulkjob.dev/operator/test/stage"
)

const password = "look, don't touch"

var (
	picture = flag.String("picture", "", "`file` to write a picture of the list to")

	bin    string
	shared *browser
)

func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "6") // they wait most of the time
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "The status page cannot be tested:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "bulkjob-ui-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	bin = filepath.Join(dir, "bin") + string(filepath.Separator)
	// The flags of make build, so that the two share what is compiled.
	build := exec.Command("go", "build", "-trimpath", "-o", bin, "./cmd/bulk-endpoint")
	build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("cannot build the endpoint: %w: %s", err, out)
	}
	if shared, err = startBrowser(dir); err != nil {
		return 1, err
	}
	defer shared.close()
	return m.Run(), nil
}

// world is a running endpoint with its page, and somebody who loads.
type world struct {
	*stage.Endpoint

	t *testing.T
}

func start(t *testing.T, args ...string) *world {
	t.Helper()
	t.Parallel()
	return startAnew(t, args...)
}

func startAnew(t *testing.T, args ...string) *world {
	t.Helper()
	dir := t.TempDir()
	secret := filepath.Join(dir, "password")
	if err := os.WriteFile(secret, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := stage.StartEndpoint(t.Context(), bin, dir, "", append([]string{"-ui", "-ui-password-file=" + secret}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Kill)
	return &world{Endpoint: e, t: t}
}

func (w *world) page(path string) string { return "http://" + w.Address() + "/ui" + path }

// load uploads a file, and returns the job's id.
func (w *world) load(object, file string) string {
	w.t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, _ := form.CreateFormFile("file", "sample.csv")
	_, _ = part.Write([]byte(file))
	_ = form.Close()
	return w.ask(http.MethodPost, "/bulk/"+url.PathEscape(object), &body, form.FormDataContentType())
}

func (w *world) ask(method, path string, body *bytes.Buffer, contentType string) (id string) {
	w.t.Helper()
	r, err := http.NewRequest(method, w.URL()+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Element "+w.Element+", User "+w.User)
	r.Header.Set("Content-Type", contentType)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer answer.Body.Close()
	var job struct {
		ID string `json:"id"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&job); err != nil || answer.StatusCode != http.StatusOK {
		w.t.Fatalf("%s %s: %s %v", method, path, answer.Status, err)
	}
	return job.ID
}

// ends waits until no job runs.
func (w *world) ends(jobs ...string) {
	w.t.Helper()
	for deadline := time.Now().Add(45 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		all, err := w.Jobs(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		running := slices.ContainsFunc(all, func(job map[string]any) bool {
			_, ended := job["completion_time"]
			return slices.Contains(jobs, fmt.Sprintf("%.0f", job["id"])) && !ended
		})
		if !running {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the jobs don't end: %v", all)
		}
	}
}

const contacts = "id,name\n1,Ann\n2,Ben\n3,Cleo\n"

// Of the page: the words of all states from the top, and the line that says of when it is.
const (
	states = `[...document.querySelectorAll('.state')].map((state) => state.innerText)`
	now    = `document.querySelector('.now').innerText`
)

// calm checks that a page was loaded once, after one question for the password, and that the browser finds no fault with it.
func (p *tab) calm() {
	p.t.Helper()
	loads, asked, complaints := p.noted()
	if loads != 1 || asked != 1 {
		p.t.Errorf("the page was loaded %d times, and the password asked for %d times", loads, asked)
	}
	for _, complaint := range complaints {
		if !strings.Contains(complaint, "401") { // the first answer, before the password
			p.t.Errorf("the browser complains: %s", complaint)
		}
	}
}

// A job is seen to come, to run and to end in a list that is loaded once.
func TestLive(t *testing.T) {
	w := start(t, "-processing-delay=4s")
	p := open(t, shared, password)
	p.visit(w.page(""))
	id := w.load("contact", contacts)
	var seen []string
	p.until("the job is shown as COMPLETE", func() bool {
		for _, state := range eval[[]string](p, states) {
			if len(seen) == 0 || seen[len(seen)-1] != state {
				seen = append(seen, state)
			}
		}
		return slices.Contains(seen, "COMPLETE")
	})
	if got := strings.Join(seen, " "); got != "CREATED RUNNING COMPLETE" && got != "RUNNING COMPLETE" {
		t.Errorf("the states shown are %s", got)
	}
	p.calm()
	p.do("Runtime.evaluate", object{"expression": "document.querySelector('td a').click()"})
	p.until("the link to the job is followed", func() bool {
		return eval[string](p, "location.pathname") == "/ui/jobs/"+id && strings.Contains(p.text(), "No row has failed")
	})
}

// A job's own page tells of its end, and then asks no more.
func TestLiveJob(t *testing.T) {
	w := start(t, "-processing-delay=1h")
	id := w.load("contact", contacts)
	p := open(t, shared, password)
	p.visit(w.page("/jobs/" + id))
	if got := eval[[]string](p, states); len(got) != 1 || got[0] != "CREATED" {
		t.Errorf("the state is %v", got)
	}
	w.ask(http.MethodPut, "/bulk/"+id+"/cancel", &bytes.Buffer{}, "")
	p.until("the job is shown as CANCELLED", func() bool {
		now := eval[[]string](p, states)
		return len(now) == 1 && now[0] == "CANCELLED"
	})
	if title := eval[string](p, "document.title"); title != "Job "+id+": CANCELLED · bulk-endpoint" {
		t.Errorf("the title is %q", title)
	}
	before := eval[string](p, now)
	time.Sleep(3 * time.Second)
	if eval[string](p, now) != before {
		t.Error("it is still asked for, and can't change any more")
	}
	p.calm()
}

func TestStrangersSeeNothing(t *testing.T) {
	w := start(t)
	w.ends(w.load("contact", contacts))
	for _, wrong := range []string{"", "look, dont touch"} {
		p := open(t, shared, wrong)
		p.visit(w.page(""))
		if text := p.text(); strings.Contains(text, "contact") || !strings.Contains(text, "needs its password") {
			t.Errorf("with the password %q it says %q", wrong, text)
		}
	}
}

// Without scripts the browser loads the page again by itself.
func TestWithoutScripts(t *testing.T) {
	w := start(t)
	p := open(t, shared, password)
	p.do("Emulation.setScriptExecutionDisabled", object{"value": true})
	p.visit(w.page(""))
	w.load("contact", contacts)
	p.until("the job is shown as COMPLETE", func() bool { return slices.Contains(eval[[]string](p, states), "COMPLETE") })
	p.until("the browser says that it has loaded it again", func() bool { // which is after its content is there
		loads, _, _ := p.noted()
		return loads > 1
	})
}

const evil = `"><img src=x onerror="document.title='in'"><script>document.title='in'</script><a href="javascript:1">`

// What others wrote is shown as text, also after the page has put it there by itself.
func TestHostileWords(t *testing.T) {
	w := start(t)
	list, job := open(t, shared, password), open(t, shared, password)
	list.visit(w.page(""))
	id := w.load(evil, contacts) // there is no such object, which each row's error says
	job.visit(w.page("/jobs/" + id))
	for path, p := range map[string]*tab{"": list, "/jobs/" + id: job} {
		p.until("the job is shown as COMPLETE", func() bool { return slices.Contains(eval[[]string](p, states), "COMPLETE") })
		if text := p.text(); !strings.Contains(text, evil[:90]) {
			t.Errorf("%s doesn't show the words: %s", path, text)
		}
		if path != "" && !strings.Contains(p.text(), `there is no object "\"><img`) {
			t.Errorf("the errors aren't shown: %s", p.text())
		}
		if title := eval[string](p, "document.title"); title == "in" {
			t.Errorf("%s has run what others wrote", path)
		}
		if n := eval[int](p, "document.querySelectorAll('img, main script, [onerror], a[href^=javascript]').length"); n != 0 {
			t.Errorf("%s has made %d elements of what others wrote", path, n)
		}
	}
}

// Even if something were smuggled into the page, it would neither run nor tell anybody.
func TestPolicyHolds(t *testing.T) {
	w := start(t)
	called := make(chan string, 10)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/frame" && r.URL.Path != "/favicon.ico" {
			called <- r.URL.Path
		}
		rw.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(rw, `<iframe src="%s"></iframe>`, w.page(""))
	}))
	defer elsewhere.Close()
	p := open(t, shared, password)
	p.visit(w.page(""))
	for name, tt := range map[string]struct{ reason, expression, want string }{
		"Inline": {"only our own script runs", `(() => {
			const s = document.createElement('script');
			try { s.textContent = "window.hit = 'ran'"; document.body.append(s) } catch (e) { return e.name }
			return String(window.hit) })()`, "TypeError"},
		"HTML":    {"no string becomes elements", `(() => { try { document.body.innerHTML = '<b>'; return 'made' } catch (e) { return e.name } })()`, "TypeError"},
		"Handler": {"no attribute runs", `(() => { try { document.body.setAttribute('onclick', "window.hit = 'ran'"); document.body.click() } catch (e) { return e.name } return String(window.hit) })()`, "TypeError"},
		"Fetch":   {"nothing is sent elsewhere", `fetch('` + elsewhere.URL + `/fetch', {mode: 'no-cors'}).then(() => 'sent', (e) => e.name)`, "TypeError"},
		"Image": {"nor by an image", `new Promise((done) => { const i = new Image(); i.onload = () => done('shown'); i.onerror = () => done('refused');
			i.src = '` + elsewhere.URL + `/image' })`, "refused"},
		"Style": {"nor by a style", `(() => { const s = document.createElement('style'); s.textContent = 'body { background: url(` + elsewhere.URL + `/style) }';
			document.head.append(s); return getComputedStyle(document.body).backgroundImage })()`, "none"},
		"Form": {"nor by a form", `(() => { const f = document.createElement('form'); f.action = '` + elsewhere.URL + `/form'; document.body.append(f); f.submit();
			return new Promise((done) => setTimeout(done, 300, location.pathname)) })()`, "/ui"},
	} {
		if got := eval[string](p, tt.expression); got != tt.want {
			t.Errorf("%s: %s: %s, want %s", name, tt.reason, got, tt.want)
		}
	}
	p.visit(elsewhere.URL + "/frame")
	p.until("the browser refuses to frame our page", func() bool {
		_, _, complaints := p.noted()
		return strings.Contains(strings.Join(complaints, " "), "frame-ancestors")
	})
	select {
	case path := <-called:
		t.Errorf("%s was called", path)
	default:
	}
}

// The page says when it isn't fresh, and goes on when the endpoint is back.
func TestEndpointAway(t *testing.T) {
	w := start(t)
	p := open(t, shared, password)
	p.visit(w.page(""))
	shown := func() bool { return eval[bool](p, "document.getElementById('notice').checkVisibility()") }
	if shown() {
		t.Fatal("the page says that it isn't fresh, and has just come")
	}
	if err := w.Stop(30 * time.Second); err != nil {
		t.Fatal(err)
	}
	p.until("the page says that it isn't fresh", shown)
	if text := p.text(); !strings.Contains(text, "No job yet") {
		t.Errorf("what was known is gone: %s", text)
	}
	startAnew(t, "-listen="+w.Address()).load("contact", contacts)
	p.until("the page goes on", func() bool { return !shown() && slices.Contains(eval[[]string](p, states), "COMPLETE") })
}

// Refreshing leaves alone what somebody is about to follow or to copy.
func TestReadersAreLeftAlone(t *testing.T) {
	w := start(t, "-processing-delay=30s")
	id := w.load("contact", contacts)
	p := open(t, shared, password)
	p.visit(w.page(""))
	at := func() string { return eval[string](p, now) }
	p.do("Runtime.evaluate", object{"expression": "window.old = document.querySelector('td a'); old.focus()"})
	before := at()
	p.until("the page is refreshed", func() bool { return at() != before })
	if focus := eval[string](p, "document.activeElement === old ? 'not replaced' : document.activeElement.getAttribute('href')"); focus != "ui/jobs/"+id {
		t.Errorf("the focus is at %s", focus)
	}
	p.do("Runtime.evaluate", object{"expression": "getSelection().selectAllChildren(document.querySelector('.jobs'))"})
	time.Sleep(500 * time.Millisecond) // for an answer that may be under way
	before = at()
	time.Sleep(5 * time.Second)
	if at() != before {
		t.Error("what is selected was replaced")
	}
	p.do("Runtime.evaluate", object{"expression": "getSelection().removeAllRanges()"})
	p.until("the page is refreshed again", func() bool { return at() != before })
}

// everyState makes jobs of all kinds, two of which still have some seconds to go, and returns the one with errors of rows.
func (w *world) everyState() string {
	w.t.Helper()
	partly := w.load("list", "id,name\n1,Ann\n2,Ben,too,much\n3,Cleo\n4\n")
	well := w.load("contact", "id,name\n"+strings.Repeat("1,Ann\n", 20_000))
	badly := w.load("account", "id,name\n1,\"Ann\n")
	cancelled := w.load("contact", contacts)
	w.ask(http.MethodPut, "/bulk/"+cancelled+"/cancel", &bytes.Buffer{}, "")
	w.ends(partly, well, badly, cancelled)
	w.load("contact", contacts)
	w.load("contact", contacts)
	return partly
}

// contrast is the smallest contrast of a text with what is behind it (https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio).
const contrast = `(() => {
	const parts = (color) => color.match(/[\d.]+/g).map(Number);
	const luminance = (color) => {
		const [r, g, b] = parts(color).map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	};
	const behind = (e) => {
		const color = getComputedStyle(e).backgroundColor;
		return parts(color)[3] === 0 ? behind(e.parentElement) : color;
	};
	return [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() && e.innerText).map((e) => {
		const [low, high] = [luminance(getComputedStyle(e).color), luminance(behind(e))].sort((a, b) => a - b);
		return [(high + 0.05) / (low + 0.05), e.outerHTML.slice(0, 80)];
	}).sort((a, b) => a[0] - b[0])[0];
})()`

// All that is shown can be read, by day and by night.
func TestColours(t *testing.T) {
	w := start(t, "-processing-delay=5s", "-workers=4")
	p := open(t, shared, password)
	p.size(1040, 480, 1, false)
	p.visit(w.page(""))
	partly := w.everyState()
	p.until("there is a job in every state", func() bool {
		return slices.Equal(eval[[]string](p, states), []string{"CREATED", "RUNNING", "CANCELLED", "ABORTED", "COMPLETE", "COMPLETE"})
	})
	if *picture != "" {
		p.dark(false)
		p.picture(*picture)
	}
	back := map[string]bool{}
	for _, path := range []string{"", "/jobs/" + partly} {
		if path != "" {
			p.visit(w.page(path))
		}
		for _, dark := range []bool{false, true} {
			p.dark(dark)
			back[eval[string](p, "getComputedStyle(document.body).backgroundColor")] = true
			if worst := eval[[]any](p, contrast); worst[0].(float64) < 4.5 {
				t.Errorf("%s, dark %v: a contrast of %.1f: %s", path, dark, worst[0], worst[1])
			}
		}
	}
	if len(back) != 2 {
		t.Errorf("the backgrounds by day and by night are %v", back)
	}
}

// beyond are elements whose right edge is beyond the width, but for those that only screen readers meet.
const beyond = `[...document.querySelectorAll('body *')].filter((e) => !e.closest('thead') && e.getBoundingClientRect().right > %d + 0.5).map((e) => e.outerHTML.slice(0, 80))`

// Nothing has to be moved sideways, on no screen and whatever is shown.
func TestWidths(t *testing.T) {
	w := start(t)
	long := w.load(strings.Repeat("W", 255), contacts)
	failing := w.load("list", "id,name\n"+strings.Repeat("2,Ben,too,much\n", 300))
	w.ends(long, failing)
	p := open(t, shared, password)
	for _, width := range []int{320, 360, 412, 768, 800, 1024, 1440} {
		p.size(width, 740, 1, width < 500)
		for _, path := range []string{"", "/jobs/" + long, "/jobs/" + failing, "/jobs/1"} {
			p.visit(w.page(path))
			if got := eval[int](p, "document.documentElement.scrollWidth"); got > width {
				t.Errorf("%s is %d pixels wide on a screen of %d", path, got, width)
			}
			if inner := eval[int](p, "innerWidth"); inner != width {
				t.Errorf("%s is laid out for %d pixels on a screen of %d", path, inner, width)
			}
			if out := eval[[]string](p, fmt.Sprintf(beyond, width)); len(out) > 0 {
				t.Errorf("%s: beyond the edge of %d pixels: %v", path, width, out)
			}
		}
		if small := eval[float64](p, "Math.min(...[...document.querySelectorAll('body *')].map((e) => parseFloat(getComputedStyle(e).fontSize)))"); small < 12 {
			t.Errorf("letters of %v pixels", small)
		}
	}
}

// A page that nobody has asked for isn't there.
func TestOffByDefault(t *testing.T) {
	e, err := stage.StartEndpoint(context.Background(), bin, t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Kill()
	p := open(t, shared, password)
	p.visit("http://" + e.Address() + "/ui")
	if text := p.text(); !strings.Contains(text, "Invalid Organization or User secret") || strings.Contains(text, "Jobs") {
		t.Errorf("it says %q", text)
	}
}
