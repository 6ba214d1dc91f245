package config_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkjob.dev/operator/api/v1alpha1"
)

// called is a base with the component of callbacks.
func called(t *testing.T, name string) string {
	t.Helper()
	return with(t, name, "../../callback/operator")
}

// with is a base with a component.
func with(t *testing.T, name, component string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "config"))); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(filepath.Join(dir, name, "operator", "kustomization.yaml"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString("\ncomponents: [" + component + "]\n"); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// TestCallbacksComponent asserts that, wherever the component is added, each manager listens, and the Service leads to it.
func TestCallbacksComponent(t *testing.T) {
	policy := as[networkingv1.NetworkPolicy](t, only(t, render(t, base("callback/network-policy")), "NetworkPolicy"))
	for name, managers := range map[string]int{"default": 1, "shard": 2, "namespaced": 1} {
		t.Run(name, func(t *testing.T) {
			var services []*corev1.Service
			var deployments []*appsv1.Deployment
			for _, object := range render(t, called(t, name)) {
				switch {
				case object.GetKind() == "Service" && strings.Contains(object.GetName(), "callbacks"):
					services = append(services, as[corev1.Service](t, object))
				case object.GetKind() == "Deployment":
					deployments = append(deployments, as[appsv1.Deployment](t, object))
				}
			}
			if len(services) != 1 || len(deployments) != managers {
				t.Fatalf("%d Services and %d Deployments, want 1 and %d", len(services), len(deployments), managers)
			}
			service := services[0]
			if service.Name != "bulkjob-controller-manager-callbacks" || service.Namespace != namespace {
				t.Errorf("the Service is %s in %s", service.Name, service.Namespace)
			}
			for _, deployment := range deployments {
				pod := deployment.Spec.Template
				if !labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(pod.Labels)) || deployment.Namespace != service.Namespace {
					t.Errorf("the Service selects %v, which %s doesn't have", service.Spec.Selector, deployment.Name)
				}
				if !labels.SelectorFromSet(policy.Spec.PodSelector.MatchLabels).Matches(labels.Set(pod.Labels)) || policy.Namespace != deployment.Namespace {
					t.Errorf("the policy lets callbacks in to %v, which %s doesn't have", policy.Spec.PodSelector.MatchLabels, deployment.Name)
				}
				container := pod.Spec.Containers[0]
				at := slices.IndexFunc(container.Ports, func(p corev1.ContainerPort) bool { return p.Name == service.Spec.Ports[0].TargetPort.StrVal })
				if at < 0 || container.Ports[at].ContainerPort != 8444 || policy.Spec.Ingress[0].Ports[0].Port.IntVal != 8444 {
					t.Errorf("%s has the ports %v", deployment.Name, container.Ports)
				}
				for _, arg := range []string{"--callback-bind-address=:8444", "--callback-url=https://bulkjob.example.com"} {
					if !slices.Contains(container.Args, arg) {
						t.Errorf("%s lacks %s: %v", deployment.Name, arg, container.Args)
					}
				}
			}
		})
	}
}

// TestOperatorMayMark asserts that rights and policy let the operator leave its marks on receipts, wherever it works.
func TestOperatorMayMark(t *testing.T) {
	enforced(t)
	settle(t)
	stored := receipt("m")
	if err := asUser(t, operator).Create(t.Context(), stored); err != nil {
		t.Fatal(err)
	}
	marked := stored.DeepCopy()
	marked.Annotations = map[string]string{v1alpha1.AnnotationPollRequestedAt: "2026-01-02T03:04:05Z", v1alpha1.AnnotationCallbackJob: "0123456789abcdef/42"}
	patch := client.MergeFromWithOptions(stored, client.MergeFromWithOptimisticLock{})
	if err := asUser(t, operator).Patch(t.Context(), marked, patch); err != nil {
		t.Errorf("the operator may not mark: %v", err)
	}
}
