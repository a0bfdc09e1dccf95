//go:build peers

// The other indexed peer, at the version that go.mod names: `go build github.com/google/codesearch/cmd/...`.
package main

import (
	_ "github.com/google/codesearch/cmd/cindex"
	_ "github.com/google/codesearch/cmd/csearch"
)
