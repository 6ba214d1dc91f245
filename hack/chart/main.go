// Command chart makes the templates of the Helm chart in config/helm of what kustomize makes of the bases in config, so that
// each object has one source. What a chart adds, its values, is set into the objects by parts.go; an object that a base has
// and no part takes, or a field that an edit looks for in vain, is an error.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"sigs.k8s.io/yaml"
)

const header = "{{- /* Code generated from config/ by hack/chart. DO NOT EDIT: change the bases or hack/chart, and run make chart. */ -}}\n"

func main() {
	config := flag.String("config", "config", "directory of the bases")
	out := flag.String("out", filepath.Join("config", "helm", "templates"), "directory to write the templates to")
	kubectl := flag.String("kubectl", "kubectl", "kubectl, for its kustomize")
	flag.Parse()
	if err := run(*config, *out, *kubectl); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

// run writes one template for each file that parts name.
func run(config, out, kubectl string) error {
	files := map[string][]byte{}
	for i := range sources {
		objects, err := sources[i].build(config, kubectl)
		if err != nil {
			return fmt.Errorf("cannot build config/%s: %w", sources[i].base, err)
		}
		for _, o := range objects {
			file, text, err := sources[i].template(o)
			if err != nil {
				return fmt.Errorf("cannot make a template of %s in config/%s: %w", name(o), sources[i].base, err)
			}
			files[file] = append(files[file], text...)
		}
	}
	delete(files, "") // what no chart has
	for _, file := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(out, file+".yaml")
		if err := os.WriteFile(path, append([]byte(header), files[file]...), 0o644); err != nil { //nolint:gosec // it is for everybody
			return fmt.Errorf("cannot write a template: %w", err)
		}
	}
	return nil
}

// An object is one of Kubernetes', as kustomize renders it.
type object = map[string]any

func name(o object) string {
	metadata, _ := o["metadata"].(object)
	return fmt.Sprintf("%v %v", o["kind"], metadata["name"])
}

// build renders the base with the source's components, in a copy of config.
func (s *source) build(config, kubectl string) ([]object, error) {
	dir, err := os.MkdirTemp("", "chart-")
	if err != nil {
		return nil, fmt.Errorf("cannot make a folder: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := os.CopyFS(dir, os.DirFS(config)); err != nil {
		return nil, fmt.Errorf("cannot copy the bases: %w", err)
	}
	if len(s.components) > 0 {
		if err := add(filepath.Join(dir, s.base, "operator", "kustomization.yaml"), s.components); err != nil {
			return nil, fmt.Errorf("cannot add components: %w", err)
		}
	}
	var rendered, problem bytes.Buffer
	build := exec.Command(kubectl, "kustomize", filepath.Join(dir, s.base)) //nolint:noctx // it reads a few files
	build.Stdout, build.Stderr = &rendered, &problem
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("cannot run kustomize: %w: %s", err, bytes.TrimSpace(problem.Bytes()))
	}
	return parse(&rendered)
}

// add appends to the components of a kustomization that has none.
func add(kustomization string, components []string) error {
	file, err := os.OpenFile(kustomization, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString("\ncomponents:\n")
	for _, component := range components {
		_, more := fmt.Fprintf(file, "- %s\n", component)
		err = errors.Join(err, more)
	}
	return errors.Join(err, file.Close())
}

// parse reads what kustomize renders: documents between lines of three hyphens.
func parse(text io.Reader) ([]object, error) {
	all, err := io.ReadAll(text)
	if err != nil {
		return nil, err
	}
	var objects []object
	for document := range bytes.SplitSeq(all, []byte("\n---\n")) {
		o := object{}
		if err := yaml.Unmarshal(document, &o); err != nil {
			return nil, fmt.Errorf("cannot read what kustomize rendered: %w", err)
		}
		objects = append(objects, o)
	}
	return objects, nil
}
