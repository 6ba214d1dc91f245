package postgresql

import (
	"context"
	"embed"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// ownerLock is the key of the advisory lock that the process holds which runs the jobs of this database.
const ownerLock = 0x62756c6b6a6f62

//go:embed schema/*.sql
var scripts embed.FS

// migrate brings the schema bulk_endpoint to this program's version, in one transaction; the owner's lock keeps others
// from doing the same. It refuses a schema that a later program made.
func migrate(ctx context.Context, conn *pgx.Conn) error {
	files, err := scripts.ReadDir("schema")
	if err != nil {
		return fmt.Errorf("cannot list the schema's scripts: %w", err)
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		version, err := schemaVersion(ctx, tx)
		if err != nil {
			return err
		}
		if version > len(files) {
			return fmt.Errorf("cannot use schema bulk_endpoint: it has version %d, this program knows %d", version, len(files))
		}
		for i := version; i < len(files); i++ {
			script, err := scripts.ReadFile("schema/" + files[i].Name())
			if err != nil {
				return fmt.Errorf("cannot read %s: %w", files[i].Name(), err)
			}
			if _, err := tx.Exec(ctx, string(script)); err != nil {
				return fmt.Errorf("cannot run %s: %w", files[i].Name(), err)
			}
		}
		_, err = tx.Exec(ctx, "update bulk_endpoint.version set version = $1 where version < $1", len(files))
		return err
	})
}

// schemaVersion reads the version, 0 for a schema that is made here. Making it is not tried where it exists, as the
// right to make schemas may have been given to someone else.
func schemaVersion(ctx context.Context, tx pgx.Tx) (version int, err error) {
	var exists, empty bool
	err = tx.QueryRow(ctx, `select to_regnamespace('bulk_endpoint') is not null, to_regclass('bulk_endpoint.version') is null`).
		Scan(&exists, &empty)
	if err != nil {
		return 0, fmt.Errorf("cannot look for schema bulk_endpoint: %w", err)
	}
	if !exists {
		if _, err := tx.Exec(ctx, "create schema bulk_endpoint"); err != nil {
			return 0, fmt.Errorf("cannot create schema bulk_endpoint: %w", err)
		}
	}
	if empty {
		_, err := tx.Exec(ctx, "create table bulk_endpoint.version as select 0 as version")
		if err != nil {
			return 0, fmt.Errorf("cannot create table bulk_endpoint.version: %w", err)
		}
		return 0, nil
	}
	if err := tx.QueryRow(ctx, "select version from bulk_endpoint.version").Scan(&version); err != nil {
		return 0, fmt.Errorf("cannot read bulk_endpoint.version: %w", err)
	}
	return version, nil
}
