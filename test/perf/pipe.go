package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"runtime/pprof"
	"strconv"

	"bulkjob.dev/operator/internal/csvstream"
	"bulkjob.dev/operator/internal/dial"
	"bulkjob.dev/operator/internal/openconnectors"
)

// runPipe is the manager's path of one upload and nothing else of the manager, for profiles: what bounds a row is best
// seen where nothing else runs.
func runPipe(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("pipe", flag.ContinueOnError)
	from := flags.String("from", "", "URL of the file, pre-signed")
	to := flags.String("to", "", "base URL of the endpoint")
	ca := flags.String("ca", "", "file with the certificate to trust")
	readBuffer := flags.Int("read-buffer", 16<<10, "bytes of the read buffer of connections to the store")
	profile := flags.String("cpuprofile", "", "file for a profile")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *profile != "" {
		file, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := pprof.StartCPUProfile(file); err != nil {
			return fmt.Errorf("cannot profile: %w", err)
		}
		defer pprof.StopCPUProfile()
	}
	return pipe(ctx, *from, *to, *ca, *readBuffer)
}

func pipe(ctx context.Context, from, to, ca string, readBuffer int) error {
	policy := dial.Policy{AllowHTTP: true}
	for _, text := range []string{from, to} {
		allowance, err := allowanceOf(text)
		if err != nil {
			return err
		}
		policy.Private = append(policy.Private, allowance)
	}
	store := policy.Transport(nil)
	store.ReadBufferSize, store.DisableCompression = readBuffer, true
	get, err := http.NewRequestWithContext(ctx, http.MethodGet, from, http.NoBody)
	if err != nil {
		return err
	}
	file, err := store.RoundTrip(get)
	if err != nil {
		return fmt.Errorf("cannot get the file: %w", err)
	}
	defer file.Body.Close()
	if file.StatusCode != http.StatusOK {
		return fmt.Errorf("cannot get the file: the store answered %s", file.Status)
	}
	base, err := url.Parse(to)
	if err != nil {
		return err
	}
	config, err := trust(ca)
	if err != nil {
		return err
	}
	transport := policy.Transport(config)
	keys := openconnectors.Credentials{Element: "element", User: "user"}
	client := openconnectors.New(base, "", keys, transport, openconnectors.SubmitTransport(transport))
	rows := csvstream.NewReader(file.Body, csvstream.Options{})
	attempt := client.Submit(ctx, openconnectors.Upload{Object: sinkObject, FileName: "contacts.csv", File: rows, Size: file.ContentLength})
	if attempt.Outcome != openconnectors.Accepted {
		return fmt.Errorf("cannot post the file: %s: %w", attempt.Outcome, attempt.Err)
	}
	return nil
}

// allowanceOf lets the loopback address that a URL names be dialled.
func allowanceOf(text string) (dial.Allowance, error) {
	u, err := url.Parse(text)
	if err != nil {
		return dial.Allowance{}, err
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		return dial.Allowance{}, fmt.Errorf("cannot find a port: %w", err)
	}
	return dial.Allowance{Prefix: netip.MustParsePrefix("127.0.0.1/32"), Port: uint16(port)}, nil
}

// trust makes a configuration that trusts the certificates in a file, and no others; nil if it has no name.
func trust(ca string) (*tls.Config, error) {
	if ca == "" {
		return nil, nil //nolint:nilnil // no configuration is Go's own
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("cannot read the certificate")
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}
