package install_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"helm.sh/helm/v4/pkg/action"
	"helm.sh/helm/v4/pkg/chart/loader"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/cli"
	"helm.sh/helm/v4/pkg/kube"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
	"bulkjob.dev/operator/test/stage"
)

// patience is for two loaded cores; on a quiet machine everything takes a second or two.
const patience = 90 * time.Second

// account is the operator's, the only one that may write receipts.
const account = "system:serviceaccount:" + stage.OperatorNamespace + ":bulkjob-controller-manager"

// helm is Helm with a release of one name.
type helm struct {
	t      *testing.T
	config *action.Configuration
	chart  *chartv2.Chart
}

func newHelm(t *testing.T, p *stage.ControlPlane) *helm {
	t.Helper()
	settings := cli.New()
	settings.KubeConfig = p.Kubeconfig
	settings.SetNamespace(stage.OperatorNamespace)
	h := &helm{t: t, config: action.NewConfiguration(action.ConfigurationSetLogger(slog.DiscardHandler))}
	if err := h.config.Init(settings.RESTClientGetter(), stage.OperatorNamespace, "secret"); err != nil {
		t.Fatal(err)
	}
	chart, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	h.chart = chart.(*chartv2.Chart)
	return h
}

// install is "helm install"; owning adds --take-ownership and --force-conflicts.
func (h *helm) install(owning bool) error {
	h.t.Helper()
	install := action.NewInstall(h.config)
	install.ReleaseName, install.Namespace, install.CreateNamespace = "bulkjob", stage.OperatorNamespace, true
	install.WaitStrategy, install.TakeOwnership, install.ForceConflicts = kube.HookOnlyStrategy, owning, owning
	_, err := install.Run(h.chart, nil)
	return err
}

func (h *helm) upgrade(with string) {
	h.t.Helper()
	upgrade := action.NewUpgrade(h.config)
	upgrade.Namespace, upgrade.WaitStrategy = stage.OperatorNamespace, kube.HookOnlyStrategy
	if _, err := upgrade.Run("bulkjob", h.chart, values(h.t, with)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *helm) uninstall() {
	h.t.Helper()
	uninstall := action.NewUninstall(h.config)
	uninstall.WaitStrategy = kube.HookOnlyStrategy
	if _, err := uninstall.Run("bulkjob"); err != nil {
		h.t.Fatal(err)
	}
}

// definition reads a CustomResourceDefinition, or nil.
func definition(t *testing.T, admin client.Client, plural string) *unstructured.Unstructured {
	t.Helper()
	crd := &unstructured.Unstructured{}
	crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
	switch err := admin.Get(t.Context(), client.ObjectKey{Name: plural + ".bulkjob.dev"}, crd); {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		t.Fatal(err)
	}
	return crd
}

// memory is what an installation must not lose: a job and a receipt, in a namespace of their own.
type memory struct{ job, receipt, definition types.UID }

// remember makes them; the definitions may be served only a moment after they were made.
func remember(t *testing.T, p *stage.ControlPlane, admin client.Client) memory {
	t.Helper()
	kubectl(t, p, "wait", "--for=condition=Established", "--timeout=60s", "crd",
		"bulkjobs.bulkjob.dev", "bulkreceipts.bulkjob.dev", "connectorinstances.bulkjob.dev")
	if err := admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "crm"}}); err != nil {
		t.Fatal(err)
	}
	job := &v1alpha1.BulkJob{ObjectMeta: metav1.ObjectMeta{Name: "contacts", Namespace: "crm"}, Spec: v1alpha1.BulkJobSpec{
		ConnectorRef: v1alpha1.LocalReference{Name: "crm-db"}, Object: "contact",
		Source: v1alpha1.BulkJobSource{ConfigMap: &v1alpha1.KeyReference{Name: "contacts", Key: "contacts.csv"}},
	}}
	if err := admin.Create(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	operator, err := client.New(as(p, account), client.Options{Scheme: admin.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	receipt := &v1alpha1.BulkReceipt{
		ObjectMeta: metav1.ObjectMeta{Name: "br-" + strings.Repeat("a", 52), Namespace: "crm"},
		Spec: v1alpha1.BulkReceiptSpec{
			Algorithm: 1, Target: "crm-db", Object: "contact", Action: v1alpha1.ActionCreate,
			Format: v1alpha1.FormatCSV, Compression: v1alpha1.CompressionNone,
		},
		Record: v1alpha1.BulkReceiptRecord{
			ConnectorRef: v1alpha1.LocalReference{Name: "crm-db"}, TargetFingerprint: "f", BindingHash: "b",
			ClaimedFor: v1alpha1.JobReference{Name: "contacts", UID: string(job.UID)}, DeletionPolicy: v1alpha1.DeletionOrphan,
			Attempts: []v1alpha1.Attempt{{Number: 1, Nonce: "n", Holder: "h", At: metav1.NowMicro(), SubmitTimeoutSeconds: 60}},
		},
	}
	err = wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		err := operator.Create(ctx, receipt)
		return err == nil, client.IgnoreNotFound(forbidden(err))
	})
	if err != nil {
		t.Fatalf("the operator cannot write a receipt: %v", err)
	}
	return memory{job: job.UID, receipt: receipt.UID, definition: definition(t, admin, "bulkreceipts").GetUID()}
}

