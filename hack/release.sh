#!/usr/bin/env bash
# Makes what a release consists of, in dist/release: both programs for each platform, with a software bill of materials
# (CycloneDX) of each, the manifests, the Helm chart, and SHA256SUMS of all. The same commit, version, image and Go give the same bytes,
# wherever it runs.
#
#   VERSION=v0.1.0      shown by the programs and in the bills; by default what git says
#   IMG=registry/name   the operator's image in the manifests and the chart
#   KUBECTL=kubectl     kubectl, for its kustomize
#   CYCLONEDX=path      cyclonedx-gomod, as hack/tools/release pins it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export GOWORK=off CGO_ENABLED=0 GOFLAGS='-trimpath -buildvcs=false' LC_ALL=C

readonly platforms=(linux/amd64 linux/arm64)
readonly programs=(manager bulk-endpoint)
readonly version=${VERSION:?} img=${IMG:?} kubectl=${KUBECTL:?} cyclonedx=${CYCLONEDX:?}
readonly out=dist/release

say() { printf 'release: %s\n' "$*" >&2; }

# bill PROGRAM: what is in it, by its own word. All modules are in the cache by now, so nothing is asked of the network, and
# the one module that is not there is ours.
bill() {
	local log
	log=$(GOPROXY=off "$cyclonedx" bin -json -noserial -notimestamp -std -licenses -version "$version" -output "$1.cdx.json" "$1" 2>&1) || {
		printf '%s\n' "$log" >&2
		say "no bill of materials could be made of $1"
		exit 1
	}
}

rm -rf "$out"
mkdir -p "$out"
for platform in "${platforms[@]}"; do
	for program in "${programs[@]}"; do
		file=$out/$program-${platform/\//-}
		say "building $file"
		GOOS=${platform%/*} GOARCH=${platform#*/} GOGC=off GOMEMLIMIT=5GiB \
			go build -ldflags "-s -w -buildid= -X main.version=$version" -o "$file" "./cmd/$program"
		bill "$file"
	done
done
say "rendering the manifests and packing the chart"
KUBECTL=$kubectl hack/manifests.sh "$out" "$img" "$version"
(cd "$out" && sha256sum -- * >../SHA256SUMS && mv ../SHA256SUMS .)
say "done: $out, version $version, image $img"
