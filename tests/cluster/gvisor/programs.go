//go:build programs

// Package gvisor pins what the runtime class gvisor of the test node runs.
package gvisor

import (
	_ "gvisor.dev/gvisor/runsc"
	_ "gvisor.dev/gvisor/shim"
)
