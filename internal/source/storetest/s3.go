package storetest

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // It is what an ETag is.
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sys/unix"
)

// etagAttribute is where versitygw keeps an object's ETag, with its quotes
// (https://github.com/versity/versitygw/blob/v1.8.0/backend/posix/posix.go).
const etagAttribute = "user.etag"

// S3Server is a running versitygw: real signatures, conditions and ranges over plain files. Versions are kept in a
// bucket for which Client.EnableVersioning was called.
type S3Server struct {
	// Endpoint is "http://127.0.0.1:<port>", with paths of the form /bucket/key.
	Endpoint string
	// AccessKeyID and SecretAccessKey may do everything, and there are no others.
	AccessKeyID, SecretAccessKey string
	// Region that requests must be signed for.
	Region string
	// Dir holds a folder for each bucket. A file put there by hand is served without an ETag; see PutFile.
	Dir string
	// Client does everything that this type has no method for.
	Client *minio.Client

	*process
}

// S3 starts a server for one test.
func S3(tb testing.TB) *S3Server {
	tb.Helper()
	return begin(tb, StartS3)
}

// StartS3 starts a server that keeps its objects under dir, which need not exist and must be on a file system with
// extended attributes.
func StartS3(dir string) (*S3Server, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot find the folder for the S3 server: %w", err)
	}
	objects, versions := filepath.Join(dir, "objects"), filepath.Join(dir, "versions")
	if err := errors.Join(os.MkdirAll(objects, 0o750), os.MkdirAll(versions, 0o750)); err != nil {
		return nil, fmt.Errorf("cannot make the folders of the S3 server: %w", err)
	}
	if err := unix.Setxattr(objects, "user.probe", nil, 0); err != nil {
		return nil, fmt.Errorf("cannot run versitygw in %s, as its file system keeps no extended attributes "+
			"(choose another by TMPDIR): %w", dir, err)
	}
	return onFreePort(func(address string) (*S3Server, error) {
		s := &S3Server{
			Endpoint: "http://" + address, AccessKeyID: secret(), SecretAccessKey: secret(), Region: "us-east-1", Dir: objects,
		}
		return s, s.start(dir, address, versions)
	})
}

func (s *S3Server) start(dir, address, versions string) error {
	var err error
	s.Client, err = minio.New(address, &minio.Options{
		Creds: credentials.NewStaticV4(s.AccessKeyID, s.SecretAccessKey, ""), Region: s.Region, BucketLookup: minio.BucketLookupPath, MaxRetries: 1,
	})
	if err != nil {
		return fmt.Errorf("cannot make a client for S3: %w", err)
	}
	env := []string{"ROOT_ACCESS_KEY_ID=" + s.AccessKeyID, "ROOT_SECRET_ACCESS_KEY=" + s.SecretAccessKey}
	s.process, err = launch(dir, "versitygw", env,
		"--port", address, "--region", s.Region, "--quiet", "--keep-alive", "posix", "--versioning-dir", versions, s.Dir)
	if err != nil {
		return err
	}
	return s.await(func(ctx context.Context) error {
		_, err := s.Client.ListBuckets(ctx)
		return err
	})
}

// Stop ends the server. It may be called more than once.
func (s *S3Server) Stop() { s.stop() }

// Put writes an object, and makes its bucket where there is none. Options may set a content type, the size of a part and
// so on. What it returns has the ETag, without quotes, and the version ID, if the bucket has versions.
func (s *S3Server) Put(tb testing.TB, bucket, key string, content []byte, options ...func(*minio.PutObjectOptions)) minio.UploadInfo {
	tb.Helper()
	if err := s.makeBucket(bucket); err != nil {
		tb.Fatal(err)
	}
	var o minio.PutObjectOptions
	for _, option := range options {
		option(&o)
	}
	info, err := s.Client.PutObject(tb.Context(), bucket, key, bytes.NewReader(content), int64(len(content)), o)
	if err != nil {
		tb.Fatalf("cannot put %s into bucket %s: %v", key, bucket, err)
	}
	return info
}

// WithSHA256 has the store keep the SHA-256 of a content that is put in one part, as x-amz-checksum-sha256.
func WithSHA256(content []byte) func(*minio.PutObjectOptions) {
	digest := sha256.Sum256(content)
	return func(o *minio.PutObjectOptions) {
		// Not by o.Checksum: the client would send it as a trailer, which versitygw finds wrong.
		o.UserMetadata = map[string]string{"X-Amz-Checksum-Sha256": base64.StdEncoding.EncodeToString(digest[:])}
	}
}

// PutFile makes an object of a local file without copying it: a hard link, so that the file must be on Dir's file system
// and must not be written to any more. The bucket is made where there is none. The ETag is etag, without quotes; if that
// is empty, it is the MD5 of the content, as S3 has it for an object of one part, and the file is read once to compute it.
func (s *S3Server) PutFile(bucket, key, path, etag string) error {
	if !filepath.IsLocal(key) {
		return fmt.Errorf("cannot make an object named %q of a file", key)
	}
	if etag == "" {
		var err error
		if etag, err = sum(path); err != nil {
			return err
		}
	}
	if err := s.makeBucket(bucket); err != nil {
		return err
	}
	if err := unix.Setxattr(path, etagAttribute, []byte(`"`+etag+`"`), 0); err != nil {
		return fmt.Errorf("cannot note the ETag of %s with the file: %w", key, err)
	}
	target := filepath.Join(s.Dir, bucket, key)
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return fmt.Errorf("cannot make the folder of %s: %w", key, err)
	}
	if err := ignore(os.Remove(target), func(err error) bool { return errors.Is(err, os.ErrNotExist) }); err != nil {
		return fmt.Errorf("cannot replace %s: %w", key, err)
	}
	if err := os.Link(path, target); err != nil {
		return fmt.Errorf("cannot make an object of a file: %w", err)
	}
	return nil
}

func (s *S3Server) makeBucket(name string) error {
	err := ignore(s.Client.MakeBucket(context.Background(), name, minio.MakeBucketOptions{Region: s.Region}),
		func(err error) bool { return minio.ToErrorResponse(err).Code == "BucketAlreadyOwnedByYou" })
	if err != nil {
		return fmt.Errorf("cannot make bucket %s: %w", name, err)
	}
	return nil
}

// sum is the MD5 of a file, in hex.
func sum(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("cannot compute an ETag: %w", err)
	}
	defer file.Close()
	digest := md5.New() //nolint:gosec // As above.
	if _, err := io.Copy(digest, file); err != nil {
		return "", fmt.Errorf("cannot compute an ETag: %w", err)
	}
	return hex.EncodeToString(digest.Sum(nil)), nil
}