// forbidden drops the refusal of a server that has not yet learned of a role.
func forbidden(err error) error {
	if apierrors.IsForbidden(err) {
		return nil
	}
	return err
}

func as(p *stage.ControlPlane, user string) *rest.Config {
	config := rest.CopyConfig(p.Admin)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:authenticated"}}
	return config
}

// kept asserts that nothing of it was lost, nor made anew.
func (m memory) kept(t *testing.T, admin client.Client, after string) {
	t.Helper()
	if crd := definition(t, admin, "bulkreceipts"); crd == nil || crd.GetUID() != m.definition {
		t.Fatalf("after %s the definition of receipts is gone, or another", after)
	}
	for uid, object := range map[types.UID]client.Object{m.job: &v1alpha1.BulkJob{}, m.receipt: &v1alpha1.BulkReceipt{}} {
		name := "contacts"
		if uid == m.receipt {
			name = "br-" + strings.Repeat("a", 52)
		}
		if err := admin.Get(t.Context(), client.ObjectKey{Namespace: "crm", Name: name}, object); err != nil || object.GetUID() != uid {
			t.Errorf("after %s %s is gone, or another: %v", after, name, err)
		}
	}
}

// operators counts the operator's Deployments.
func operators(t *testing.T, admin client.Client) int {
	t.Helper()
	list := &appsv1.DeploymentList{}
	if err := admin.List(t.Context(), list, client.InNamespace(stage.OperatorNamespace)); err != nil {
		t.Fatal(err)
	}
	return len(list.Items)
}

// gone waits until the definition of receipts is no longer there.
func gone(t *testing.T, admin client.Client) bool {
	t.Helper()
	return wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		return definition(t, admin, "bulkreceipts") == nil, nil
	}) == nil
}

// TestHelmsLife installs, upgrades, uninstalls and installs again, and at last has the memory deleted on purpose.
func TestHelmsLife(t *testing.T) {
	p, admin := plane(t)
	h := newHelm(t, p)
	if err := h.install(false); err != nil {
		t.Fatal(err)
	}
	m := remember(t, p, admin)
	if n := operators(t, admin); n != 1 {
		t.Fatalf("%d Deployments after the installation", n)
	}

	for _, file := range h.chart.Templates { // a release that tells more of its kinds
		if file.Name == "templates/crds.yaml" {
			file.Data = []byte(strings.Replace(string(file.Data), "shortNames:", "shortNames:\n    - newer", 1))
		}
	}
	h.upgrade("replicas: 3")
	m.kept(t, admin, "an upgrade")
	names, _, err := unstructured.NestedStringSlice(definition(t, admin, "bulkjobs").Object, "spec", "names", "shortNames")
	if err != nil || !slices.Contains(names, "newer") {
		t.Errorf("an upgrade left the definition of jobs as it was: %v, %v", names, err)
	}

	h.upgrade("cluster: {enabled: false}")
	m.kept(t, admin, "cluster.enabled=false")
	h.upgrade("cluster: {enabled: true}")
	m.kept(t, admin, "cluster.enabled=true")

	h.uninstall()
	m.kept(t, admin, "helm uninstall")
	if n := operators(t, admin); n != 0 {
		t.Errorf("%d Deployments after helm uninstall", n)
	}

	if err := h.install(false); err != nil {
		t.Fatalf("cannot install again over what was left: %v", err)
	}
	m.kept(t, admin, "another installation")

	h.upgrade("cluster: {keep: false}")
	m.kept(t, admin, "cluster.keep=false alone")
	h.uninstall()
	if !gone(t, admin) {
		t.Error("helm uninstall leaves the definitions, though cluster.keep=false told it not to")
	}
}

// TestHelmTakesOver installs where kubectl did before.
func TestHelmTakesOver(t *testing.T) {
	p, admin := plane(t)
	apply(t, p, manifests(t))
	m := remember(t, p, admin)
	h := newHelm(t, p)
	if err := h.install(false); err == nil || !strings.Contains(err.Error(), "ownership") {
		t.Errorf("Helm takes what is kubectl's without being told to: %v", err)
	}
	if err := h.install(true); err != nil {
		t.Fatal(err)
	}
	m.kept(t, admin, "Helm took over")
	h.uninstall()
	m.kept(t, admin, "helm uninstall")
}
