package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

func parsed(t *testing.T, text string) object {
	t.Helper()
	o := object{}
	if err := yaml.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestTemplate(t *testing.T) {
	for _, tc := range []struct {
		reason, object, want string
		edit                 func(*editor)
	}{
		{
			reason: "braces of the base are no actions", object: "a: '{{ $labels.x }}'",
			want: "a: '{{ \"{{\" }} $labels.x }}'\n", edit: func(*editor) {},
		},
		{
			reason: "a release has a namespace of its own", object: "metadata: {namespace: bulkjob-system}",
			want: "metadata:\n  namespace: {{ $.Release.Namespace }}\n", edit: func(*editor) {},
		},
		{
			reason: "a value takes the place of another", object: "spec: {replicas: 2}",
			want: "spec:\n  replicas: {{ n }}\n", edit: func(e *editor) { e.set("spec", "replicas", "{{ n }}") },
		},
		{
			reason: "a name goes on", object: "metadata: {name: a}",
			want: "metadata:\n  name: a{{ n }}\n", edit: func(e *editor) { e.suffix("metadata", "name", "{{ n }}") },
		},
		{
			reason: "lines are indented as their place is", object: "a: {b: {c: d}}",
			want: "a:\n  b:\n    c: d\n    {{- with x }}\n    y: {{ . }}\n    {{- end }}\n",
			edit: func(e *editor) { e.insert("a.b", "{{- with x }}", "y: {{ . }}", "{{- end }}") },
		},
		{
			reason: "some keys depend", object: "a: {b: c, d: '{{'}",
			want: "a:\n  b: c\n  {{- if x }}\n  d: '{{ \"{{\" }}'\n  {{- end }}\n", edit: func(e *editor) { e.only("a", "x", "d") },
		},
		{
			reason: "some items depend", object: "a: {b: [c, d, e]}",
			want: "a:\n  b:\n  - c\n  {{- if x }}\n  - d\n  {{- end }}\n  - e\n",
			edit: func(e *editor) {
				e.list("a", "b", func(list []any) []any {
					return e.around(list, func(item any) bool { return item == "d" }, "{{- if x }}", "{{- end }}")
				})
			},
		},
	} {
		p := part{file: "f", when: "w", edit: tc.edit}
		got, err := p.template(parsed(t, tc.object))
		if diff := cmp.Diff("{{- if w }}\n---\n"+tc.want+"{{- end }}\n", got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", tc.reason, err, diff)
		}
	}
}

// TestNothingIsMissed asserts that a base that changed under an edit is an error, and so is an object that no part takes.
func TestNothingIsMissed(t *testing.T) {
	for _, tc := range []struct {
		reason string
		edit   func(*editor)
	}{
		{"no such map", func(e *editor) { e.insert("spec.none", "x: y") }},
		{"no such item", func(e *editor) { e.insert("spec.list.7", "x: y") }},
		{"no such key to set", func(e *editor) { e.set("spec", "none", "x") }},
		{"no such name", func(e *editor) { e.suffix("spec", "none", "x") }},
		{"no such key to keep", func(e *editor) { e.only("spec", "x", "none") }},
		{"no such list", func(e *editor) { e.list("spec", "none", func(l []any) []any { return l }) }},
		{"no such item to go round", func(e *editor) { e.around([]any{"a"}, func(any) bool { return false }, "x", "y") }},
	} {
		p := part{file: "f", edit: tc.edit}
		if got, err := p.template(parsed(t, "spec: {a: b, list: [{c: d}]}")); err == nil || !strings.HasPrefix(err.Error(), "cannot ") {
			t.Errorf("%s: got %v, %q", tc.reason, err, got)
		}
	}
	if _, err := (&part{file: "f"}).template(parsed(t, "a: in bulkjob-system")); err == nil {
		t.Error("a namespace within a text was left as it is")
	}
	if _, _, err := sources[0].template(parsed(t, "kind: Job\nmetadata: {name: new}")); err == nil {
		t.Error("a new object of the bases was left out without a word")
	}
}
