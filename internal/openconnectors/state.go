package openconnectors

import "strings"

type ending uint8

const (
	open ending = iota + 1
	succeeded
	failed
	cancelled
)

// states gives each word that any generation of the platform is known to use.
var states = map[string]ending{
	StateCreated:             open,
	StateInitiated:           open,
	StateScheduled:           open,
	StateStarted:             open,
	StateRunning:             open,
	StateCancellationPending: open,
	StateComplete:            succeeded,
	StateCompleted:           succeeded,
	StateSuccess:             succeeded,
	StateWarning:             succeeded,
	StateAborted:             failed,
	StateError:               failed,
	StateCancelled:           cancelled,
	StateCanceled:            cancelled,
}

func endingOf(state string) ending {
	return states[strings.ToUpper(strings.TrimSpace(state))]
}

// Known reports whether the word is one that the platform is known to use.
func Known(state string) bool { return endingOf(state) != 0 }

// Terminal reports whether a job in this state can't change any more. A word
// that isn't known is not terminal.
func Terminal(state string) bool { return endingOf(state) > open }

// Succeeded reports whether the job itself ended well. It says nothing about
// its rows: a completed job may have failed every one of them.
func Succeeded(state string) bool { return endingOf(state) == succeeded }

// Cancelled reports whether the job ended because somebody cancelled it.
func Cancelled(state string) bool { return endingOf(state) == cancelled }
