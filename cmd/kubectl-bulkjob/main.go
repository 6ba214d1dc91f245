// Command kubectl-bulkjob is kubectl bulkjob: loads for people who don't write YAML. Under the name kubectl_complete-bulkjob it
// completes what they type.
package main

import (
	"os"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"bulkjob.dev/operator/internal/cli"
)

// version is set by the build.
var version = "dev"

func main() {
	os.Exit(cli.Main(version, os.Args, genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}))
}
