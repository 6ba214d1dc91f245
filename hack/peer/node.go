package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

const nodeName = "here"

// node is a kubelet and a scheduler in one, as little of both as will do.
type node struct {
	client kubernetes.Interface
	slots  chan struct{}

	mu   sync.Mutex
	seen map[types.UID]bool
}

func newNode(client kubernetes.Interface, pods int) *node {
	return &node{client: client, slots: make(chan struct{}, pods), seen: map[types.UID]bool{}}
}

// watch has every pod run once.
func (n *node) watch(ctx context.Context, pods cache.SharedIndexInformer) error {
	_, err := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(o any) {
		pod, ok := o.(*corev1.Pod)
		if !ok || pod.Status.Phase != corev1.PodPending || pod.Spec.NodeName != "" {
			return
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		if !n.seen[pod.UID] {
			n.seen[pod.UID] = true
			go n.serve(ctx, pod.DeepCopy())
		}
	}})
	return err
}

// serve brings a pod from its binding to its end, with the least of writes: a kubelet makes one more, and five events.
func (n *node) serve(ctx context.Context, pod *corev1.Pod) {
	select {
	case n.slots <- struct{}{}:
		defer func() { <-n.slots }()
	case <-ctx.Done():
		return
	}
	if err := n.run(ctx, pod); err != nil && ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "cannot run pod %s: %v\n", pod.Name, err)
	}
}

func (n *node) run(ctx context.Context, pod *corev1.Pod) error {
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: nodeName},
	}
	if err := n.client.CoreV1().Pods(pod.Namespace).Bind(ctx, binding, metav1.CreateOptions{}); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "peer-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := n.mount(ctx, pod, dir); err != nil {
		return err
	}
	began := metav1.Now()
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: began}}
	if err := n.tell(ctx, pod, corev1.PodRunning, began, running); err != nil {
		return err
	}
	phase, ended := corev1.PodSucceeded, corev1.ContainerStateTerminated{StartedAt: began, Reason: "Completed"}
	if err := execute(ctx, &pod.Spec.Containers[0], dir); err != nil {
		phase, ended.ExitCode, ended.Reason = corev1.PodFailed, 1, "Error"
		fmt.Fprintf(os.Stderr, "%s: %v\n", pod.Name, err)
	}
	ended.FinishedAt = metav1.Now()
	return n.tell(ctx, pod, phase, began, corev1.ContainerState{Terminated: &ended})
}

// mount writes the ConfigMaps of the pod's volumes into the folder in which its command runs.
func (n *node) mount(ctx context.Context, pod *corev1.Pod, dir string) error {
	for _, volume := range pod.Spec.Volumes {
		if volume.ConfigMap == nil {
			continue
		}
		values, err := n.client.CoreV1().ConfigMaps(pod.Namespace).Get(ctx, volume.ConfigMap.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for key, value := range values.Data {
			if err := os.WriteFile(filepath.Join(dir, key), []byte(value), 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

func execute(ctx context.Context, container *corev1.Container, dir string) error {
	command := append(append([]string{}, container.Command...), container.Args...)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir, cmd.Env = dir, []string{"PATH=" + os.Getenv("PATH")}
	for _, v := range container.Env {
		cmd.Env = append(cmd.Env, v.Name+"="+v.Value)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %.200s", err, out)
	}
	return nil
}

// tell patches a pod's status as a kubelet does.
func (n *node) tell(ctx context.Context, pod *corev1.Pod, phase corev1.PodPhase, began metav1.Time, state corev1.ContainerState) error {
	ready := corev1.ConditionFalse
	if phase == corev1.PodRunning {
		ready = corev1.ConditionTrue
	}
	now := metav1.NewTime(time.Now())
	status := corev1.PodStatus{
		Phase: phase, StartTime: &began, HostIP: "127.0.0.1", PodIP: "127.0.0.1",
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: pod.Spec.Containers[0].Name, Image: pod.Spec.Containers[0].Image, State: state, Ready: phase == corev1.PodRunning,
		}},
	}
	for _, kind := range []corev1.PodConditionType{corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady} {
		condition := corev1.PodCondition{Type: kind, Status: ready, LastTransitionTime: now}
		if kind == corev1.PodInitialized {
			condition.Status = corev1.ConditionTrue
		}
		status.Conditions = append(status.Conditions, condition)
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status})
	if err != nil {
		return err
	}
	_, err = n.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}
