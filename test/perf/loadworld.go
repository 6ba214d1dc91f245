package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/test/stage"
)

// A world is a control plane and a teller, for the benchmarks of many jobs. Managers are started in it as they are needed.
type world struct {
	*env
	*plane

	teller   *stage.Process
	address  string           // of the teller
	operator client.WithWatch // with the operator's own rights, and its place in the API server's queues
	user     client.WithWatch // the administrator
	web      *http.Client     // to the API server's own pages
}

// newWorld starts the control plane and the teller.
func (e *env) newWorld(ctx context.Context) (*world, error) {
	w := &world{env: e}
	var err error
	if w.plane, err = e.controlPlane(ctx); err != nil {
		return nil, err
	}
	if err := w.clients(ctx); err != nil {
		return nil, err
	}
	return w, w.startTeller(ctx)
}

// clients are not slowed down on this side, as the manager's is not.
func (w *world) clients(ctx context.Context) error {
	admin := rest.CopyConfig(w.Admin)
	admin.QPS = -1
	path, err := w.OperatorKubeconfig(ctx)
	if err != nil {
		return err
	}
	operator, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return fmt.Errorf("cannot read the operator's kubeconfig: %w", err)
	}
	operator.QPS = -1
	if w.web, err = rest.HTTPClientFor(admin); err != nil {
		return fmt.Errorf("cannot make a client: %w", err)
	}
	options := client.Options{Scheme: w.admin.Scheme()}
	if w.user, err = client.NewWithWatch(admin, options); err != nil {
		return fmt.Errorf("cannot make a client: %w", err)
	}
	if w.operator, err = client.NewWithWatch(operator, options); err != nil {
		return fmt.Errorf("cannot make a client: %w", err)
	}
	return nil
}

func (w *world) startTeller(ctx context.Context) error {
	dir, err := w.mkdir("teller")
	if err != nil {
		return err
	}
	if w.teller, err = stage.StartProcess(w.bin, dir, "bench", []string{"PATH=" + os.Getenv("PATH")}, "teller", "-dir", dir); err != nil {
		return err
	}
	w.stops(w.teller)
	return w.await(ctx, startTimeout, "the teller listens", func() (bool, error) {
		address, err := os.ReadFile(filepath.Join(dir, tellerPlaceFile))
		w.address = string(address)
		return err == nil, nil
	})
}

// await asks again and again until something holds.
func (w *world) await(ctx context.Context, patience time.Duration, what string, holds func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if ok, err := holds(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot wait any longer until %s: %w", what, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// tally is what the teller was asked since the last reset.
func (w *world) tally(ctx context.Context) (tally, error) {
	var now tally
	err := w.askTeller(ctx, http.MethodGet, &now)
	return now, err
}

func (w *world) resetTally(ctx context.Context) error {
	return w.askTeller(ctx, http.MethodDelete, nil)
}

func (w *world) askTeller(ctx context.Context, method string, to any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+w.address+"/tally", http.NoBody)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("cannot ask the teller: %w", err)
	}
	defer answer.Body.Close()
	if to == nil {
		return nil
	}
	if err := json.NewDecoder(answer.Body).Decode(to); err != nil {
		return fmt.Errorf("cannot read the teller's answer: %w", err)
	}
	return nil
}

// house makes a namespace with a connector to the teller, and the ConfigMap rows that all jobs in it send.
func (w *world) house(ctx context.Context, namespace string, change func(*v1alpha1.ConnectorInstanceSpec)) error {
	at := metav1.ObjectMeta{Namespace: namespace, Name: "crm"}
	secret := &corev1.Secret{ObjectMeta: at, StringData: map[string]string{"element": tellerElement, "user": tellerUser}}
	secret.Labels = map[string]string{v1alpha1.LabelUse: v1alpha1.UseCredentials}
	connector := &v1alpha1.ConnectorInstance{ObjectMeta: at, Spec: v1alpha1.ConnectorInstanceSpec{
		BaseURL: "http://" + w.address + tellerBase, CredentialsRef: v1alpha1.LocalReference{Name: "crm"},
	}}
	if change != nil {
		change(&connector.Spec)
	}
	rows := &corev1.ConfigMap{ObjectMeta: at, Data: map[string]string{"rows.csv": "name,email\nXenia,xenia@example.com\n"}}
	for _, o := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, secret, connector, rows,
	} {
		if err := w.user.Create(ctx, o); err != nil {
			return fmt.Errorf("cannot make what the jobs need: %w", err)
		}
	}
	return nil
}

