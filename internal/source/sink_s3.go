package source

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // It is what Content-MD5 is.
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"

	"github.com/minio/minio-go/v7"
)

// s3Sink is an object that is put, or uploaded in parts (Amazon S3 API reference, PutObject and CreateMultipartUpload).
type s3Sink struct {
	*s3
	upload string // its ID; empty: not begun
	parts  []minio.CompletePart
}

func (r *Resolver) sinkS3(ctx context.Context, l *location, g *grant) (sink, error) {
	opened, err := r.openS3(ctx, l, g)
	if err != nil {
		return nil, err
	}
	return &s3Sink{s3: opened}, nil
}

// sums of a content: the payload is signed whole, and buckets with locks ask for the MD5.
func sums(content []byte) (md5Base64, sha256Hex string) {
	short, long := md5.Sum(content), sha256.Sum256(content) //nolint:gosec // As above.
	return base64.StdEncoding.EncodeToString(short[:]), hex.EncodeToString(long[:])
}

func (s *s3Sink) options() minio.PutObjectOptions {
	return minio.PutObjectOptions{ContentType: contentType(s.place.key), DisableContentSha256: true} // it is given
}

func (s *s3Sink) put(ctx context.Context, content []byte) error {
	md5Base64, sha256Hex := sums(content)
	return s.begin(func() error {
		_, err := s.core.PutObject(ctx, s.place.bucket, s.place.key, bytes.NewReader(content), int64(len(content)), md5Base64, sha256Hex, s.options())
		return err
	})
}

// begin asks again, once, where the first answer says that it was asked in the wrong region.
func (s *s3Sink) begin(ask func() error) error {
	err := ask()
	if region := s.region(minio.ToErrorResponse(err)); err != nil && region != "" {
		core, connectErr := s.connect(region)
		if connectErr != nil {
			return judgeWrite(s.what, s.failure(err))
		}
		s.core = *core
		err = ask()
	}
	if err != nil {
		return judgeWrite(s.what, s.failure(err))
	}
	return nil
}

func (s *s3Sink) part(ctx context.Context, content []byte) error {
	if s.upload == "" {
		err := s.begin(func() (err error) {
			s.upload, err = s.core.NewMultipartUpload(ctx, s.place.bucket, s.place.key, s.options())
			return err
		})
		if err != nil {
			return err
		}
	}
	number := len(s.parts) + 1
	md5Base64, sha256Hex := sums(content)
	stored, err := s.core.PutObjectPart(ctx, s.place.bucket, s.place.key, s.upload, number, bytes.NewReader(content), int64(len(content)),
		minio.PutObjectPartOptions{Md5Base64: md5Base64, Sha256Hex: sha256Hex, DisableContentSha256: true})
	if err != nil {
		return s.failure(err)
	}
	s.parts = append(s.parts, minio.CompletePart{PartNumber: number, ETag: stored.ETag})
	return nil
}

func (s *s3Sink) end(ctx context.Context, last []byte) error {
	if err := s.part(ctx, last); err != nil {
		return err
	}
	if _, err := s.core.CompleteMultipartUpload(ctx, s.place.bucket, s.place.key, s.upload, s.parts, minio.PutObjectOptions{}); err != nil {
		return s.failure(err)
	}
	return nil
}

func (s *s3Sink) abort(ctx context.Context) error {
	if s.upload == "" {
		return nil
	}
	if err := s.core.AbortMultipartUpload(ctx, s.place.bucket, s.place.key, s.upload); err != nil {
		return forgotten(s.failure(err))
	}
	return nil
}
