#!/usr/bin/env bash
# Puts a real control plane (etcd, kube-apiserver, kubectl) in place for envtest, the demo and the end-to-end test, and
# prints its directory as the last line on standard output. Everything else goes to standard error.
#
#   KUBEBUILDER_ASSETS=DIR   use the binaries in DIR, whatever else is there
#   CONTROLPLANE=source      build from source, even where published binaries can be had
#   ENVTEST_INDEX=URL        a mirror's index of published binaries, in setup-envtest's form
#
# Without these: what an earlier run left in the cache, else the published envtest binaries, else a build from source.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export GOWORK=off

readonly index_seconds=20     # for the answer "no network": a build waits behind it
readonly download_seconds=600 # for the binaries, once the index has answered
readonly report_seconds=15    # between two lines of progress

say() { printf 'controlplane: %s\n' "$*" >&2; }
fail() {
	say "$*"
	exit 1
}

# works DIR: succeeds if all three programs are in DIR and run on this machine.
works() {
	"$1/etcd" --version && "$1/kube-apiserver" --version && "$1/kubectl" version --client
} >/dev/null 2>&1

# within SECONDS COMMAND...: runs the command, and ends it after that time. (macOS has no timeout.)
within() {
	local seconds=$1 status=0
	shift
	"$@" &
	local command=$!
	(sleep "$seconds" && kill "$command") >/dev/null 2>&1 9>&- &
	local watchdog=$!
	wait "$command" || status=$?
	kill "$watchdog" 2>/dev/null || true
	return "$status"
}

# fingerprint: what a build from source depends on, as one word.
fingerprint() {
	(cd hack/controlplane && cat go.mod go.sum ./*.go && go env GOOS GOARCH) | git hash-object --stdin | cut -c 1-16
}

# published: downloads the released binaries for the Kubernetes minor of go.mod, or takes them from its own cache, and
# prints their directory. Fails, having said why, where they can't be had.
published() {
	local minor setup=$cache/setup-envtest index=()
	minor=$(go list -m -f '{{.Version}}' k8s.io/client-go | sed -E 's/^v0\.([0-9]+)\..*/1.\1/')
	if [ -n "${ENVTEST_INDEX:-}" ]; then index=(--index "$ENVTEST_INDEX"); fi
	say "looking for published binaries of Kubernetes $minor (at most $index_seconds s without a network)"
	# Built with the flags of the build from source, which then finds the standard library compiled.
	if ! CGO_ENABLED=0 go -C hack/tools build -trimpath -o "$setup" sigs.k8s.io/controller-runtime/tools/setup-envtest >&2; then
		say "cannot build setup-envtest"
		return 1
	fi
	local store=(--bin-dir "$cache/published" ${index[@]+"${index[@]}"})
	if ! "$setup" use "$minor" --installed-only "${store[@]}" >/dev/null 2>&1 &&
		! within "$index_seconds" "$setup" list "$minor" "${store[@]}" >/dev/null 2>&1; then
		say "no index of published binaries can be reached"
		return 1
	fi
	within "$download_seconds" "$setup" use "$minor" --print path "${store[@]}" 2>/dev/null || {
		say "the index has no binaries of Kubernetes $minor for this machine"
		return 1
	}
}

# progress LOG TOTAL: says every while how many packages of TOTAL the log tells of.
progress() {
	while sleep "$report_seconds" >/dev/null 2>&1; do
		say "$((SECONDS / 60)) min $((SECONDS % 60)) s: $(wc -l <"$1" | tr -d ' ') of about $2 packages compiled"
	done
}

# build DIR: compiles the control plane into DIR. A compiler that never collects garbage is a fifth faster.
build() {
	local total log=$1/build.log stamp=k8s.io/component-base/version version
	SECONDS=0
	say "building a control plane from source, once for this machine: some minutes, 0.6 GB of modules, 3 GB of build cache"
	version=$(go -C hack/controlplane list -m -f '{{.Version}}' k8s.io/kubernetes)
	total=$(go -C hack/controlplane list -deps . | wc -l | tr -d ' ')
	: >"$log"
	progress "$log" "$total" 9>&- &
	local reporter=$! status=0
	# shellcheck disable=SC2064
	trap "kill $reporter 2>/dev/null || true; rm -rf '$1'" EXIT
	CGO_ENABLED=0 GOGC=off GOMEMLIMIT=5GiB go -C hack/controlplane build -v -trimpath -o "$1/controlplane" -ldflags "-s -w \
		-X $stamp.gitVersion=$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=$(cut -d . -f 2 <<<"$version")" . 2>"$log" || status=$?
	if [ "$status" -ne 0 ]; then
		tail -n 30 "$log" >&2
		fail "the build failed"
	fi
	kill "$reporter" 2>/dev/null || true
	for name in etcd kube-apiserver kubectl; do ln -s controlplane "$1/$name"; done
	rm -f "$log"
	works "$1" || fail "the control plane was built but does not run"
	say "built in $((SECONDS / 60)) min $((SECONDS % 60)) s"
}

if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
	works "$KUBEBUILDER_ASSETS" || fail "KUBEBUILDER_ASSETS is set to $KUBEBUILDER_ASSETS, but etcd, kube-apiserver and kubectl don't all run from there"
	say "using KUBEBUILDER_ASSETS"
	printf '%s\n' "$KUBEBUILDER_ASSETS"
	exit
fi

cache=${XDG_CACHE_HOME:-$HOME/.cache}/bulkjob-operator/controlplane
mkdir -p "$cache"
# One build at a time; the second finds it done. Without flock (macOS) two builds only waste time, since the last step is
# a rename.
if command -v flock >/dev/null; then
	exec 9>"$cache/lock"
	flock --nonblock 9 || {
		say "waiting for another run to finish"
		flock 9
	}
fi

built=$cache/$(fingerprint)
if works "$built"; then
	say "using the one built before"
elif [ "${CONTROLPLANE:-}" != source ] && found=$(published) && works "$found"; then
	say "using published binaries"
	built=$found
else
	temporary=$(mktemp -d "$cache/building.XXXXXX")
	build "$temporary"
	rm -rf "$built"
	mv "$temporary" "$built"
	trap - EXIT
	chmod 755 "$built"
fi
printf '%s\n' "$built"
