// Command controlplane is a real Kubernetes control plane in one static binary, for tests and demos on machines that can
// reach nothing but a Go module proxy.
//
// Called as etcd, kube-apiserver or kubectl (by a link of that name) it is exactly that program, so envtest runs it
// unchanged. As "controlplane up" it is all of them in one process, with the few controllers that make deletion work.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	switch name := filepath.Base(os.Args[0]); name {
	case "etcd":
		exitWithParent()
		etcdmain.Main(os.Args)
	case "kube-apiserver":
		exitWithParent()
		os.Exit(cli.Run(app.NewAPIServerCommand()))
	case "kubectl":
		kubectl()
	default:
		if err := run(os.Args[1:]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			os.Exit(1)
		}
	}
}

// run executes "controlplane up" and returns when it is told to stop, at once: the servers' own graceful ends take
// tens of seconds, because watches of this very process stay open.
func run(args []string) error {
	if len(args) == 0 || args[0] != "up" {
		return errors.New("usage: controlplane up --dir DIRECTORY [--port NUMBER]")
	}
	flags := flag.NewFlagSet("controlplane up", flag.ContinueOnError)
	dir := flags.String("dir", "", "`directory` for the data, the certificates and the kubeconfig")
	port := flags.Int("port", 0, "`number` of the API server's port on 127.0.0.1 (0: any free one)")
	switch err := flags.Parse(args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	case *dir == "":
		return errors.New("cannot start without --dir")
	}
	exitWithParent()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return up(ctx, *dir, *port)
}

// kubectl reads the verbosity before the command exists, because building the command already logs.
func kubectl() {
	_, _ = logs.GlogSetter(cmd.GetLogVerbosity(os.Args)) // a bad level is reported again by the command itself
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
}
