package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
)

// runRelay is the least that a program can do to move a file from a store to an endpoint: a GET whose body is the POST's.
// Nothing is checked, counted, claimed or recorded. It is what our own path is measured against.
func runRelay(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("relay", flag.ContinueOnError)
	from := flags.String("from", "", "URL of the file, pre-signed")
	to := flags.String("to", "", "URL to post it to")
	ca := flags.String("ca", "", "file with the certificate to trust")
	if err := flags.Parse(args); err != nil {
		return err
	}
	client, err := trusting(*ca)
	if err != nil {
		return err
	}
	get, err := http.NewRequestWithContext(ctx, http.MethodGet, *from, http.NoBody)
	if err != nil {
		return err
	}
	file, err := client.Do(get)
	if err != nil {
		return fmt.Errorf("cannot get the file: %w", err)
	}
	defer file.Body.Close()
	if file.StatusCode != http.StatusOK || file.ContentLength < 0 {
		return fmt.Errorf("cannot get the file: the store answered %s", file.Status)
	}
	return post(ctx, client, *to, file)
}

func post(ctx context.Context, client *http.Client, to string, file *http.Response) error {
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	if _, err := w.CreateFormFile("file", "contacts.csv"); err != nil {
		return err
	}
	start := form.Len()
	if err := w.Close(); err != nil {
		return err
	}
	before, after := form.Bytes()[:start], form.Bytes()[start:]
	body := io.MultiReader(bytes.NewReader(before), file.Body, bytes.NewReader(after))
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to, body)
	if err != nil {
		return err
	}
	request.ContentLength = int64(form.Len()) + file.ContentLength
	request.Header.Set("Content-Type", w.FormDataContentType())
	answer, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("cannot post the file: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("cannot post the file: the endpoint answered %s", answer.Status)
	}
	return nil
}

// trusting is Go's own client, which trusts the certificates in a file; with no name, the system's.
func trusting(ca string) (*http.Client, error) {
	config, err := trust(ca)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // it is one, by its documentation
	transport.TLSClientConfig = config
	return &http.Client{Transport: transport}, nil
}
