package main

import (
	"context"
	"fmt"
	"net"

	"github.com/spf13/pflag"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

// serveAPI runs kube-apiserver on listener until ctx ends or it fails. It takes the way of kube-apiserver's own
// command, but with a listener that is open already, so no port can be lost to another process in between.
func serveAPI(ctx context.Context, listener net.Listener, etcd string, files credentials) error {
	server := options.NewServerRunOptions()
	flags := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	for _, set := range server.Flags().FlagSets {
		flags.AddFlagSet(set)
	}
	if err := flags.Parse([]string{
		"--etcd-servers=" + etcd,
		"--authorization-mode=RBAC",
		"--allow-privileged=true",
		"--service-cluster-ip-range=10.0.0.0/24",
		// No pods, so nobody needs the kubernetes service's endpoints; looking for an address to put there fails offline.
		"--advertise-address=127.0.0.1",
		"--endpoint-reconciler-type=none",
		"--client-ca-file=" + files.caCert,
		"--tls-cert-file=" + files.serverCert,
		"--tls-private-key-file=" + files.serverKey,
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + files.tokenKey,
		"--service-account-signing-key-file=" + files.tokenKey,
	}); err != nil {
		return fmt.Errorf("cannot set kube-apiserver's flags: %w", err)
	}
	server.SecureServing.Listener = listener
	if err := server.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return fmt.Errorf("cannot set kube-apiserver's feature gates: %w", err)
	}
	completed, err := server.Complete(ctx)
	if err != nil {
		return fmt.Errorf("cannot complete kube-apiserver's options: %w", err)
	}
	if err := app.Run(ctx, completed); err != nil {
		return fmt.Errorf("cannot run kube-apiserver: %w", err)
	}
	return nil
}
