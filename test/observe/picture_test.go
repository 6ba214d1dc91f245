package observe_test

import (
	"cmp"
	"fmt"
	"html/template"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// Sizes of the page, in CSS pixels.
const (
	pageWidth  = 1440
	columns    = 24
	column     = pageWidth / columns
	rowHeight  = 30
	gap        = 8
	headHeight = 56
	axisWidth  = 60
)

var colours = []string{"#3274d9", "#e0752d", "#56a64b", "#a352cc", "#e02f44", "#b8860b", "#00868b", "#7f7f7f"}

// frame is a panel as the page has it.
type frame struct {
	Title, Type, Value   string
	X, Y, W, H           int
	PlotW, PlotH         int
	Lines                []stroke
	Top, Half, From, Til string
}

type stroke struct {
	Name, Last, Colour string
	Points             string
}

var page = template.Must(template.New("").Parse(`<!doctype html><html lang="en"><meta charset="utf-8"><title>{{.Title}}</title><style>
body{margin:0;background:#f4f5f5;font:12px "DejaVu Sans",sans-serif;color:#24292e;position:relative}
h1{font-size:18px;margin:0;padding:10px 12px 0}p{margin:2px 12px;color:#6a737d}
section{position:absolute;box-sizing:border-box;background:#fff;border:1px solid #dcdee0;border-radius:3px;overflow:hidden}
section.row{background:none;border:0;font-weight:bold;padding:6px 8px}
h2{font-size:12px;margin:6px 8px 2px}b.big{font-size:30px;padding:8px 10px;display:block;font-weight:600}
.legend{padding:0 8px;line-height:15px}.legend span{margin-right:12px;white-space:nowrap}.legend i{display:inline-block;width:12px;height:3px;margin-right:4px;vertical-align:middle}
text{font-size:10px;fill:#6a737d}</style><h1>{{.Title}}</h1><p>{{.Note}}</p>
{{range .Frames}}<section class="{{.Type}}" style="left:{{.X}}px;top:{{.Y}}px;width:{{.W}}px;height:{{.H}}px">
{{if eq .Type "row"}}{{.Title}}{{else}}<h2>{{.Title}}</h2>{{if eq .Type "stat"}}<b class="big">{{.Value}}</b>{{else}}
<svg width="{{.W}}" height="{{.PlotH}}" viewBox="-60 -8 {{.W}} {{.PlotH}}">
<g stroke="#e4e7e7"><path d="M0 0H{{.PlotW}}M0 75H{{.PlotW}}M0 150H{{.PlotW}}"/></g>
<text x="-6" y="4" text-anchor="end">{{.Top}}</text><text x="-6" y="79" text-anchor="end">{{.Half}}</text><text x="-6" y="154" text-anchor="end">0</text>
<text x="0" y="166">{{.From}}</text><text x="{{.PlotW}}" y="166" text-anchor="end">{{.Til}}</text>
{{range .Lines}}<path fill="none" stroke="{{.Colour}}" stroke-width="1.5" d="{{.Points}}"/>{{end}}</svg>
<div class="legend">{{range .Lines}}<span><i style="background:{{.Colour}}"></i>{{.Name}} {{.Last}}</span>{{end}}</div>{{end}}{{end}}</section>
{{end}}`))

// plotHeight of each diagram; its panel also has a title and a legend.
const plotHeight = 150

// draw makes a page of the dashboard: plain lines where Grafana would draw its own.
func draw(t *testing.T, d *dashboard, lines map[int][]line, start, end time.Time) string {
	t.Helper()
	var frames []frame
	for _, p := range d.Panels {
		frames = append(frames, frameOf(&p, lines[p.ID], start, end))
	}
	var text strings.Builder
	if err := page.Execute(&text, map[string]any{
		"Title": d.Title, "Frames": frames,
		"Note": "The panels of config/grafana/bulkjob.json with what Prometheus answered to their queries, drawn by test/observe: not by Grafana.",
	}); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Count(text.String(), "<section"), len(d.Panels); got != want {
		t.Errorf("the page has %d panels of %d", got, want)
	}
	return text.String()
}

// pageHeight is what all panels take, in pixels.
func pageHeight(d *dashboard) int {
	height := 0
	for _, p := range d.Panels {
		height = max(height, p.Grid.Y+p.Grid.H)
	}
	return headHeight + height*rowHeight + gap
}

func frameOf(p *panel, lines []line, start, end time.Time) frame {
	f := frame{
		Title: p.Title, Type: p.Type, X: p.Grid.X*column + gap/2, Y: headHeight + p.Grid.Y*rowHeight,
		W: p.Grid.W*column - gap, H: p.Grid.H*rowHeight - gap, PlotH: plotHeight + 24,
		From: start.UTC().Format("15:04:05"), Til: end.UTC().Format("15:04:05"),
	}
	f.PlotW = f.W - axisWidth - gap
	top := 0.0
	for _, l := range lines {
		for _, at := range l.points {
			top = max(top, at.value)
		}
		f.Value = inUnit(l.points[len(l.points)-1].value, p.Field.Defaults.Unit)
	}
	top = cmp.Or(roundUp(top), 1)
	f.Top, f.Half = inUnit(top, p.Field.Defaults.Unit), inUnit(top/2, p.Field.Defaults.Unit)
	slices.SortFunc(lines, func(a, b line) int { return cmp.Compare(a.name, b.name) })
	for i, l := range lines {
		f.Lines = append(f.Lines, stroke{
			Name: l.name, Last: inUnit(latest(l, end), p.Field.Defaults.Unit), Colour: colours[i%len(colours)],
			Points: path(l.points, start, end, float64(f.PlotW), top),
		})
	}
	return f
}

// latest is a line's value at the end; 0 if there has been none for a while.
func latest(l line, end time.Time) float64 {
	last := l.points[len(l.points)-1]
	if float64(end.Unix())-last.at > 10 {
		return 0
	}
	return last.value
}

// path is a line through the points; where there are none for a while, it is broken.
func path(points []point, start, end time.Time, width, top float64) string {
	span := max(end.Sub(start).Seconds(), 1)
	hole := 3 * max(1, math.Floor(span/240))
	var text strings.Builder
	for i, at := range points {
		verb := "L"
		if i == 0 || at.at-points[i-1].at > hole {
			verb = "M"
		}
		fmt.Fprintf(&text, "%s%.1f %.1f", verb, (at.at-float64(start.Unix()))/span*width, plotHeight*(1-at.value/top))
	}
	return text.String()
}

// roundUp is the next of 1, 2 and 5 with some zeros.
func roundUp(value float64) float64 {
	if value <= 0 {
		return 0
	}
	zeros := math.Pow(10, math.Floor(math.Log10(value)))
	for _, step := range []float64{1, 2, 5, 10} {
		if value <= step*zeros {
			return step * zeros
		}
	}
	return value
}

// inUnit writes a number as Grafana would, more or less.
func inUnit(value float64, unit string) string {
	text := func(value float64) string {
		if value >= 1000 {
			return fmt.Sprintf("%.3g K", value/1000)
		}
		return fmt.Sprintf("%.3g", value)
	}
	switch unit {
	case "Bps", "decbytes":
		suffix := map[string]string{"Bps": "/s"}[unit]
		for _, size := range []string{"B", "kB", "MB"} {
			if value < 1000 {
				return text(value) + " " + size + suffix
			}
			value /= 1000
		}
		return text(value) + " GB" + suffix
	case "s":
		if value < 1 {
			return text(value*1000) + " ms"
		}
		return text(value) + " s"
	case "percentunit":
		return text(value*100) + " %"
	case "cpm":
		return text(value) + "/min"
	case "rowsps", "reqps":
		return text(value) + "/s"
	}
	return text(value)
}
