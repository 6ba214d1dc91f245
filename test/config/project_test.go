package config_test

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"

	"bulkjob.dev/operator/api/v1alpha1"
)

// project is kubebuilder's PROJECT file, version 3.
type project struct {
	Domain, ProjectName, Repo, Version string
	Layout                             []string
	Resources                          []resource
}

type resource struct {
	API struct {
		CRDVersion string
		Namespaced bool
	}
	Controller                         bool
	Domain, Group, Kind, Path, Version string
}

// TestProject keeps PROJECT true to the kinds that the scheme has.
func TestProject(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "PROJECT"))
	if err != nil {
		t.Fatal(err)
	}
	var got project
	if err := yaml.UnmarshalStrict(text, &got); err != nil {
		t.Fatalf("cannot parse PROJECT: %v", err)
	}
	api := reflect.TypeFor[v1alpha1.BulkJob]().PkgPath()
	want := project{
		Domain: v1alpha1.GroupVersion.Group, ProjectName: "bulkjob-operator", Version: "3",
		Repo: strings.TrimSuffix(api, "/api/v1alpha1"), Layout: []string{"go.kubebuilder.io/v4"},
	}
	for _, kind := range kinds(t) {
		declared := resource{Controller: true, Domain: v1alpha1.GroupVersion.Group, Kind: kind, Path: api, Version: v1alpha1.GroupVersion.Version}
		declared.API.CRDVersion, declared.API.Namespaced = "v1", true
		want.Resources = append(want.Resources, declared)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("PROJECT (-scheme +file):\n%s", diff)
	}
}

// kinds are those of our own Go types that have lists, sorted.
func kinds(t *testing.T) []string {
	t.Helper()
	known := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(known); err != nil {
		t.Fatal(err)
	}
	types := known.KnownTypes(v1alpha1.GroupVersion)
	var names []string
	for name := range types {
		if _, ok := types[name+"List"]; ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
