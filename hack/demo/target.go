package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/jackc/pgx/v5"

	"bulkjob.dev/operator/internal/endpoint/pgtest"
	"bulkjob.dev/operator/test/stage"
)

// sampleRows is how many rows config/samples/contacts.csv has.
const sampleRows = 10

// shownColumns of the seven fit a terminal.
var shownColumns = []string{"C_EmailAddress", "C_FirstName", "C_LastName", "C_Company"}

// postgresql starts a cluster of our own, and makes the table.
func (s *show) postgresql(ctx context.Context) (err error) {
	if s.database, err = pgtest.Start(ctx, ""); err != nil {
		return err
	}
	if s.url, err = s.database.CreateDatabase(ctx, "crm"); err != nil {
		return err
	}
	return s.query(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, stage.ContactTable)
		return err
	})
}

func (s *show) query(ctx context.Context, ask func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, s.url)
	if err != nil {
		return fmt.Errorf("cannot connect to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	return ask(conn)
}

// rows shows the rows as the target has them, and counts them.
func (s *show) rows(ctx context.Context) error {
	count := s.memoryRows
	switch {
	case s.url != "":
		count = s.tableRows
	case s.crm != nil:
		count = s.crmRows
	}
	n, err := count(ctx)
	if err != nil {
		return err
	}
	if n != sampleRows {
		return fmt.Errorf("the target has %d rows, not %d", n, sampleRows)
	}
	return nil
}

func (s *show) memoryRows(ctx context.Context) (int, error) {
	sayf("The rows as the endpoint has them: GET %s/%s", s.endpoint.URL(), object)
	rows, err := s.endpoint.Rows(ctx, object)
	if err != nil {
		return 0, err
	}
	return len(rows), printRows(shownColumns, len(rows), func(i int, column string) string { return rows[i][column] })
}

func printRows(columns []string, rows int, value func(i int, column string) string) error {
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, strings.Join(columns, "\t"))
	for i := range rows {
		values := make([]string, 0, len(columns))
		for _, column := range columns {
			values = append(values, value(i, column))
		}
		fmt.Fprintln(table, strings.Join(values, "\t"))
	}
	return table.Flush()
}

func (s *show) tableRows(ctx context.Context) (n int, err error) {
	sayf("The rows as PostgreSQL has them")
	query := `select "` + strings.Join(shownColumns, `", "`) + `" from contact`
	psql := exec.CommandContext(ctx, filepath.Join(s.database.Bin, "psql"), "--no-psqlrc", "--pset=pager=off", "--command", query, s.url)
	psql.Stdout, psql.Stderr = os.Stdout, os.Stderr
	if err := psql.Run(); err != nil {
		return 0, fmt.Errorf("cannot run psql: %w", err)
	}
	return n, s.query(ctx, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "select count(*) from contact").Scan(&n)
	})
}
