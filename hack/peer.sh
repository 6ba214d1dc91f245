#!/usr/bin/env bash
# Puts what the benchmarks compare the operator with in place: hack/peer, the Job controller of Kubernetes with a node of the
# barest kind. Prints its directory as the last line on standard output; everything else goes to standard error. It stays in
# the user's cache until a pin changes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export GOWORK=off

say() { printf 'peer: %s\n' "$*" >&2; }

# fingerprint: what the program depends on, as one word.
fingerprint() {
	(cd hack/peer && cat go.mod go.sum ./*.go && go env GOOS GOARCH) | git hash-object --stdin | cut -c 1-16
}

cache=${XDG_CACHE_HOME:-$HOME/.cache}/bulkjob-operator/peer
place=$cache/$(fingerprint)
if [ -x "$place/peer" ]; then
	say "using the one built before"
else
	say "building the Job controller from source, once for this machine: a minute where the control plane was built from source, else some"
	mkdir -p "$cache"
	temporary=$(mktemp -d "$cache/building.XXXXXX")
	trap 'rm -rf "$temporary"' EXIT
	SECONDS=0
	CGO_ENABLED=0 GOGC=off GOMEMLIMIT=5GiB go -C hack/peer build -trimpath -ldflags '-s -w' -o "$temporary/peer" . >&2
	mkdir -p "$place"
	mv "$temporary/peer" "$place/peer" # a rename: two builds at once only waste time
	say "built in $((SECONDS / 60)) min $((SECONDS % 60)) s"
fi
printf '%s\n' "$place"
