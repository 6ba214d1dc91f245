#!/usr/bin/env bash
# Makes what a release consists of, in dist/release: both programs and the archives of kubectl bulkjob, with a software bill of materials
# (CycloneDX) of each, the manifests, the Helm chart, the krew manifest, and SHA256SUMS of all. The same commit, version, image and Go
# give the same bytes, wherever it runs.
#
#   VERSION=v0.1.0      shown by the programs and in the bills; by default what git says
#   IMG=registry/name   the operator's image in the manifests and the chart
#   BASE_URL=https://…  the folder that the release will be downloaded from, in the krew manifest
#   KUBECTL=kubectl     kubectl, for its kustomize
#   CYCLONEDX=path      cyclonedx-gomod, as hack/tools/release pins it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export GOWORK=off CGO_ENABLED=0 GOFLAGS='-trimpath -buildvcs=false' LC_ALL=C

readonly version=${VERSION:?} img=${IMG:?} kubectl=${KUBECTL:?} cyclonedx=${CYCLONEDX:?}
readonly out=dist/release base=${BASE_URL:-https://bulkjob.dev/releases/$version}

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

# build PROGRAM OS-ARCH: compiles it, and makes its bill.
build() {
	local file=$out/$1-$2
	say "building $file"
	GOOS=${2%-*} GOARCH=${2#*-} GOGC=off GOMEMLIMIT=5GiB \
		go build -ldflags "-s -w -buildid= -X main.version=$version" -o "$file" "./cmd/$1"
	bill "$file"
}

platforms=$(hack/krew.sh platforms "$base")
rm -rf "$out"
mkdir -p "$out"
for platform in linux-amd64 linux-arm64; do
	build manager "$platform"
	build bulk-endpoint "$platform"
done
for platform in $platforms; do
	build kubectl-bulkjob "$platform"
done
say "packing the plugin"
hack/krew.sh "$out" "$version" "$base"
say "rendering the manifests and packing the chart"
KUBECTL=$kubectl hack/manifests.sh "$out" "$img" "$version"
(cd "$out" && sha256sum -- * >../SHA256SUMS && mv ../SHA256SUMS .)
say "done: $out, version $version, image $img"
