package docs_test

import (
	"path/filepath"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// What a kind tells of itself stands in its status; a receipt has its record in place of one.
func TestStatusFieldsAreExplained(t *testing.T) {
	for _, tt := range []struct{ reason, crd, part, page string }{
		{"jobs show how they stand", "bulkjobs", "status", "bulkjob.md"},
		{"connectors show who they are", "connectorinstances", "status", "connectorinstance.md"},
		{"receipts record what was sent", "bulkreceipts", "record", "bulkreceipt.md"},
	} {
		t.Run(tt.crd, func(t *testing.T) {
			crd := &apiextensionsv1.CustomResourceDefinition{}
			if err := yaml.UnmarshalStrict([]byte(read(t, "config", "crd", "bases", "bulkjob.dev_"+tt.crd+".yaml")), crd); err != nil {
				t.Fatal(err)
			}
			page := read(t, filepath.Join("docs", tt.page))
			fields := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties[tt.part].Properties
			if len(fields) < 5 {
				t.Fatalf("%s: only %d fields", tt.reason, len(fields))
			}
			for field := range fields {
				if !strings.Contains(page, "`"+field+"`") {
					t.Errorf("%s, but docs/%s does not explain %s.%s", tt.reason, tt.page, tt.part, field)
				}
			}
		})
	}
}