// job is one that sends two lines. Jobs with different tokens are different loads, although their content is the same.
func job(namespace, name, object string) *v1alpha1.BulkJob {
	return &v1alpha1.BulkJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.BulkJobSpec{
			ConnectorRef: v1alpha1.LocalReference{Name: "crm"}, Object: object, SendToken: namespace + "/" + name,
			Source: v1alpha1.BulkJobSource{ConfigMap: &v1alpha1.KeyReference{Name: "crm", Key: "rows.csv"}},
		},
	}
}

// startManager starts bin/manager for the whole cluster, as the Deployment does, and returns when it is ready.
func (w *world) startManager(ctx context.Context, args ...string) (*stage.Operator, error) {
	_, port, err := net.SplitHostPort(w.address)
	if err != nil {
		return nil, err
	}
	return w.StartOperator(ctx, w.bin, w.dir, port, args...)
}

// connected waits until the connector of a namespace is Ready.
func (w *world) connected(ctx context.Context, namespace string) error {
	return w.await(ctx, time.Minute, "the connector is Ready", func() (bool, error) {
		ci := &v1alpha1.ConnectorInstance{}
		err := w.user.Get(ctx, client.ObjectKey{Namespace: namespace, Name: "crm"}, ci)
		return meta.IsStatusConditionTrue(ci.Status.Conditions, v1alpha1.ConditionReady), err
	})
}

// requests are how often each thing was asked of the API server since it began, by its own count: "PATCH bulkjobs/status".
// Leases are left out, and whatever the control plane asks of itself.
func (w *world) requests(ctx context.Context) (map[string]int, error) {
	text, err := w.fetch(ctx, w.web, strings.TrimSuffix(w.Admin.Host, "/")+"/metrics")
	if err != nil {
		return nil, err
	}
	return countRequests(text)
}

// countRequests reads the API server's metrics.
func countRequests(text string) (map[string]int, error) {
	counts := map[string]int{}
	for line := range strings.Lines(text) {
		line, found := strings.CutPrefix(line, "apiserver_request_total{")
		if !found {
			continue
		}
		labels, value, found := strings.Cut(line, "} ")
		var n float64
		if _, err := fmt.Sscan(value, &n); !found || err != nil {
			return nil, fmt.Errorf("cannot read the API server's metrics: %q", line)
		}
		what := label(labels, "verb") + " " + label(labels, "resource")
		if sub := label(labels, "subresource"); sub != "" {
			what += "/" + sub
		}
		counts[what] += int(n)
	}
	return counts, nil
}

// label is the value of one label of a metric; none of those asked for holds a quote.
func label(labels, name string) string {
	_, rest, _ := strings.Cut(","+labels, ","+name+`="`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

func (*world) fetch(ctx context.Context, web *http.Client, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	answer, err := web.Do(request)
	if err != nil {
		return "", fmt.Errorf("cannot get a page: %w", err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("cannot get a page: %s", answer.Status)
	}
	return string(text), err
}

// written are the operator's writes between two counts.
func written(before, after map[string]int) (total int, each map[string]int) {
	each = map[string]int{}
	for _, what := range []string{
		"POST bulkreceipts", "PUT bulkreceipts", "PATCH bulkreceipts", "PATCH bulkjobs/status", "PUT bulkjobs/status",
		"DELETE bulkjobs", "POST events", "PATCH events", "PATCH connectorinstances/status",
	} {
		if n := after[what] - before[what]; n > 0 {
			each[what] = n
			total += n
		}
	}
	return total, each
}
