package report

import (
	"errors"
	"fmt"
	"slices"

	"bulkjob.dev/operator/api/v1alpha1"
)

// Numbering is what an endpoint calls the first row after the header.
type Numbering int

// The ways of numbering rows.
const (
	Unknown  Numbering = iota
	FromZero           // row 0
	FromOne            // row 1
	FromTwo            // row 2: the header is row 1
)

var declarations = []v1alpha1.RowNumbers{
	Unknown: v1alpha1.RowNumbersUnknown, FromZero: v1alpha1.RowNumbersFromZero, FromOne: v1alpha1.RowNumbersFromOne, FromTwo: v1alpha1.RowNumbersFromTwo,
}

// Declared is the numbering that a ConnectorInstance declares; Unknown if it declares none.
func Declared(numbers v1alpha1.RowNumbers) Numbering {
	return Numbering(max(slices.Index(declarations, numbers), int(Unknown)))
}

func (n Numbering) String() string { return string(declarations[n]) }

// Row is the number, from 1 after the header, of the row that the endpoint calls told. The numbering is not Unknown.
func (n Numbering) Row(told int64) int64 { return told - n.first() + 1 }

func (n Numbering) first() int64 { return int64(n - FromZero) }

// fits is true if all numbers from least to most are rows of a file of so many.
func (n Numbering) fits(sent, least, most int64) bool {
	return least >= n.first() && most-n.first() < sent
}

// Calibrate says what the numbers of rows that failed mean, given how many rows were sent; one row may be told of more than once. What is
// declared is held against the numbers. What isn't is found out only where they can mean one thing: such as number 0, or one beyond
// the number of rows. The error says why they can't be trusted, and what to do.
func Calibrate(declared Numbering, sent int64, failed []int64) (Numbering, error) {
	if len(failed) == 0 {
		return Unknown, errors.New("cannot tell which rows failed: the endpoint gives no row numbers")
	}
	least, most := slices.Min(failed), slices.Max(failed)
	if declared != Unknown {
		if !declared.fits(sent, least, most) {
			return Unknown, fmt.Errorf("cannot tell which rows failed: the endpoint's row numbers, %d to %d, aren't all among those of %d rows, numbered %s: "+
				"correct spec.rowNumbers of the ConnectorInstance", least, most, sent, declared)
		}
		return declared, nil
	}
	var possible []Numbering
	for _, n := range []Numbering{FromZero, FromOne, FromTwo} {
		if n.fits(sent, least, most) {
			possible = append(possible, n)
		}
	}
	switch len(possible) {
	case 0:
		return Unknown, fmt.Errorf("cannot tell which rows failed: the endpoint's row numbers, %d to %d, aren't those of %d rows, "+
			"whatever they count from", least, most, sent)
	case 1:
		return possible[0], nil
	default:
		return Unknown, fmt.Errorf("cannot tell which rows failed: the endpoint's row numbers may count %v: "+
			"find out by a file whose first row is bad, and set spec.rowNumbers of the ConnectorInstance", possible)
	}
}
