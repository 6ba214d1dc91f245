package pgtest_test

import (
	"context"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"

	"bulkjob.dev/operator/internal/endpoint/pgtest"
)

func TestStartAndStop(t *testing.T) {
	ctx := context.Background()
	cluster, err := pgtest.Start(ctx, t.TempDir()) // a folder that the server's own account can't enter
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Stop()
	dsn, err := cluster.CreateDatabase(ctx, "Odd name")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	var database, dir string
	if err := conn.QueryRow(ctx, "select current_database(), current_setting('data_directory')").Scan(&database, &dir); err != nil {
		t.Fatal(err)
	}
	if database != "Odd name" {
		t.Errorf("connected to %q", database)
	}
	cluster.Stop()
	cluster.Stop()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the data folder is still there: %v", err)
	}
	if err := conn.Ping(ctx); err == nil {
		t.Error("the server still answers")
	}
}
