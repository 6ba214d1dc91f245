package main

import (
	"bufio"
	"fmt"
	"os"
)

const contactHeader = `"C_EmailAddress","C_FirstName","C_LastName","C_Title","C_BusPhone","C_Company","C_Website1"` + "\n"

// contactRow is one of 113 bytes: seven columns, two of them quoted for their commas.
func contactRow(into []byte, number int) []byte {
	return fmt.Appendf(into, "c%09d@example.com,Ada%d,Lovelace,\"Analyst, Engine\",+44 20 7946 %04d,\"Babbage, Son & Co.\",https://example.com\n",
		number, number%10, number%10000)
}

// blockRows are made once and written again and again where rows need not differ: at the speed of a copy.
const blockRows = 100_000

// writeContacts writes a CSV of that many data rows, and returns its size in bytes. If unique is false, the rows repeat.
func writeContacts(path string, rows int, unique bool) (size int64, err error) {
	file, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	w := bufio.NewWriterSize(file, 1<<20)
	write := func(p []byte) {
		n, writeErr := w.Write(p)
		size += int64(n)
		if err == nil {
			err = writeErr
		}
	}
	write([]byte(contactHeader))
	var block []byte
	for begin := 0; begin < rows && err == nil; begin += blockRows {
		count := min(blockRows, rows-begin)
		if unique || begin == 0 {
			block = block[:0]
			for i := range count {
				block = contactRow(block, begin+i)
			}
		}
		write(block[:count*contactBytes()])
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return size, fmt.Errorf("cannot write the CSV: %w", err)
	}
	return size, file.Close()
}

// contactBytes is what a row has.
func contactBytes() int { return len(contactRow(nil, 0)) }
