//go:build !linux

package storetest

import "syscall"

// endWithParent does nothing: only Linux can tie a process to its parent, elsewhere Stop alone ends it.
func endWithParent(*syscall.SysProcAttr) {}
