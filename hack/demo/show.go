package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"bulkjob.dev/operator/internal/endpoint/pgtest"
	"bulkjob.dev/operator/test/stage"
)

const (
	namespace = "demo"
	object    = "contact"
	job       = "contacts"
	renamed   = "clients" // sorts before contacts, so that the last line is about the job that did the work

	// delay at the endpoint in each state, so that there is something to see.
	delay = "3s"

	// grace is longer than the manager's own for uploads; there are none by then.
	grace    = 30 * time.Second
	logLines = 20
)

// show is everything that is on the stage. What is nil hasn't come on yet.
type show struct {
	root, bin, dir string

	cluster  *stage.ControlPlane
	database *pgtest.Cluster
	url      string // of the database
	crm      *crm
	endpoint *stage.Endpoint
	manager  *stage.Operator
}

func sayf(format string, args ...any) { fmt.Printf("\n==> "+format+"\n", args...) }

func (s *show) controlPlane(context.Context) (err error) {
	sayf("Starting a control plane: etcd and kube-apiserver")
	s.cluster, err = stage.StartControlPlane(s.dir)
	return err
}

func (s *show) target(ctx context.Context, target string) (err error) {
	args := []string{"-processing-delay=" + delay}
	switch target {
	case "postgresql":
		sayf("Starting a throw-away PostgreSQL cluster, with a table %s, and bin/bulk-endpoint before it", object)
		err = s.postgresql(ctx)
	case "basecrm":
		sayf("Starting a stand-in for Base CRM's REST API, with its limits, and bin/bulk-endpoint before it")
		var more []string
		more, err = s.baseCRM(ctx)
		args = append(args, more...)
	default:
		sayf("Starting bin/bulk-endpoint, which keeps rows in memory (TARGET=postgresql loads a real table, TARGET=basecrm a CRM)")
	}
	if err != nil {
		return err
	}
	s.endpoint, err = stage.StartEndpoint(ctx, s.bin, s.dir, s.url, args...)
	return err
}

func (s *show) operator(ctx context.Context) (err error) {
	sayf("Installing the operator: kubectl apply --server-side -k config/default")
	if err := s.cluster.Install(ctx, s.root); err != nil {
		return err
	}
	sayf("Starting bin/manager, with the rights of its ServiceAccount and no others")
	s.manager, err = s.cluster.StartOperator(ctx, s.bin, s.dir, s.endpoint.Port())
	return err
}

// keep leaves all up until the user has seen enough.
func (s *show) keep(ctx context.Context) {
	sayf("All of it stays up. In another terminal:\n\n    export KUBECONFIG=%s", s.cluster.Kubeconfig)
	if _, err := exec.LookPath("kubectl"); err != nil {
		fmt.Printf("    export PATH=$PATH:%s\n", os.Getenv("KUBEBUILDER_ASSETS"))
	}
	fmt.Print("    kubectl get bulk\n\n")
	fmt.Printf("The manifests are in config/samples, the logs in %s.\nCtrl-C here (or kill %d) ends everything and removes it.\n", s.dir, os.Getpid())
	select {
	case <-ctx.Done():
	case <-s.manager.Ended():
		fmt.Println("The manager has ended:\n" + s.manager.Tail(logLines))
	case <-s.endpoint.Ended():
		fmt.Println("The endpoint has ended:\n" + s.endpoint.Tail(logLines))
	}
}

// close ends what is up, in the opposite order, and removes every file.
func (s *show) close() error {
	var errs []error
	if s.manager != nil {
		errs = append(errs, s.manager.Stop(grace))
	}
	if s.endpoint != nil {
		errs = append(errs, s.endpoint.Stop(grace))
	}
	if s.database != nil {
		s.database.Stop()
	}
	if s.crm != nil {
		errs = append(errs, s.crm.close())
	}
	if s.cluster != nil {
		errs = append(errs, s.cluster.Stop())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// explain shows what the programs had to say before a failure.
func (s *show) explain() {
	for _, name := range []string{"bulk-endpoint", "manager"} {
		p := stage.Process{Name: name, Log: filepath.Join(s.dir, name+".log")}
		if _, missing := os.Stat(p.Log); missing == nil {
			fmt.Fprintf(os.Stderr, "\n--- the end of what %s wrote:\n%s\n", name, p.Tail(logLines))
		}
	}
}
