package report

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"bulkjob.dev/operator/api/v1alpha1"
)

func TestCalibrate(t *testing.T) {
	cases := []struct {
		reason   string
		declared Numbering
		sent     int64
		failed   []int64
		want     Numbering
		words    string // of the refusal
	}{
		{"declared, and nothing against it", FromOne, 10, []int64{3, 7}, FromOne, ""},
		{"the first and the last from zero", FromZero, 10, []int64{0, 9}, FromZero, ""},
		{"from one", FromOne, 10, []int64{1, 10}, FromOne, ""},
		{"from two", FromTwo, 10, []int64{2, 11}, FromTwo, ""},
		{"several reasons for one row", FromOne, 10, []int64{3, 3, 3}, FromOne, ""},
		{"a row before the first", FromOne, 10, []int64{0, 3}, Unknown, "correct spec.rowNumbers"},
		{"the header can't fail", FromTwo, 10, []int64{1}, Unknown, "correct spec.rowNumbers"},
		{"a row behind the last", FromOne, 10, []int64{11}, Unknown, "numbered FromOne"},
		{"a negative one", FromZero, 10, []int64{-1}, Unknown, "-1 to -1"},
		{"the largest there is", FromZero, 10, []int64{math.MaxInt64}, Unknown, "correct spec.rowNumbers"},
		{"nothing was sent", FromOne, 0, []int64{1}, Unknown, "0 rows"},

		{"number 0 is the first row", Unknown, 10, []int64{4, 0}, FromZero, ""},
		{"one beyond the number of rows is the last", Unknown, 10, []int64{11, 4}, FromTwo, ""},
		{"the first and the last of those from one", Unknown, 10, []int64{1, 10}, FromOne, ""},
		{"all failed, from zero", Unknown, 3, []int64{0, 1, 2}, FromZero, ""},
		{"all failed, from one", Unknown, 3, []int64{3, 2, 1}, FromOne, ""},
		{"all failed, from two", Unknown, 3, []int64{2, 3, 4}, FromTwo, ""},
		{"the only row", Unknown, 1, []int64{1}, FromOne, ""},
		{"both ends can't be", Unknown, 10, []int64{0, 11}, Unknown, "whatever they count from"},
		{"nor from zero to the number of rows", Unknown, 10, []int64{0, 10}, Unknown, "whatever they count from"},
		{"numbers of lines, not of rows", Unknown, 10, []int64{14}, Unknown, "whatever they count from"},
		{"anything in the middle", Unknown, 10, []int64{3, 7}, Unknown, "[FromZero FromOne FromTwo]"},
		{"number 1 may be the first or the second", Unknown, 10, []int64{1}, Unknown, "[FromZero FromOne]"},
		{"the number of rows may be the last or the last but one", Unknown, 10, []int64{10}, Unknown, "set spec.rowNumbers"},
		{"none at all", Unknown, 10, nil, Unknown, "gives no row numbers"},
		{"none at all, declared", FromOne, 10, nil, Unknown, "gives no row numbers"},
	}
	for _, tc := range cases {
		t.Run(tc.reason, func(t *testing.T) {
			got, err := Calibrate(tc.declared, tc.sent, tc.failed)
			if got != tc.want || (err == nil) != (tc.words == "") {
				t.Fatalf("got %v and %v, want %v", got, err, tc.want)
			}
			if err != nil && (!strings.Contains(err.Error(), tc.words) || !strings.HasPrefix(err.Error(), "cannot ")) {
				t.Errorf("error %q, want words %q", err, tc.words)
			}
		})
	}
}

func TestNumbering(t *testing.T) {
	cases := []struct {
		declared v1alpha1.RowNumbers
		want     Numbering
		second   int64 // what the endpoint calls the second row
	}{
		{v1alpha1.RowNumbersFromZero, FromZero, 1},
		{v1alpha1.RowNumbersFromOne, FromOne, 2},
		{v1alpha1.RowNumbersFromTwo, FromTwo, 3},
	}
	for _, tc := range cases {
		n := Declared(tc.declared)
		if n != tc.want || n.String() != string(tc.declared) || n.Row(tc.second) != 2 {
			t.Errorf("%s is %v, and its row %d is %d, want 2", tc.declared, n, tc.second, n.Row(tc.second))
		}
	}
	for _, none := range []v1alpha1.RowNumbers{"", v1alpha1.RowNumbersUnknown, "FromThree"} {
		if n := Declared(none); n != Unknown {
			t.Errorf("%q is %v, want %v", none, n, Unknown)
		}
	}
}

// FuzzCalibrate has an endpoint number the rows that failed in each way: what is made of the numbers is that way, or nothing.
func FuzzCalibrate(f *testing.F) {
	f.Add(uint64(1), uint16(10), uint8(3))
	f.Add(uint64(2), uint16(1), uint8(1))
	f.Add(uint64(3), uint16(5), uint8(200))
	f.Fuzz(func(t *testing.T, seed uint64, sent uint16, failures uint8) {
		random := rand.New(rand.NewPCG(seed, 0))
		rows := make([]int64, failures)
		for i := range rows {
			rows[i] = 1 + random.Int64N(int64(sent)+1)%max(int64(sent), 1)
		}
		for _, truth := range []Numbering{FromZero, FromOne, FromTwo} {
			told := make([]int64, len(rows))
			for i, row := range rows {
				told[i] = row - 1 + truth.first()
			}
			got, err := Calibrate(Unknown, int64(sent), told)
			if err == nil && got != truth {
				t.Errorf("%v, which count %v, are read as %v of %d rows", told, truth, got, sent)
			}
			if len(rows) == 0 || sent == 0 {
				continue
			}
			if got, err := Calibrate(truth, int64(sent), told); got != truth || err != nil {
				t.Errorf("%v, declared %v of %d rows: %v, %v", told, truth, sent, got, err)
			}
			if back := truth.Row(told[0]); back != rows[0] {
				t.Errorf("row %d became %d", rows[0], back)
			}
		}
	})
}

// TestCalibrateAlwaysWhenAllFailed: where no row was taken, the numbers say it all.
func TestCalibrateAlwaysWhenAllFailed(t *testing.T) {
	for sent := int64(1); sent < 50; sent++ {
		for _, truth := range []Numbering{FromZero, FromOne, FromTwo} {
			var told []int64
			for i := range sent {
				told = append(told, i+truth.first())
			}
			if got, err := Calibrate(Unknown, sent, told); got != truth || err != nil {
				t.Errorf("%d rows, all of which failed, numbered %v: %v, %v", sent, truth, got, err)
			}
		}
	}
}
