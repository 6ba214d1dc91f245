package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// readyTimeout is generous: two loaded cores need ten seconds, a quiet machine three.
const readyTimeout = 2 * time.Minute

// up runs the control plane in this process and returns when ctx ends (nil) or a part of it fails. When the API
// answers, dir/kubeconfig holds an administrator's access and one line on standard output says so. Data in dir is kept
// and used again; certificates are made anew at each start.
func up(ctx context.Context, dir string, port int) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("cannot resolve the directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot make the directory: %w", err)
	}
	files, err := writeCredentials(filepath.Join(dir, "pki"))
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("cannot listen: %w", err)
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	config, err := writeKubeconfig(kubeconfig, "https://"+listener.Addr().String(), files)
	if err != nil {
		return err
	}
	etcd, err := startEtcd(ctx, filepath.Join(dir, "etcd"))
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() { failed <- serveAPI(ctx, listener, etcd, files) }()
	if err := untilReady(ctx, config, failed); err != nil {
		return err
	}
	go func() { failed <- runControllers(ctx, config) }()
	fmt.Fprintf(os.Stdout, "ready: export KUBECONFIG=%s\n", kubeconfig)

	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// writeKubeconfig writes an administrator's kubeconfig to path and returns the same access as a client configuration,
// without a client-side rate limit.
func writeKubeconfig(path, server string, files credentials) (*rest.Config, error) {
	config := clientcmdapi.NewConfig()
	config.Clusters["controlplane"] = &clientcmdapi.Cluster{Server: server, CertificateAuthority: files.caCert}
	config.AuthInfos["admin"] = &clientcmdapi.AuthInfo{ClientCertificate: files.adminCert, ClientKey: files.adminKey}
	config.Contexts["controlplane"] = &clientcmdapi.Context{Cluster: "controlplane", AuthInfo: "admin"}
	config.CurrentContext = "controlplane"
	if err := clientcmdapi.FlattenConfig(config); err != nil {
		return nil, fmt.Errorf("cannot embed the certificates in the kubeconfig: %w", err)
	}
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return nil, fmt.Errorf("cannot write the kubeconfig: %w", err)
	}
	client, err := clientcmd.NewDefaultClientConfig(*config, nil).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("cannot read the kubeconfig: %w", err)
	}
	client.QPS = -1
	return client, nil
}

// untilReady returns nil when the API server calls itself ready, and the reason when it ends before, or ctx does, or
// readyTimeout has passed.
func untilReady(ctx context.Context, config *rest.Config, failed <-chan error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, errors.New("the API server is not ready in time"))
	defer cancel()
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return fmt.Errorf("cannot make a client: %w", err)
	}
	for ctx.Err() == nil {
		if ready(ctx, client, config.Host) {
			return nil
		}
		select {
		case err := <-failed:
			return err
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	return fmt.Errorf("cannot start: %w", context.Cause(ctx))
}

func ready(ctx context.Context, client *http.Client, host string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, host+"/readyz", nil)
	if err != nil {
		return false
	}
	answer, err := client.Do(request)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}
