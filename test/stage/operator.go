package stage

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

// An Operator is a running bin/manager.
type Operator struct {
	*Process
	// Probes is the address of /healthz and /readyz.
	Probes string
}

// StartOperator runs the manager of bin as its ServiceAccount, allowed to dial that port of this machine, and returns when
// it is ready; if it does not come to be, it is stopped. Its log is in dir.
func (c *ControlPlane) StartOperator(ctx context.Context, bin, dir, port string, args ...string) (*Operator, error) {
	kubeconfig, err := c.OperatorKubeconfig(ctx)
	if err != nil {
		return nil, err
	}
	probes, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	args = append([]string{
		"--allow-http", "--allow-private=127.0.0.1/32:" + port, "--health-probe-bind-address=" + probes,
		"--leader-elect", "--leader-election-namespace=" + OperatorNamespace,
	}, args...)
	env := append([]string{"KUBECONFIG=" + kubeconfig, "HOME=" + dir, "PATH=" + os.Getenv("PATH")}, c.OperatorEnv...)
	process, err := StartProcess(bin, dir, "manager", env, args...)
	if err != nil {
		return nil, err
	}
	o := &Operator{Process: process, Probes: probes}
	if err := o.await(ctx); err != nil {
		o.Kill()
		return nil, err
	}
	return o, nil
}

// await returns once the operator calls itself ready.
func (o *Operator) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		if status, err := get(ctx, "http://"+o.Probes+"/readyz"); err == nil && status == http.StatusOK {
			return nil
		}
		select {
		case <-o.Ended():
			return o.unasked()
		case <-ctx.Done():
			return fmt.Errorf("cannot wait for the manager any longer: %w", context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func get(ctx context.Context, url string) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	return answer.StatusCode, answer.Body.Close()
}

// FreeAddress is an address of this machine that nothing listened on a moment ago.
func FreeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed at once
	if err != nil {
		return "", fmt.Errorf("cannot find a free port: %w", err)
	}
	return listener.Addr().String(), listener.Close()
}
