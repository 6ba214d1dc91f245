// Package schema_test holds the dashboard to the types of @grafana/schema, which Grafana generates from its own schema: a field that it
// doesn't know, one that is missing, or a value of another kind is an error of the compiler's.
package schema_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// packages is where npm has put what package-lock.json pins: in the user's cache, once for each state of it.
func packages(t *testing.T) string {
	t.Helper()
	lock, err := os.ReadFile("package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(lock)
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	there := filepath.Join(cache, "bulkjob-operator", "grafana", hex.EncodeToString(digest[:8]))
	if _, err := os.Stat(there); err == nil {
		return filepath.Join(there, "node_modules")
	}
	if err := install(t.Context(), lock, there); err != nil {
		t.Fatalf("%v\nNode.js 18 or later, and npm, must be on the PATH: hack/stores.sh, and so make test, installs them where it may", err)
	}
	return filepath.Join(there, "node_modules")
}

func install(ctx context.Context, lock []byte, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(to), "installing-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	about, err := os.ReadFile("package.json")
	err = errors.Join(err,
		os.WriteFile(filepath.Join(work, "package.json"), about, 0o600), os.WriteFile(filepath.Join(work, "package-lock.json"), lock, 0o600))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	npm := exec.CommandContext(ctx, "npm", "--prefix", work, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	if out, err := npm.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot install Grafana's types: %w: %s", err, out)
	}
	if err := os.Rename(work, to); err != nil && !errors.Is(err, fs.ErrExist) { // another run was faster
		return err
	}
	return nil
}

var (
	enumeration = regexp.MustCompile(`export declare enum (\w+) \{([^}]*)\}`)
	comment     = regexp.MustCompile(`(?s)/\*.*?\*/`)
	value       = regexp.MustCompile(`(?m)=\s*([^,]+?),?$`)
)

// openTypes copies the types. JSON has the values of enumerations, not their names: in the copy, they are unions of their values.
func openTypes(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		name := filepath.Join(to, strings.TrimPrefix(path, from))
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			return os.Mkdir(name, 0o700)
		case !strings.HasSuffix(path, ".d.ts"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		opened := enumeration.ReplaceAllStringFunc(string(text), func(all string) string {
			found := enumeration.FindStringSubmatch(all)
			var values []string
			for _, member := range value.FindAllStringSubmatch(comment.ReplaceAllString(found[2], ""), -1) {
				values = append(values, member[1])
			}
			return "export type " + found[1] + " = " + strings.Join(values, " | ")
		})
		opened = strings.ReplaceAll(opened, "from '@grafana/schema'", "from '"+filepath.Join(to, "index")+"'")
		return os.WriteFile(name, []byte(opened), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// literals are a dashboard's parts in TypeScript: of a literal, the compiler also finds fields that are too many.
func literals(t *testing.T, dashboard map[string]any) string {
	t.Helper()
	var text strings.Builder
	say := func(name, kind string, part any) {
		content, err := json.MarshalIndent(part, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "export const %s: %s = %s;\n", name, kind, content)
	}
	text.WriteString("import type { Dashboard } from './types/raw/dashboard/x/types.gen';\n")
	for _, kind := range []string{"timeseries", "stat"} {
		fmt.Fprintf(&text, "import type * as %s from './types/raw/composable/%[1]s/panelcfg/x/types.gen';\n", kind)
	}
	say("dashboard", "Dashboard", dashboard)
	for i, p := range at[[]any](dashboard, "panels") {
		panel, _ := p.(map[string]any)
		kind := at[string](panel, "type")
		if kind == "row" {
			continue
		}
		say(fmt.Sprint("options", i), "Partial<"+kind+".Options>", panel["options"])
		if kind == "timeseries" {
			say(fmt.Sprint("field", i), "timeseries.FieldConfig", at[map[string]any](panel, "fieldConfig", "defaults")["custom"])
		}
	}
	return text.String()
}

// at is what stands there; the zero value if nothing of that kind does.
func at[T any](in map[string]any, path ...string) T {
	for _, name := range path[:len(path)-1] {
		in, _ = in[name].(map[string]any)
	}
	found, _ := in[path[len(path)-1]].(T)
	return found
}

// first is the first panel of that type.
func first(t *testing.T, dashboard map[string]any, kind string) map[string]any {
	t.Helper()
	for _, p := range at[[]any](dashboard, "panels") {
		if panel, _ := p.(map[string]any); at[string](panel, "type") == kind {
			return panel
		}
	}
	t.Fatalf("there is no panel of type %s", kind)
	return nil
}

// compile is what the compiler says about dashboards, by their names.
func compile(t *testing.T, dashboards map[string]map[string]any) map[string]string {
	t.Helper()
	work, modules := t.TempDir(), packages(t)
	openTypes(t, filepath.Join(modules, "@grafana", "schema", "dist", "types"), filepath.Join(work, "types"))
	args := []string{
		filepath.Join(modules, "typescript", "bin", "tsc"), "--noEmit", "--strict", "--skipLibCheck", "--pretty", "false",
		"--moduleResolution", "bundler", "--module", "esnext", "--target", "es2022",
	}
	for name, dashboard := range dashboards {
		if err := os.WriteFile(filepath.Join(work, name+".ts"), []byte(literals(t, dashboard)), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, name+".ts")
	}
	compiler := exec.CommandContext(t.Context(), "node", args...)
	compiler.Dir = work
	out, err := compiler.CombinedOutput()
	if _, ran := errors.AsType[*exec.ExitError](err); err != nil && !ran {
		t.Fatalf("cannot compile: %v", err)
	}
	said := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, _, found := strings.Cut(line, ".ts(")
		if dashboards[name] == nil || !found {
			t.Errorf("the compiler says %q", line)
		}
		said[name] += line
	}
	return said
}

// TestSchema compiles the dashboard, and others with one fault each, which must be found.
func TestSchema(t *testing.T) {
	content, err := os.ReadFile(filepath.Join("..", "..", "..", "config", "grafana", "bulkjob.json"))
	if err != nil {
		t.Fatal(err)
	}
	options := func(d map[string]any, kind string) map[string]any {
		return at[map[string]any](first(t, d, kind), "options")
	}
	cases := []struct {
		name, reason string
		change       func(d map[string]any)
		want         string // in the compiler's words; empty: it has nothing to say
	}{
		{"ours", "it is as Grafana's schema has it", func(map[string]any) {}, ""},
		{"unknown", "a field that Grafana doesn't know", func(d map[string]any) { d["bulkjob"] = true }, `'"bulkjob"' does not exist in type 'Dashboard'`},
		{"missing", "a field that Grafana needs", func(d map[string]any) { delete(d, "schemaVersion") }, "Property 'schemaVersion' is missing"},
		{"kind", "a number that is none", func(d map[string]any) { d["schemaVersion"] = "39" }, "Type 'string' is not assignable to type 'number'"},
		{"option", "an option that no panel has", func(d map[string]any) { options(d, "stat")["colour"] = "red" }, `'"colour"' does not exist`},
		{"enumeration", "a word that is none of those there are", func(d map[string]any) { at[map[string]any](options(d, "timeseries"), "tooltip")["mode"] = "many" }, `Type '"many"' is not assignable`},
		{"line", "a width that is none", func(d map[string]any) {
			at[map[string]any](first(t, d, "timeseries"), "fieldConfig", "defaults", "custom")["lineWidth"] = "thick"
		}, "Type 'string' is not assignable to type 'number'"},
	}
	dashboards := map[string]map[string]any{}
	for _, tc := range cases {
		var dashboard map[string]any
		if err := json.Unmarshal(content, &dashboard); err != nil {
			t.Fatal(err)
		}
		tc.change(dashboard)
		dashboards[tc.name] = dashboard
	}
	said := compile(t, dashboards)
	for _, tc := range cases {
		if found := said[tc.name]; (tc.want == "") != (found == "") || !strings.Contains(found, tc.want) {
			t.Errorf("%s: the compiler says %q, want %q", tc.reason, found, tc.want)
		}
	}
}
