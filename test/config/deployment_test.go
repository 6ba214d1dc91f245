package config_test

import (
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

// TestRestricted asks the API server's own pod security admission whether it lets the operator's pod in, and pods that
// lack any of its precautions not.
func TestRestricted(t *testing.T) {
	container := func(pod *corev1.Pod) *corev1.SecurityContext { return pod.Spec.Containers[0].SecurityContext }
	for _, tc := range []struct {
		name, reason string
		spoil        func(*corev1.Pod)
		refused      bool
	}{
		{name: "as it is", reason: "the namespace enforces restricted", spoil: func(*corev1.Pod) {}},
		{name: "escalating", reason: "restricted is enforced", spoil: func(p *corev1.Pod) { container(p).AllowPrivilegeEscalation = nil }, refused: true},
		{name: "capable", reason: "restricted is enforced", spoil: func(p *corev1.Pod) { container(p).Capabilities = nil }, refused: true},
		{name: "as root", reason: "restricted is enforced", spoil: func(p *corev1.Pod) { p.Spec.SecurityContext.RunAsNonRoot = nil }, refused: true},
		{name: "unconfined", reason: "restricted is enforced", spoil: func(p *corev1.Pod) { p.Spec.SecurityContext.SeccompProfile = nil }, refused: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			template := manager(t).Spec.Template
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "manager", Namespace: namespace, Labels: template.Labels}, Spec: template.Spec}
			tc.spoil(pod)
			err := admin.Create(t.Context(), pod, client.DryRunAll)
			if refused := apierrors.IsForbidden(err) && strings.Contains(err.Error(), "PodSecurity"); refused != tc.refused || !refused && err != nil {
				t.Errorf("%s: got %v, want refused = %t", tc.reason, err, tc.refused)
			}
		})
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
