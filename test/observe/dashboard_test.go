package observe_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A dashboard has of Grafana's model what is checked here. See
// https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
type dashboard struct {
	UID           string     `json:"uid"`
	Title         string     `json:"title"`
	Description   string     `json:"description"`
	Tags          []string   `json:"tags"`
	SchemaVersion int        `json:"schemaVersion"`
	Version       int        `json:"version"`
	Editable      bool       `json:"editable"`
	GraphTooltip  int        `json:"graphTooltip"`
	Refresh       string     `json:"refresh"`
	Timezone      string     `json:"timezone"`
	Time          timeRange  `json:"time"`
	WeekStart     string     `json:"weekStart"`
	FiscalYear    int        `json:"fiscalYearStartMonth"`
	LiveNow       bool       `json:"liveNow"`
	Links         []struct{} `json:"links"`
	Templating    struct {
		List []variable `json:"list"`
	} `json:"templating"`
	Panels []panel `json:"panels"`
}

type timeRange struct {
	From string `json:"from"`
	To   string `json:"to"`
}

type variable struct {
	Type       string          `json:"type"`
	Name       string          `json:"name"`
	Query      json.RawMessage `json:"query"`
	AllValue   string          `json:"allValue"`
	IncludeAll bool            `json:"includeAll"`
}

type panel struct {
	ID          int        `json:"id"`
	Type        string     `json:"type"`
	Title       string     `json:"title"`
	Description string     `json:"description"`
	DataSource  dataSource `json:"datasource"`
	Grid        grid       `json:"gridPos"`
	Targets     []target   `json:"targets"`
	Field       struct {
		Defaults struct {
			Unit string `json:"unit"`
		} `json:"defaults"`
	} `json:"fieldConfig"`
}

type dataSource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

// grid is a place in 24 columns.
type grid struct {
	X int `json:"x"`
	Y int `json:"y"`
	W int `json:"w"`
	H int `json:"h"`
}

type target struct {
	DataSource dataSource `json:"datasource"`
	Expr       string     `json:"expr"`
	Legend     string     `json:"legendFormat"`
	RefID      string     `json:"refId"`
	Instant    bool       `json:"instant"`
	Range      bool       `json:"range"`
}

func (g grid) overlaps(with grid) bool {
	return g.X < with.X+with.W && with.X < g.X+g.W && g.Y < with.Y+with.H && with.Y < g.Y+g.H
}

func theDashboard(t *testing.T) *dashboard {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "config", "grafana", "bulkjob.json"))
	d := &dashboard{}
	if err == nil {
		err = json.NewDecoder(bytes.NewReader(text)).Decode(d)
	}
	if err != nil {
		t.Fatalf("cannot read the dashboard: %v", err)
	}
	return d
}

// query is what Grafana makes of an expression: all namespaces, and rates over what interval says, such as 5m.
func query(expr, interval string) string {
	return strings.NewReplacer("$namespace", ".*", "$__rate_interval", interval).Replace(expr)
}

func TestDashboardIsWellMade(t *testing.T) {
	d := theDashboard(t)
	if d.UID == "" || len(d.UID) > 40 || d.Title == "" || d.SchemaVersion < 39 {
		t.Errorf("the dashboard has the uid %q, the title %q and the schema version %d", d.UID, d.Title, d.SchemaVersion)
	}
	names := make([]string, 0, 2)
	for _, v := range d.Templating.List {
		names = append(names, v.Name+" of type "+v.Type)
	}
	if want := []string{"datasource of type datasource", "namespace of type query"}; !slices.Equal(names, want) {
		t.Errorf("variables %v, want %v", names, want)
	}
	ids := map[int]string{}
	for i, p := range d.Panels {
		if other, taken := ids[p.ID]; taken || p.ID < 1 {
			t.Errorf("%q and %q have the id %d", p.Title, other, p.ID)
		}
		ids[p.ID] = p.Title
		if p.Grid.X < 0 || p.Grid.W < 1 || p.Grid.H < 1 || p.Grid.X+p.Grid.W > 24 {
			t.Errorf("%q leaves the 24 columns: %+v", p.Title, p.Grid)
		}
		for _, other := range d.Panels[:i] {
			if p.Grid.overlaps(other.Grid) {
				t.Errorf("%q lies over %q", p.Title, other.Title)
			}
		}
		t.Run(p.Title, func(t *testing.T) { checkPanel(t, &p) })
	}
}

func checkPanel(t *testing.T, p *panel) {
	t.Helper()
	if p.Title == "" {
		t.Error("there is no title")
	}
	if p.Type == "row" {
		return
	}
	if !slices.Contains([]string{"stat", "timeseries"}, p.Type) {
		t.Errorf("a panel of type %q is drawn by nobody", p.Type)
	}
	if p.Description == "" || p.Field.Defaults.Unit == "" || len(p.Targets) == 0 {
		t.Errorf("there is no description (%q), unit (%q) or query", p.Description, p.Field.Defaults.Unit)
	}
	own := dataSource{"prometheus", "${datasource}"}
	refs := map[string]bool{}
	for _, at := range p.Targets {
		if p.DataSource != own || at.DataSource != own {
			t.Errorf("%s asks a data source that was not chosen", at.RefID)
		}
		if at.RefID == "" || refs[at.RefID] || at.Legend == "" || at.Instant == at.Range {
			t.Errorf("the query %q has no refId or legend of its own, or is both instant and of a range", at.Expr)
		}
		refs[at.RefID] = true
		for _, selector := range selectors(at.Expr) {
			if !slices.Contains(selector.labels, "namespace") {
				t.Errorf("%s does not heed the namespace that was chosen", selector.metric)
			}
		}
	}
}

// Every expression is one that Prometheus understands.
func TestDashboardParses(t *testing.T) {
	type recorded struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var all []recorded
	for _, p := range theDashboard(t).Panels {
		for _, at := range p.Targets {
			all = append(all, recorded{"panel", query(at.Expr, "5m")})
		}
	}
	file := map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": all}}}
	if said, err := promtool(t.Context(), "check", "rules", "--lint=none", write(t, t.TempDir(), "dashboard.yaml", file)); err != nil {
		t.Errorf("%v: %s", err, said)
	}
}
