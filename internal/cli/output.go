package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/printers"
	"sigs.k8s.io/yaml"
)

// The formats of --output.
const (
	asTable    = "table"
	asWide     = "wide"
	asJSON     = "json"
	asYAML     = "yaml"
	asMarkdown = "markdown"
	asCSV      = "csv"
)

// output is what --output says.
type output struct {
	format  string
	allowed []string
}

// outputFlag gives a command the flag --output with table, json and yaml, and more where it has them.
func outputFlag(cmd *cobra.Command, more ...string) *output {
	o := &output{allowed: append([]string{asTable, asJSON, asYAML}, more...)}
	cmd.Flags().StringVarP(&o.format, "output", "o", asTable, "How to print: "+strings.Join(o.allowed, ", "))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(o.allowed, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	return o
}

func (o *output) check() error {
	if !slices.Contains(o.allowed, o.format) {
		return misused("cannot print as %q: --output is one of %s", o.format, strings.Join(o.allowed, ", "))
	}
	return nil
}

// structured is true if what is printed is for a program to read.
func (o *output) structured() bool { return o.format == asJSON || o.format == asYAML }

// object prints an object of the API server's as kubectl does.
func (o *output) object(out io.Writer, object runtime.Object) error {
	var printer printers.ResourcePrinter = &printers.JSONPrinter{}
	if o.format == asYAML {
		printer = &printers.YAMLPrinter{}
	}
	if err := (&printers.OmitManagedFieldsPrinter{Delegate: printer}).PrintObj(object, out); err != nil {
		return fmt.Errorf("cannot print: %w", err)
	}
	return nil
}

// value prints what is no object of the API server's.
func (o *output) value(out io.Writer, value any) error {
	text, err := json.MarshalIndent(value, "", "    ")
	if err == nil && o.format == asYAML {
		text, err = yaml.JSONToYAML(text)
	}
	if err == nil {
		_, err = out.Write(append(bytes.TrimSuffix(text, []byte("\n")), '\n'))
	}
	if err != nil {
		return fmt.Errorf("cannot print: %w", err)
	}
	return nil
}

// The resources that are shown as they stand.
const (
	resourceJobs     = "bulkjobs"
	resourceReceipts = "bulkreceipts"
)

// tables are what the API server makes of resources for people: the columns that kubectl shows.
const tables = "application/json;as=Table;v=v1;g=meta.k8s.io"

// show prints the resources of those names, or all of the namespace if there are none.
func (s *session) show(ctx context.Context, resource string, wanted []string, o *output) error {
	if o.structured() {
		return s.showObjects(ctx, resource, wanted, o)
	}
	table, err := s.table(ctx, resource, wanted)
	if err != nil {
		return err
	}
	if len(table.Rows) == 0 {
		s.sayf("No %s found in namespace %q.", resource, s.namespace)
		return nil
	}
	return printTable(s.Out, table, o.format == asWide, false)
}

func printTable(out io.Writer, table *metav1.Table, wide, bare bool) error {
	printer := printers.NewTablePrinter(printers.PrintOptions{Wide: wide, NoHeaders: bare})
	if err := printer.PrintObj(table, out); err != nil {
		return fmt.Errorf("cannot print: %w", err)
	}
	return nil
}

// table of the resources of those names, or of all.
func (s *session) table(ctx context.Context, resource string, wanted []string) (*metav1.Table, error) {
	if len(wanted) == 0 {
		wanted = []string{""}
	}
	all := &metav1.Table{}
	for _, name := range wanted {
		text, err := s.read(ctx, resource, name, tables)
		if err != nil {
			return nil, err
		}
		part := &metav1.Table{}
		if err := json.Unmarshal(text, part); err != nil {
			return nil, fmt.Errorf("cannot read the table of %s: %w", resource, err)
		}
		all.TypeMeta, all.ColumnDefinitions = part.TypeMeta, part.ColumnDefinitions
		all.Rows = append(all.Rows, part.Rows...)
	}
	return all, nil
}

// read gets one resource, or all of the namespace if name is empty.
func (s *session) read(ctx context.Context, resource, name, accept string) ([]byte, error) {
	request := s.rest.Get().Namespace(s.namespace).Resource(resource).SetHeader("Accept", accept)
	if name != "" {
		request = request.Name(name)
	}
	result := request.Do(ctx)
	if err := result.Error(); err != nil { // that of Raw would not have read the API server's words
		return nil, s.explained(strings.TrimSpace("get "+resource+" "+name), err)
	}
	return result.Raw()
}

func (s *session) showObjects(ctx context.Context, resource string, wanted []string, o *output) error {
	if len(wanted) == 1 {
		object, err := s.raw(ctx, resource, wanted[0])
		if err != nil {
			return err
		}
		return o.object(s.Out, object)
	}
	list := &unstructured.UnstructuredList{Object: map[string]any{
		"apiVersion": "v1", "kind": "List", "metadata": map[string]any{"resourceVersion": ""},
	}}
	if len(wanted) == 0 {
		wanted = []string{""}
	}
	for _, name := range wanted {
		object, err := s.raw(ctx, resource, name)
		if err != nil {
			return err
		}
		if name != "" {
			list.Items = append(list.Items, *object)
			continue
		}
		all, err := object.ToList()
		if err != nil {
			return fmt.Errorf("cannot read the list of %s: %w", resource, err)
		}
		list.Items = all.Items
	}
	return o.object(s.Out, list)
}

// raw is an object with every field that it has, known here or not.
func (s *session) raw(ctx context.Context, resource, name string) (*unstructured.Unstructured, error) {
	text, err := s.read(ctx, resource, name, runtime.ContentTypeJSON)
	if err != nil {
		return nil, err
	}
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(text); err != nil {
		return nil, fmt.Errorf("cannot read %s %s: %w", resource, name, err)
	}
	return object, nil
}
