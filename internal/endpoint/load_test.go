package endpoint_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"bulkjob.dev/operator/internal/endpoint"
	"bulkjob.dev/operator/internal/endpoint/memory"
	"bulkjob.dev/operator/internal/endpoint/postgresql"
)

// table reads a query's rows as text, one string each, NULL as ∅.
func table(t *testing.T, pool *pgxpool.Pool, sql string) []string {
	t.Helper()
	rows, err := pool.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		values, err := row.Values()
		var words []string
		for _, value := range values {
			if value == nil {
				value = "∅"
			}
			words = append(words, fmt.Sprint(value))
		}
		return strings.Join(words, "|"), err
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func (r *rig) errorLines(id string) (lines []string) {
	r.t.Helper()
	for _, e := range r.get("/bulk/" + id + "/errors?pageSize=2000").list(r.t) {
		lines = append(lines, fmt.Sprintf("%v %v", e["rowNum"], e["status"]))
	}
	return lines
}

func TestPostgreSQLLoads(t *testing.T) {
	const upsert = `{"action":"upsert","primaryKeyName":"id"}`
	tenRows := csvFile("id,name", 10, func(i int) string {
		if i == 7 {
			return "seven,Name 7"
		}
		return fmt.Sprintf("%d,Name %d", i, i)
	})
	type want struct {
		Outcome string
		Errors  []string
		Rows    []string
	}
	cases := map[string]struct {
		reason, ddl, file, metaData, query string
		want                               want
	}{
		"OneBadRow": {
			reason: "one bad row of ten costs that row alone",
			ddl:    "create table contact (id integer, name text)", file: tenRows, query: "select count(*), min(id), max(id) from contact",
			want: want{"COMPLETE 10/1", []string{"7 22P02: invalid text for its type, column id"}, []string{"9|1|10"}},
		},
		"OneByOne": {
			reason: "a batch of one row is what the client may ask for",
			ddl:    "create table contact (id integer, name text)", file: tenRows, metaData: `{"bulkUploadRecordSize":1}`, query: "select count(*) from contact",
			want: want{"COMPLETE 10/1", []string{"7 22P02: invalid text for its type, column id"}, []string{"9"}},
		},
		"EveryFault": {
			reason: "each row gets its own reason, and none shows a value",
			ddl: `create table team (id integer primary key); insert into team values (1);
				create table contact (id integer primary key, name varchar(5) not null, team integer references team, age integer constraint adult check (age > 17))`,
			file:  "id,name,team,age\n1,ok,1,18\n1,twin,1,18\n2,toolong,1,18\n3,,1,18\n4,ok,9,18\n5,ok,1,17\n6,ok,1\n7,ok,1,18,x\n99999999999,ok,1,18\n8,\xff,1,18\n9,ok,1,99\n",
			query: "select id from contact order by id",
			want: want{"COMPLETE 11/9", []string{
				"2 23505: duplicate key, constraint contact_pkey",
				"3 22001: value too long for its type, column name",
				"4 23502: null in a column that needs a value, column name",
				"5 23503: foreign key violation, constraint contact_team_fkey",
				"6 23514: check violation, constraint adult",
				"7 22P04: bad CSV: more or fewer fields than the header",
				"8 22P04: bad CSV: more or fewer fields than the header",
				"9 22003: number out of range, column id",
				"10 22021: invalid UTF-8",
			}, []string{"1", "9"}},
		},
		"Null": {
			reason: "an empty field is NULL, a quoted one is an empty string, and columns left out have their defaults",
			ddl:    "create table contact (id integer, a text, b text, c text default 'dflt')", file: "id,b,a\n1,,\"\"\n2,\"a \"\"q\"\", \r\n\n\\.\nb\",\\N\n",
			query: "select id, a, b, c from contact order by id",
			want:  want{"COMPLETE 2/0", nil, []string{"1||∅|dflt", "2|\\N|a \"q\", \r\n\n\\.\nb|dflt"}},
		},
		"EndOfCopy": {
			reason: `a row of \. is data and hides no row after it`,
			ddl:    "create table contact (name text)", file: "name\na\n\\.\nb\n\\.",
			query: "select name from contact", want: want{"COMPLETE 4/0", nil, []string{"a", `\.`, "b", `\.`}},
		},
		"LineNumbers": {
			reason: "rows over many lines don't shift the blame",
			ddl:    "create table contact (id integer, name text)", file: "id,name\n1,\"a\nb\nc\"\n2,\"d\ne\"\nx,f\n4,\"g\n\n\nh\"\ny,\"i\nj\"\n6,k\n",
			query: "select id from contact order by id",
			want: want{
				"COMPLETE 6/2",
				[]string{"3 22P02: invalid text for its type, column id", "5 22P02: invalid text for its type, column id"},
				[]string{"1", "2", "4", "6"},
			},
		},
		"Deferred": {
			reason: "a constraint that waits for the commit blames a row nevertheless",
			ddl:    "create table contact (id integer unique deferrable initially deferred)", file: "id\n1\n2\n1\n3\n",
			query: "select id from contact order by id",
			want:  want{"COMPLETE 4/1", []string{"3 23505: duplicate key, constraint contact_id_key"}, []string{"1", "2", "3"}},
		},
		"Trigger": {
			reason: "a trigger may refuse rows, or leave them out in silence",
			ddl: `create table contact (id integer); create function f() returns trigger language plpgsql as $$ begin
				if new.id = 2 then raise 'no 2, please'; end if; if new.id = 3 then return null; end if; return new; end $$;
				create trigger t before insert on contact for each row execute function f()`,
			file: "id\n1\n2\n3\n4\n", query: "select id from contact order by id",
			want: want{"COMPLETE 4/1", []string{"2 P0001: refused by a trigger"}, []string{"1", "4"}},
		},
		"AllBad": {
			reason: "a file of bad rows only",
			ddl:    "create table contact (id integer)", file: "id\na\nb\nc\n", query: "select * from contact",
			want: want{"COMPLETE 3/3", []string{
				"1 22P02: invalid text for its type, column id", "2 22P02: invalid text for its type, column id",
				"3 22P02: invalid text for its type, column id",
			}, nil},
		},
		"JSON": {
			reason: "JSON values find their types",
			ddl:    "create table contact (id bigint, ok boolean, at timestamptz, doc jsonb, tags text[], name text)",
			file: `[{"id":9007199254740993,"ok":true,"doc":{"a":[1,"x\"y"]},"tags":"{a,b}","name":"l1\nl2, \"q\""},` +
				`{"id":2,"at":"2026-01-02T03:04:05Z","name":""}]`,
			metaData: `{"format":"json"}`, query: "select id, ok, timezone('UTC', at) = '2026-01-02 03:04:05', doc->'a'->>1, tags[2], name from contact order by id",
			want: want{"COMPLETE 2/0", nil, []string{"2|∅|true|∅|∅|", `9007199254740993|true|∅|x"y|b|l1` + "\n" + `l2, "q"`}},
		},
		"Upsert": {
			reason: "known keys are updated, new ones inserted, the last row of a key wins, and other columns stay",
			ddl:    "create table contact (id integer primary key, name text, email text default 'none'); insert into contact values (1, 'old', 'kept')",
			file:   "name,id\nnew,1\nfirst,2\nsecond,2\nthird,3\n", metaData: upsert, query: "select id, name, email from contact order by id",
			want: want{"COMPLETE 4/0", nil, []string{"1|new|kept", "2|second|none", "3|third|none"}},
		},
		"UpsertFaults": {
			reason: "bad rows of an upsert are found as well, and what was staged before them isn't lost or doubled",
			ddl:    "create table contact (id integer primary key, name text check (name <> 'bad'), n integer default 0)",
			file:   "id,name\n1,a\nx,b\n3,bad\n4,d\n,e\n1,f\n6,bad\n7,g\n", metaData: upsert, query: "select id, name from contact order by id",
			want: want{
				"COMPLETE 8/4",
				[]string{
					"2 22P02: invalid text for its type, column id", "3 23514: check violation, constraint contact_name_check",
					"5 23502: null in a column that needs a value, column id", "7 23514: check violation, constraint contact_name_check",
				},
				[]string{"1|f", "4|d", "7|g"},
			},
		},
		"UpsertNullKeys": {
			reason: "rows without a key match nothing, not even each other",
			ddl:    "create table contact (id integer unique, name text)", file: "id,name\n,a\n,b\n1,c\n", metaData: upsert,
			query: "select id, name from contact order by name", want: want{"COMPLETE 3/0", nil, []string{"∅|a", "∅|b", "1|c"}},
		},
		"UpsertKeyOnly": {
			reason: "a file of keys only inserts what is missing",
			ddl:    "create table contact (id integer generated always as identity primary key); insert into contact overriding system value values (1)",
			file:   "id\n1\n2\n", metaData: upsert, query: "select id from contact order by id",
			want: want{"COMPLETE 2/0", nil, []string{"1", "2"}},
		},
		"UpsertNoIndex": {
			reason: "an upsert without a unique index would double rows",
			ddl:    "create table contact (id integer, name text); create unique index on contact (id) where id > 5; create unique index on contact (id, name)",
			file:   "id,name\n1,a\n", metaData: upsert, query: "select id from contact",
			want: want{`ABORTED 0/0 an upsert needs a unique index on column "id" alone, and contact has none`, nil, nil},
		},
		"Columns": {
			reason: "columns that the table lacks end the job before any row",
			ddl:    "create table contact (id integer)", file: "id,Name,\"drop \"\"x\n\",c,d,e,f\n1,2,3,4,5,6,7\n", query: "select * from contact",
			want: want{`ABORTED 0/0 contact has no column "Name", "drop \"x\n", "c", "d", "e" and 1 more`, nil, nil},
		},
		"Generated": {
			reason: "a column that nobody may write ends the job",
			ddl:    "create table contact (id integer, twice integer generated always as (id * 2) stored)", file: "id,twice\n1,2\n", query: "select * from contact",
			want: want{`ABORTED 0/0 42P10: column "twice" is a generated column`, nil, nil},
		},
		"OddNames": {
			reason: "names are names, whatever they look like",
			ddl:    `create table contact ("a""b; drop table contact" integer primary key, "Ünï col" text)`,
			file:   "\"a\"\"b; drop table contact\",Ünï col\n1,x\n", metaData: `{"action":"upsert","identifierFieldName":"a\"b; drop table contact"}`,
			query: "select * from contact", want: want{"COMPLETE 1/0", nil, []string{"1|x"}},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			dsn, pool := database(t, tc.ddl)
			c := openPostgreSQL(t, dsn, postgresql.Options{})
			t.Cleanup(c.Close)
			r := start(t, endpoint.Options{Connector: c})
			id, status := r.load("contact", tc.file, tc.metaData)
			got := want{outcome(status), r.errorLines(id), table(t, pool, tc.query)}
			if diff := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s: -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}

// Wherever the bad rows of a batch are, they and they alone fail; so it is with and without the server's hint.
func TestNarrowing(t *testing.T) {
	const rows = 300
	for name, load := range map[string]struct{ ddl, metaData string }{
		"hinted": {"create table contact (id integer, n integer)", ""},
		"halved": {"create table odd (id integer primary key); create table contact (id integer, n integer references odd)", ""},
		"upsert": {"create table contact (id integer primary key, n integer check (n is null))", `{"action":"upsert","primaryKeyName":"id"}`},
	} {
		t.Run(name, func(t *testing.T) {
			dsn, pool := database(t, load.ddl)
			c := openPostgreSQL(t, dsn, postgresql.Options{})
			t.Cleanup(c.Close)
			r := start(t, endpoint.Options{Connector: c})
			for _, bad := range [][]int{{1}, {rows}, {1, 2, 3}, {150, 151, rows}, {2, 4, 8, 16, 32, 64, 128, 256}} {
				if _, err := pool.Exec(t.Context(), "truncate contact"); err != nil {
					t.Fatal(err)
				}
				file := csvFile("id,n", rows, func(i int) string {
					if !slices.Contains(bad, i) {
						return fmt.Sprintf("%d,", i)
					}
					return fmt.Sprintf("%d,%s", i, map[string]string{"hinted": "x", "halved": "7", "upsert": "1"}[name])
				})
				id, status := r.load("contact", file, load.metaData)
				var blamed []int
				for _, line := range r.errorLines(id) {
					var row int
					_, _ = fmt.Sscan(line, &row)
					blamed = append(blamed, row)
				}
				if diff := cmp.Diff(bad, blamed); diff != "" {
					t.Errorf("bad rows %v: -want, +blamed:\n%s", bad, diff)
				}
				want := fmt.Sprintf("COMPLETE %d/%d", rows, len(bad))
				loaded := table(t, pool, "select count(*), count(distinct id), count(n) from contact")[0]
				if got := fmt.Sprintf("%d|%d|0", rows-len(bad), rows-len(bad)); outcome(status) != want || loaded != got {
					t.Errorf("bad rows %v: %s, in the table %s", bad, outcome(status), loaded)
				}
			}
		})
	}
}

func TestErrorsAreBounded(t *testing.T) {
	dsn, _ := database(t, "create table contact (id integer)")
	c := openPostgreSQL(t, dsn, postgresql.Options{MaxErrors: 5})
	t.Cleanup(c.Close)
	r := start(t, endpoint.Options{Connector: c})
	id, status := r.load("contact", csvFile("id", 20, func(int) string { return "x" }), `{"bulkUploadRecordSize":3}`)
	if diff := cmp.Diff([]any{"COMPLETE 20/20", 5}, []any{outcome(status), len(r.errorLines(id))}); diff != "" {
		t.Errorf("all are counted, five kept: -want, +got:\n%s", diff)
	}
}

// A database that goes away in mid-job is waited for.
func TestDatabaseAway(t *testing.T) {
	dsn, pool := database(t, contactDDL)
	c := openPostgreSQL(t, dsn, postgresql.Options{})
	t.Cleanup(c.Close)
	r := start(t, endpoint.Options{Connector: c})
	id := fmt.Sprint(r.upload("contact", contacts(5000), `{"bulkUploadRecordSize":5}`).object(t)["id"])
	for r.get("/bulk/" + id + "/status").object(t)["recordsCount"].(float64) == 0 {
		time.Sleep(time.Millisecond)
	}
	_, err := pool.Exec(t.Context(), "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'bulk-endpoint'")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("COMPLETE 5000/0", outcome(r.wait(id))); diff != "" {
		t.Errorf("-want, +got:\n%s", diff)
	}
	if got := table(t, pool, "select count(*), count(distinct id) from contact")[0]; got != "5000|5000" {
		t.Errorf("rows in the table: %s", got)
	}
}

func TestOneOwner(t *testing.T) {
	dsn, _ := database(t, contactDDL)
	first := openPostgreSQL(t, dsn, postgresql.Options{})
	_, err := postgresql.Open(t.Context(), postgresql.Options{URL: dsn, LockWait: time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "another bulk-endpoint runs on it") {
		t.Errorf("a second process on one database: %v", err)
	}
	time.AfterFunc(300*time.Millisecond, first.Close)
	openPostgreSQL(t, dsn, postgresql.Options{LockWait: 10 * time.Second}).Close()
}

func TestRetention(t *testing.T) {
	each(t, func(t *testing.T, c endpoint.Connector) {
		t.Helper()
		r := start(t, endpoint.Options{Connector: c})
		id, _ := r.load("bad", contacts(3), `{"callback-payload":"t"}`)
		if err := c.Prune(t.Context(), time.Now().Add(-time.Hour)); err != nil || r.jobs() != 1 {
			t.Errorf("a young job: %d left, %v", r.jobs(), err)
		}
		if err := c.Prune(t.Context(), time.Now().Add(time.Hour)); err != nil {
			t.Error(err)
		}
		if a := r.get("/bulk/" + id + "/errors"); a.status != 404 {
			t.Errorf("an old job: %d %s", a.status, a.body)
		}
		if again, _ := r.load("bad", contacts(3), `{"callback-payload":"t"}`); again == id {
			t.Error("the token of a forgotten job is still known")
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	dsn, pool := database(t, contactDDL)
	openPostgreSQL(t, dsn, postgresql.Options{}).Close()
	if _, err := pool.Exec(t.Context(), "update bulk_endpoint.version set version = 99"); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct{ reason, url, want string }{
		"Newer":  {"an older program doesn't touch what a newer one made", dsn, "it has version 99, this program knows 1"},
		"Secret": {"a broken URL isn't repeated, as it may hold a password", "postgres://u:hush@[x", "cannot understand the database's URL"},
		"Away":   {"no database", "postgres:///postgres?host=/nowhere", "cannot connect to the database"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := postgresql.Open(t.Context(), postgresql.Options{URL: tc.url})
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hush") {
				t.Errorf("%s: want %q, got %v", tc.reason, tc.want, err)
			}
		})
	}
}

// away is a connector whose system can't be reached.
type away struct{ endpoint.Connector }

func (away) Ping(context.Context) error { return errors.New("cannot reach it") }

// An upload that couldn't be recorded is refused before it is read, by an answer that proves that nothing was taken.
func TestUploadWhileAway(t *testing.T) {
	r := start(t, endpoint.Options{Connector: away{memory.New(memory.Options{})}})
	if a := r.upload("contact", contacts(1), ""); a.status != 429 || a.header.Get("Retry-After") != "30" {
		t.Errorf("upload: %d %s", a.status, a.body)
	}
	if a := r.get("/ping"); a.status != 502 {
		t.Errorf("ping: %d %s", a.status, a.body)
	}
	resp, err := http.Get("http://" + r.addr + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 503 {
		t.Errorf("readyz: %d", resp.StatusCode)
	}
	if n := r.jobs(); n > 0 {
		t.Errorf("%d jobs", n)
	}
	r.spoolEmpties()
}

// The rights that docs/endpoint.md names are enough, and a missing one ends a job with a clear word.
func TestLeastRights(t *testing.T) {
	dsn, pool := database(t, "create table contact (id integer primary key, name text); create table sealed (id integer primary key);")
	role := "loader_" + strings.TrimPrefix(pool.Config().ConnConfig.Database, "test_")
	_, err := pool.Exec(t.Context(), fmt.Sprintf(`create role %[1]s login; create schema bulk_endpoint authorization %[1]s;
		grant usage on schema public to %[1]s; grant select, insert, update on contact to %[1]s; grant select, insert on sealed to %[1]s`, role))
	if err != nil {
		t.Fatal(err)
	}
	c := openPostgreSQL(t, strings.Replace(dsn, "user=test", "user="+role, 1), postgresql.Options{})
	t.Cleanup(c.Close)
	r := start(t, endpoint.Options{Connector: c})
	const upsert = `{"action":"upsert","primaryKeyName":"id"}`
	_, created := r.load("contact", "id,name\n1,a\n", "")
	_, upserted := r.load("contact", "id,name\n1,b\n2,c\n", upsert)
	_, sealed := r.load("sealed", "id\n1\n", "")
	_, keysOnly := r.load("sealed", "id\n1\n", upsert)
	want := []string{"COMPLETE 1/0", "COMPLETE 2/0", "COMPLETE 1/0", "COMPLETE 1/0"}
	if diff := cmp.Diff(want, []string{outcome(created), outcome(upserted), outcome(sealed), outcome(keysOnly)}); diff != "" {
		t.Errorf("-want, +got:\n%s", diff)
	}
	if _, err := pool.Exec(t.Context(), "revoke select on contact from "+role); err != nil {
		t.Fatal(err)
	}
	_, status := r.load("contact", "id,name\n1,b\n", upsert)
	if diff := cmp.Diff("ABORTED 0/0 42501: permission denied for table contact", outcome(status)); diff != "" {
		t.Errorf("-want, +got:\n%s", diff)
	}
}
