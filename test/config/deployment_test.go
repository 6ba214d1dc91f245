package config_test

import (
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func manager(t *testing.T) *appsv1.Deployment {
	t.Helper()
	deployment := &appsv1.Deployment{}
	if err := admin.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "bulkjob-controller-manager"}, deployment); err != nil {
		t.Fatal(err)
	}
	return deployment
}

// TestRestricted asks the API server's own pod security admission whether it lets in the pods of every kustomization that
// has any, and pods that lack any of their precautions not.
func TestRestricted(t *testing.T) {
	const in = "restricted"
	enforcing := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: in, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}}}
	if err := admin.Create(t.Context(), enforcing); err != nil {
		t.Fatal(err)
	}
	container := func(pod *corev1.Pod) *corev1.SecurityContext { return pod.Spec.Containers[0].SecurityContext }
	spoilers := []struct {
		name    string
		spoil   func(*corev1.Pod)
		refused bool
	}{
		{name: "as it is", spoil: func(*corev1.Pod) {}},
		{name: "escalating", spoil: func(p *corev1.Pod) { container(p).AllowPrivilegeEscalation = nil }, refused: true},
		{name: "capable", spoil: func(p *corev1.Pod) { container(p).Capabilities = nil }, refused: true},
		{name: "privileged", spoil: func(p *corev1.Pod) {
			container(p).Privileged = new(true)
			container(p).AllowPrivilegeEscalation = nil
		}, refused: true},
		{name: "as root", spoil: func(p *corev1.Pod) { p.Spec.SecurityContext.RunAsNonRoot = nil }, refused: true},
		{name: "unconfined", spoil: func(p *corev1.Pod) { p.Spec.SecurityContext.SeccompProfile = nil }, refused: true},
		{name: "on the host's network", spoil: func(p *corev1.Pod) { p.Spec.HostNetwork = true }, refused: true},
		{name: "with the host's files", spoil: func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}})
		}, refused: true},
	}
	for kustomization, deployments := range allDeployments(t) {
		for _, deployment := range deployments {
			for _, tc := range spoilers {
				t.Run(kustomization+" "+deployment.Name+" "+tc.name, func(t *testing.T) {
					template := deployment.Spec.Template.DeepCopy()
					pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "manager", Namespace: in, Labels: template.Labels}, Spec: template.Spec}
					tc.spoil(pod)
					err := admin.Create(t.Context(), pod, client.DryRunAll)
					if refused := apierrors.IsForbidden(err) && strings.Contains(err.Error(), "PodSecurity"); refused != tc.refused || !refused && err != nil {
						t.Errorf("got %v, want refused = %t", err, tc.refused)
					}
				})
			}
		}
	}
}

// allDeployments are those of each kustomization under config/ that makes pods. No other kind in it may make any.
func allDeployments(t *testing.T) map[string][]*appsv1.Deployment {
	t.Helper()
	files, err := filepath.Glob(base("*/kustomization.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]*appsv1.Deployment{}
	for _, file := range files {
		name := filepath.Base(filepath.Dir(file))
		for _, object := range render(t, filepath.Dir(file)) {
			switch kind := object.GetKind(); kind {
			case "Deployment":
				found[name] = append(found[name], as[appsv1.Deployment](t, object))
			case "Pod", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "CronJob":
				t.Errorf("config/%s has a %s, which this test does not look into", name, kind)
			}
		}
	}
	for _, name := range []string{"default", "manager", "namespaced", "shard"} {
		if len(found[name]) == 0 {
			t.Errorf("config/%s has no Deployment", name)
		}
	}
	return found
}

// TestOwnNamespaceIsRestricted asserts that the operator's namespace holds every pod in it to the same, in every installation.
func TestOwnNamespaceIsRestricted(t *testing.T) {
	for _, name := range []string{"default", "namespaced", "shard"} {
		if got := only(t, render(t, base(name)), "Namespace").GetLabels()["pod-security.kubernetes.io/enforce"]; got != "restricted" {
			t.Errorf("the namespace of config/%s enforces %q, not restricted", name, got)
		}
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "any", Namespace: namespace}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "any", Image: "any"}}}}
	if err := admin.Create(t.Context(), pod, client.DryRunAll); !apierrors.IsForbidden(err) {
		t.Errorf("a pod without precautions in the operator's namespace: %v, want Forbidden", err)
	}
}

func TestDeployment(t *testing.T) {
	deployment := manager(t)
	pod := deployment.Spec.Template.Spec
	container := pod.Containers[0]
	if got := ptr.Deref(deployment.Spec.Replicas, 0); got != 2 {
		t.Errorf("replicas = %d, want 2: one leads, one stands by", got)
	}
	if got := ptr.Deref(pod.TerminationGracePeriodSeconds, 0); got != 150 {
		t.Errorf("terminationGracePeriodSeconds = %d, want 150: more than the manager's own timeout", got)
	}
	if !ptr.Deref(container.SecurityContext.ReadOnlyRootFilesystem, false) || ptr.Deref(pod.SecurityContext.RunAsUser, 0) != 65532 {
		t.Errorf("the container's file system is writable, or it runs as user %d, want read-only and 65532", ptr.Deref(pod.SecurityContext.RunAsUser, 0))
	}
	if ref := container.Env[0].ValueFrom.ResourceFieldRef; container.Env[0].Name != "GOMEMLIMIT" || ref.Resource != "limits.memory" || container.Resources.Limits.Memory().IsZero() {
		t.Errorf("%s comes from %s, want GOMEMLIMIT from limits.memory, and that limit set", container.Env[0].Name, ref.Resource)
	}
	ports := map[string]int32{}
	for _, port := range container.Ports {
		ports[port.Name] = port.ContainerPort
	}
	if live, ready := container.LivenessProbe.HTTPGet, container.ReadinessProbe.HTTPGet; live.Path != "/healthz" || ready.Path != "/readyz" || ports[live.Port.StrVal] != 8081 || ports[ready.Port.StrVal] != 8081 {
		t.Errorf("probes ask %v and %v of ports %v, want /healthz and /readyz at 8081", live, ready, ports)
	}
	service := &corev1.Service{}
	if err := admin.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "bulkjob-controller-manager-metrics"}, service); err != nil {
		t.Fatal(err)
	}
	for key, value := range service.Spec.Selector {
		if deployment.Spec.Template.Labels[key] != value {
			t.Errorf("the metrics service selects %s=%s, which the pods don't have: %v", key, value, deployment.Spec.Template.Labels)
		}
	}
	if target := service.Spec.Ports[0].TargetPort.StrVal; ports[target] != 8443 {
		t.Errorf("the metrics service leads to port %s of %v, want 8443", target, ports)
	}
}
