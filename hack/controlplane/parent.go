package main

import (
	"os"
	"time"
)

// exitWithParent ends this process when the one that started it is gone, however that ended, so that a killed test
// leaves no servers behind. It watches the parent's id instead of asking the kernel for a signal (PR_SET_PDEATHSIG),
// because that is tied to the parent's thread and not to the parent, and Linux only.
func exitWithParent() {
	parent := os.Getppid()
	go func() {
		for os.Getppid() == parent {
			time.Sleep(100 * time.Millisecond)
		}
		os.Exit(1)
	}()
}
