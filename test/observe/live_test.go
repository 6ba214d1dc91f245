package observe_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"bulkjob.dev/operator/test/stage"
)

var (
	pictureFile = flag.String("picture", "", "draw the dashboard into this PNG file, by Chromium")
	loadFor     = flag.Duration("for", 20*time.Second, "how long the load lasts")
)

const (
	// jobLabel is what the Service that config/rbac makes gives to what is scraped from it.
	jobLabel = "bulkjob-controller-manager-metrics"
	// rateInterval of the queries; a scrape is made every second.
	rateInterval = "20s"
	maxAnswer    = 16 << 20
)

// TestEverythingAskedForIsThere lets a real Prometheus watch a real manager under a load, and asks it all that the dashboard
// and the alerts ask: no panel is empty, and no name or label is one that nobody exports.
func TestEverythingAskedForIsThere(t *testing.T) {
	h := newHouse(t)
	start := time.Now()
	h.load(*loadFor)
	p, d := h.prometheus, theDashboard(t)
	end := time.Now()
	var exprs []string
	drawn := map[int][]line{}
	for _, panel := range d.Panels {
		for _, at := range panel.Targets {
			exprs = append(exprs, at.Expr)
			lines := p.lines(t, query(at.Expr, rateInterval), at.Legend, start, end)
			if len(lines) == 0 {
				t.Errorf("panel %q is empty: %s", panel.Title, at.Expr)
			}
			drawn[panel.ID] = append(drawn[panel.ID], lines...)
		}
	}
	for _, r := range rules(t).Groups[0].Rules {
		exprs = append(exprs, r.Expr)
	}
	p.checkNames(t, exprs)
	p.checkRules(t)
	page := draw(t, d, drawn, start, end)
	if *pictureFile != "" {
		photograph(t, page, *pictureFile)
	}
}

// prometheus is a running one.
type prometheus struct{ url string }

// watch starts a Prometheus that scrapes an address every second, and evaluates the rules.
func watch(t *testing.T, address string) *prometheus {
	t.Helper()
	program, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatal("cannot find prometheus: PATH=$PATH:$(hack/prometheus.sh | tail -n 1)")
	}
	listen, err := stage.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	target := map[string]any{
		"targets": []string{address}, "labels": map[string]string{"namespace": stage.OperatorNamespace, "pod": "bulkjob-controller-manager-0"},
	}
	config := write(t, dir, "prometheus.yaml", map[string]any{
		"global":         map[string]string{"scrape_interval": "1s", "evaluation_interval": "1s"},
		"rule_files":     []string{write(t, dir, "rules.yaml", rules(t))},
		"scrape_configs": []any{map[string]any{"job_name": jobLabel, "static_configs": []any{target}}},
	})
	process, err := stage.StartProcess(filepath.Dir(program), dir, "prometheus", []string{"HOME=" + dir},
		"--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(process.Tail(5))
		}
		process.Kill()
	})
	p := &prometheus{url: "http://" + listen}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		if len(p.try(t.Context(), "up == 1")) > 0 {
			return p
		}
		if time.Now().After(deadline) {
			t.Fatalf("Prometheus does not come to scrape the manager: %s", process.Tail(5))
		}
	}
}

// series is one of an answer's: its values are pairs of a time and a number as text.
type series struct {
	Metric map[string]string    `json:"metric"`
	Value  [2]json.RawMessage   `json:"value"`
	Values [][2]json.RawMessage `json:"values"`
}

// ask asks the API that https://prometheus.io/docs/prometheus/latest/querying/api/ describes.
func (p *prometheus) ask(ctx context.Context, path string, query url.Values, to any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path+"?"+query.Encode(), http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("cannot ask Prometheus: %w", err)
	}
	defer response.Body.Close()
	var answer struct {
		Data  json.RawMessage `json:"data"`
		Error string          `json:"error"`
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&answer); err != nil {
		return fmt.Errorf("cannot read Prometheus's answer (%s): %w", response.Status, err)
	}
	if answer.Error != "" {
		return fmt.Errorf("cannot have an answer of Prometheus: %s", answer.Error)
	}
	return json.Unmarshal(answer.Data, to)
}

// try is what an expression comes to now; nothing if it can't be asked.
func (p *prometheus) try(ctx context.Context, expr string) []series {
	var data struct {
		Result []series `json:"result"`
	}
	if p.ask(ctx, "/api/v1/query", url.Values{"query": {expr}}, &data) != nil {
		return nil
	}
	return data.Result
}

// line is one series as it is drawn.
type line struct {
	name   string
	points []point
}

type point struct{ at, value float64 } // at is in seconds since 1970

var labelInLegend = regexp.MustCompile(`\{\{(\w+)\}\}`)

