package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// Names that config/default gives the operator.
const (
	OperatorNamespace = "bulkjob-system"
	operatorAccount   = "bulkjob-controller-manager"
)

// startTimeout of each program is for a machine with two loaded cores; a quiet one needs three seconds for the slowest.
const startTimeout = time.Minute

// A ControlPlane is etcd and kube-apiserver, with role-based access control on and without nodes.
type ControlPlane struct {
	// Admin may do everything.
	Admin *rest.Config
	// Kubeconfig is the path of an administrator's access.
	Kubeconfig string
	// OperatorEnv is added to the environment of the operators started from now on, in os.Environ's form.
	OperatorEnv []string

	dir         string
	environment *envtest.Environment
}

// StartControlPlane starts the binaries in KUBEBUILDER_ASSETS. Files are kept in dir, which is the caller's.
func StartControlPlane(dir string) (*ControlPlane, error) {
	assets := os.Getenv("KUBEBUILDER_ASSETS")
	if assets == "" {
		return nil, errors.New("cannot find a control plane: use make, or set KUBEBUILDER_ASSETS to what `make controlplane` prints last")
	}
	environment := &envtest.Environment{
		BinaryAssetsDirectory: assets, ControlPlaneStartTimeout: startTimeout,
		UseExistingCluster: new(false), // whatever the environment says: this is not for anybody's cluster
	}
	c := &ControlPlane{dir: dir, environment: environment, Kubeconfig: filepath.Join(dir, "kubeconfig")}
	var err error
	if c.Admin, err = environment.Start(); err == nil {
		err = c.writeKubeconfig(c.Kubeconfig, nil, "default")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot start the control plane: %w", err), environment.Stop())
	}
	return c, nil
}

// Etcd is the URL at which etcd takes requests. What is written there is in the cluster, unseen by any admission.
func (c *ControlPlane) Etcd() string { return c.environment.ControlPlane.Etcd.URL.String() }

// Stop ends both servers and removes their data.
func (c *ControlPlane) Stop() error { return c.environment.Stop() }

// Use makes namespace the one that the administrator's kubeconfig speaks of.
func (c *ControlPlane) Use(namespace string) error {
	return c.writeKubeconfig(c.Kubeconfig, nil, namespace)
}

// writeKubeconfig writes a kubeconfig for user; nil is the administrator.
func (c *ControlPlane) writeKubeconfig(path string, user *clientcmdapi.AuthInfo, namespace string) error {
	config, err := clientcmd.Load(c.environment.KubeConfig)
	if err != nil {
		return fmt.Errorf("cannot read the administrator's kubeconfig: %w", err)
	}
	current := config.Contexts[config.CurrentContext]
	current.Namespace = namespace
	if user != nil {
		config.AuthInfos[current.AuthInfo] = user
	}
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return fmt.Errorf("cannot write a kubeconfig: %w", err)
	}
	return nil
}

// Kubectl runs the real one as the administrator, and returns what it printed. It sees no settings of the user's.
func (c *ControlPlane) Kubectl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.environment.BinaryAssetsDirectory, "kubectl"), args...)
	cmd.Env = []string{"KUBECONFIG=" + c.Kubeconfig, "HOME=" + c.dir, "PATH=" + os.Getenv("PATH")}
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("cannot run kubectl %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(problem.Bytes()))
	}
	return out.String(), nil
}

// Install applies config/default of the clone at root, as the README tells to, and waits until the kinds are served.
// The Deployment in it stays without pods, since there are no nodes: StartOperator runs in its place.
func (c *ControlPlane) Install(ctx context.Context, root string) error {
	if _, err := c.Kubectl(ctx, "apply", "--server-side", "-k", filepath.Join(root, "config", "default")); err != nil {
		return err
	}
	_, err := c.Kubectl(ctx, "wait", "--for=condition=Established", "--timeout=60s", "crd",
		"bulkjobs.bulkjob.dev", "bulkreceipts.bulkjob.dev", "connectorinstances.bulkjob.dev")
	return err
}

// Token is a fresh token of a ServiceAccount, good for a week.
func (c *ControlPlane) Token(ctx context.Context, namespace, account string) (string, error) {
	token, err := c.Kubectl(ctx, "create", "token", "--duration=168h", "--namespace="+namespace, account)
	return strings.TrimSpace(token), err
}

// OperatorKubeconfig writes one whose user is the operator's ServiceAccount, so that it may do what config/rbac says.
func (c *ControlPlane) OperatorKubeconfig(ctx context.Context) (string, error) {
	token, err := c.Token(ctx, OperatorNamespace, operatorAccount)
	if err != nil {
		return "", err
	}
	path := filepath.Join(c.dir, "operator.kubeconfig")
	return path, c.writeKubeconfig(path, &clientcmdapi.AuthInfo{Token: token}, OperatorNamespace)
}
