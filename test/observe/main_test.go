// Package observe_test holds what on-call sees to what there is: the alerts are judged by promtool, and a real Prometheus
// asks a real manager, under a load, everything that the alerts and the dashboard ask.
package observe_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"sigs.k8s.io/yaml"
)

const root = "../.."

// rule is one alert.
type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for,omitempty"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

type group struct {
	Name  string `json:"name"`
	Rules []rule `json:"rules"`
}

// ruleFile is what Prometheus reads; a PrometheusRule has it as its spec.
type ruleFile struct {
	Groups []group `json:"groups"`
}

func rules(t *testing.T) *ruleFile {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "config", "prometheus", "rules.yaml"))
	var object struct {
		Spec ruleFile `json:"spec"`
	}
	if err == nil {
		err = yaml.Unmarshal(text, &object)
	}
	if err != nil || len(object.Spec.Groups) != 1 {
		t.Fatalf("cannot read the rules: %v (%d groups)", err, len(object.Spec.Groups))
	}
	return &object.Spec
}

// write writes JSON, which is YAML too, into a folder of the test's own.
func write(t *testing.T, dir, name string, content any) string {
	t.Helper()
	text, err := json.MarshalIndent(content, "", " ")
	path := filepath.Join(dir, name)
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// promtool runs it, and returns all that it said.
func promtool(ctx context.Context, args ...string) (string, error) {
	path, err := exec.LookPath("promtool")
	if err != nil {
		return "", errors.New("cannot find promtool: PATH=$PATH:$(hack/prometheus.sh | tail -n 1)")
	}
	said, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	return string(said), err
}