// lines are the series of an expression that have any number in them. What the legend speaks of must be there.
func (p *prometheus) lines(t *testing.T, expr, legend string, start, end time.Time) []line {
	t.Helper()
	var data struct {
		Result []series `json:"result"`
	}
	step := max(1, int(end.Sub(start).Seconds())/240)
	err := p.ask(t.Context(), "/api/v1/query_range", url.Values{
		"query": {expr}, "start": {stamp(start)}, "end": {stamp(end)}, "step": {strconv.Itoa(step)},
	}, &data)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	var lines []line
	for _, s := range data.Result {
		l := line{name: labelInLegend.ReplaceAllStringFunc(legend, func(label string) string {
			value, ok := s.Metric[strings.Trim(label, "{}")]
			if !ok {
				t.Errorf("%s has no label for the legend %s", expr, legend)
			}
			return value
		})}
		for _, pair := range s.Values {
			if at, ok := number(pair); ok {
				l.points = append(l.points, at)
			}
		}
		if len(l.points) > 0 {
			lines = append(lines, l)
		}
	}
	return lines
}

func stamp(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

// number reads a sample; one that is no number, as of 0/0, is none.
func number(pair [2]json.RawMessage) (point, bool) {
	var at float64
	var text string
	if json.Unmarshal(pair[0], &at) != nil || json.Unmarshal(pair[1], &text) != nil {
		return point{}, false
	}
	value, err := strconv.ParseFloat(text, 64)
	return point{at, value}, err == nil && !math.IsNaN(value) && !math.IsInf(value, 0)
}

// selector is a metric with the labels that are asked of it.
type selector struct {
	metric string
	labels []string
}

var (
	quoted   = regexp.MustCompile(`"[^"]*"`)
	chosen   = regexp.MustCompile(`\b((?:bulkjob|workqueue|process)_[a-z_]+|up)\b(?:\{([^}]*)\})?`)
	matchers = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)`)
)

// selectors finds what an expression selects. What stands in quotes is taken out first.
func selectors(expr string) []selector {
	var all []selector
	for _, found := range chosen.FindAllStringSubmatch(quoted.ReplaceAllString(expr, ""), -1) {
		s := selector{metric: found[1]}
		for _, matcher := range matchers.FindAllStringSubmatch(found[2], -1) {
			s.labels = append(s.labels, matcher[1])
		}
		all = append(all, s)
	}
	return all
}

// checkNames wants each metric that is named anywhere to be exported, with each label that is asked of it.
func (p *prometheus) checkNames(t *testing.T, exprs []string) {
	t.Helper()
	wanted := map[string]bool{}
	for _, expr := range exprs {
		found := selectors(expr)
		if len(found) == 0 {
			t.Errorf("%s selects nothing that is known here", expr)
		}
		for _, s := range found {
			wanted[s.metric] = true
			for _, label := range s.labels {
				wanted[fmt.Sprintf(`%s{%s!=""}`, s.metric, label)] = true
			}
		}
	}
	for _, expr := range slices.Sorted(maps.Keys(wanted)) {
		if len(p.try(t.Context(), "last_over_time("+expr+"[10m])")) == 0 {
			t.Errorf("the manager exports no %s", expr)
		}
	}
}

// checkRules wants Prometheus to have evaluated every alert without an error, and those to be pending that the load is to raise.
func (p *prometheus) checkRules(t *testing.T) {
	t.Helper()
	var data struct {
		Groups []struct {
			Rules []struct {
				Name, State, Health, LastError string
			}
		}
	}
	if err := p.ask(t.Context(), "/api/v1/rules", nil, &data); err != nil {
		t.Fatal(err)
	}
	states := map[string]string{}
	for _, group := range data.Groups {
		for _, r := range group.Rules {
			states[r.Name] = r.State
			if r.Health != "ok" {
				t.Errorf("%s is %s: %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	for name, want := range map[string]string{
		"BulkJobsFailing": "firing", "BulkJobsHeld": "pending", "BulkJobsWaiting": "pending",
		"BulkJobSentTwice": "inactive", "BulkOperatorDown": "inactive",
	} {
		if states[name] != want {
			t.Errorf("%s is %q, not %s", name, states[name], want)
		}
	}
	if len(states) != len(rules(t).Groups[0].Rules) {
		t.Errorf("Prometheus knows %d alerts", len(states))
	}
}

// photograph has Chromium take a picture of a page.
func photograph(t *testing.T, page, to string) {
	t.Helper()
	program := os.Getenv("BULKJOB_CHROMIUM")
	if program == "" {
		program = "chromium"
	}
	dir := t.TempDir()
	path, err := filepath.Abs(to)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "page.html"), []byte(page), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	browser := exec.CommandContext(t.Context(), program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
		"--user-data-dir="+filepath.Join(dir, "profile"), fmt.Sprintf("--window-size=%d,%d", pageWidth, pageHeight(theDashboard(t))),
		"--screenshot="+path, "file://"+filepath.Join(dir, "page.html"))
	if said, err := browser.CombinedOutput(); err != nil {
		t.Fatalf("cannot have the page photographed: %v: %s", err, said)
	}
}
