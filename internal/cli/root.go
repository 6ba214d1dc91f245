// Package cli is kubectl bulkjob: loads for people who don't write YAML. It acts with its user's own rights, in one namespace, and asks
// for nothing beyond it. What is printed for people goes to the standard output, how things stand meanwhile to the standard error.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"bulkjob.dev/operator/internal/cli/render"
)

// completer is the name of the program by which kubectl asks a plugin for completions.
const completer = "kubectl_complete-bulkjob"

// Main runs the program with its name and arguments, and returns its exit code.
func Main(version string, args []string, streams genericiooptions.IOStreams) int {
	log.SetLogger(logr.Discard())
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		signal.Stop(signals) // a second one ends the program at once
		cancel(errInterrupted)
	}()
	err := Run(ctx, version, args, streams)
	if cause := context.Cause(ctx); cause != nil && err != nil && codeOf(err) == exitError {
		err = cause
	}
	if err != nil && !errors.Is(err, errShown) {
		fmt.Fprintln(streams.ErrOut, "Error:", render.Plain(err.Error()))
	}
	return codeOf(err)
}

// Run runs the program with its name and arguments.
func Run(ctx context.Context, version string, args []string, streams genericiooptions.IOStreams) error {
	words := args[1:]
	if strings.TrimSuffix(filepath.Base(args[0]), ".exe") == completer {
		words = append([]string{cobra.ShellCompRequestCmd}, words...)
	}
	cmd := Command(version, streams)
	cmd.SetArgs(words)
	return cmd.ExecuteContext(ctx)
}

// app is what all commands share.
type app struct {
	flags   *genericclioptions.ConfigFlags
	streams genericiooptions.IOStreams
}

// Command is the whole program.
func Command(version string, streams genericiooptions.IOStreams) *cobra.Command {
	a := &app{flags: genericclioptions.NewConfigFlags(true), streams: streams}
	root := &cobra.Command{
		Use:   "kubectl-bulkjob",
		Short: "Load files into the objects of connectors, and see what became of them",
		Long: `Load CSV and JSON files into the objects of connectors, and see what became of them.

What you may not do with kubectl you may not do here: the program has your rights and no others.`,
		Version:           version,
		Annotations:       map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl bulkjob"},
		SilenceUsage:      true,
		SilenceErrors:     true,
		DisableAutoGenTag: true,
	}
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.ErrOut)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return misused("cannot read the arguments: %w", err) })
	a.flags.AddFlags(root.PersistentFlags())
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return misused("there is no command %q: kubectl bulkjob --help lists them", args[0])
		}
		return cmd.Help()
	}
	root.Args = cobra.ArbitraryArgs
	root.AddCommand(
		a.send(), a.plan(), a.get(), a.watch(), a.errors(), a.repair(), a.cancel(), a.retry(), a.resolve(), a.objects(), a.receipts(),
	)
	return root
}

// run makes a command's function of what it does in a session.
func (a *app) run(o *output, do func(ctx context.Context, s *session, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := o.check(); err != nil {
			return err
		}
		s, err := newSession(a.flags, a.streams)
		if err != nil {
			return err
		}
		return do(cmd.Context(), s, args)
	}
}

// argument wants exactly one argument.
func argument(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return misused("cannot go on without one %s: kubectl bulkjob %s", name, cmd.Use)
		}
		return nil
	}
}
