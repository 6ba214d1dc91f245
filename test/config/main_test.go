// Package config_test renders config/ as a user would, installs it into a real
// API server, and asks that server who may do what.
package config_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"bulkjob.dev/operator/api/v1alpha1"
)

const (
	root      = "../.."
	namespace = "bulkjob-system"
	operator  = "system:serviceaccount:" + namespace + ":bulkjob-controller-manager"
)

var (
	config *rest.Config
	user   *envtest.AuthenticatedUser
	scheme = runtime.NewScheme()
	// admin is a client of a cluster administrator.
	admin client.Client
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// run starts a control plane, installs config/default into it with kubectl, and runs the tests.
func run(m *testing.M) (code int, err error) {
	controlPlane := &envtest.Environment{ControlPlaneStartTimeout: time.Minute}
	if config, err = controlPlane.Start(); err != nil {
		return 1, fmt.Errorf("cannot start a control plane: %w\n"+
			"Run make test, or set KUBEBUILDER_ASSETS to a directory with etcd, kube-apiserver and kubectl", err)
	}
	defer func() {
		if stopErr := controlPlane.Stop(); stopErr != nil && err == nil {
			code, err = 1, fmt.Errorf("cannot stop the control plane: %w", stopErr)
		}
	}()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return 1, fmt.Errorf("cannot make the scheme: %w", err)
		}
	}
	if admin, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		return 1, fmt.Errorf("cannot make a client: %w", err)
	}
	if user, err = controlPlane.AddUser(envtest.User{Name: "administrator", Groups: []string{"system:masters"}}, nil); err != nil {
		return 1, fmt.Errorf("cannot add a user for kubectl: %w", err)
	}
	if _, err := kubectl("apply", "--server-side", "-k", filepath.Join(root, "config", "default")); err != nil {
		return 1, err
	}
	if err := aggregate(context.Background()); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// kubectl runs the control plane's own kubectl as an administrator and returns what it prints.
func kubectl(args ...string) (string, error) {
	tool, err := user.Kubectl()
	if err != nil {
		return "", fmt.Errorf("cannot prepare kubectl: %w", err)
	}
	stdout, stderr, err := tool.Run(args...)
	if err != nil {
		said, readErr := io.ReadAll(stderr)
		if readErr != nil {
			return "", fmt.Errorf("cannot read what kubectl said: %w", readErr)
		}
		return "", fmt.Errorf("cannot run kubectl %s: %w\n%s", strings.Join(args, " "), err, said)
	}
	text, err := io.ReadAll(stdout)
	return string(text), err
}

// aggregate fills in the cluster's own roles as kube-controller-manager does,
// which envtest has not. view comes first, since edit and admin take it up.
func aggregate(ctx context.Context) error {
	for _, name := range []string{"view", "edit", "admin"} {
		role, all := &rbacv1.ClusterRole{}, &rbacv1.ClusterRoleList{}
		if err := admin.Get(ctx, client.ObjectKey{Name: name}, role); err != nil {
			return fmt.Errorf("cannot read the role %s: %w", name, err)
		}
		if err := admin.List(ctx, all); err != nil {
			return fmt.Errorf("cannot list the roles: %w", err)
		}
		role.Rules = nil
		for i := range all.Items {
			selected, err := selects(role.AggregationRule, all.Items[i].Labels)
			if err != nil {
				return err
			}
			if selected && all.Items[i].Name != name {
				role.Rules = append(role.Rules, all.Items[i].Rules...)
			}
		}
		if err := admin.Update(ctx, role); err != nil {
			return fmt.Errorf("cannot aggregate the role %s: %w", name, err)
		}
	}
	return nil
}

func selects(rule *rbacv1.AggregationRule, set labels.Set) (bool, error) {
	for i := range rule.ClusterRoleSelectors {
		selector, err := metav1.LabelSelectorAsSelector(&rule.ClusterRoleSelectors[i])
		if err != nil {
			return false, fmt.Errorf("cannot read an aggregation rule: %w", err)
		}
		if selector.Matches(set) {
			return true, nil
		}
	}
	return false, nil
}
