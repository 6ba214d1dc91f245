package v1alpha1_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestDocumentedExamples asserts that the API server takes the example at the top of each page, every field included.
func TestDocumentedExamples(t *testing.T) {
	example := regexp.MustCompile("(?s)```yaml\n(apiVersion:.*?)```")
	for _, name := range []string{"bulkjob.md", "connectorinstance.md", "bulkreceipt.md"} {
		t.Run(name, func(t *testing.T) {
			found := example.FindStringSubmatch(page(t, name))
			if found == nil {
				t.Fatal("the page has no example")
			}
			made := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte(found[1]), &made.Object); err != nil {
				t.Fatalf("cannot parse the example: %v", err)
			}
			made.SetNamespace("default")
			if err := api.Create(t.Context(), made, client.DryRunAll, client.FieldValidation("Strict")); err != nil {
				t.Errorf("the example is refused: %v", err)
			}
		})
	}
}

// TestDocumentedReasons asserts that each reason that the operator may give has its row in a table.
func TestDocumentedReasons(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "conditions.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	pages := page(t, "bulkjob.md") + page(t, "connectorinstance.md")
	count := 0
	ast.Inspect(file, func(node ast.Node) bool {
		constant, ok := node.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(constant.Names[0].Name, "Reason") {
			return true
		}
		reason, err := strconv.Unquote(constant.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		count++
		if !strings.Contains(pages, "`"+reason+"`") {
			t.Errorf("no page explains the reason %s", reason)
		}
		return true
	})
	if count < 40 {
		t.Errorf("found %d reasons, want all of them", count)
	}
}

// TestDocumentedFields asserts that each field of a status or record has its place on its page, and each page's example
// shows every field of the spec that isn't part of a choice.
func TestDocumentedFields(t *testing.T) {
	for _, tc := range []struct {
		page   string
		fields reflect.Type
		form   string
		except string
	}{
		{page: "bulkjob.md", fields: reflect.TypeFor[v1alpha1.BulkJobStatus](), form: "`%`"},
		{page: "bulkjob.md", fields: reflect.TypeFor[v1alpha1.BulkJobSpec](), form: "\n  %:", except: "resolve"},
		{page: "connectorinstance.md", fields: reflect.TypeFor[v1alpha1.ConnectorInstanceStatus](), form: "`%`"},
		{page: "connectorinstance.md", fields: reflect.TypeFor[v1alpha1.ConnectorInstanceSpec](), form: "\n  %:"},
		{page: "bulkreceipt.md", fields: reflect.TypeFor[v1alpha1.BulkReceiptRecord](), form: "`%`"},
	} {
		text := page(t, tc.page)
		for field := range tc.fields.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name != tc.except && !strings.Contains(text, strings.ReplaceAll(tc.form, "%", name)) {
				t.Errorf("%s says nothing of %s.%s", tc.page, tc.fields.Name(), name)
			}
		}
	}
}
