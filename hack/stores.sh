#!/usr/bin/env bash
# Puts real object-store servers in place for tests and benchmarks, and prints their directory as the last line on
# standard output. Everything else goes to standard error. No service is ever started.
#
#   hack/stores.sh [s3] [gcs] [azure]    which of them; all without arguments
#
#   s3      versitygw, built from source as hack/stores/go.mod pins it
#   gcs     fake-gcs-server, likewise
#   azure   azurite-blob: Azurite, installed by npm as hack/stores/azurite pins it; needs Node.js, also while it runs
#
# They stay in the user's cache until a pin changes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export GOWORK=off

readonly oldest_node=18

say() { printf 'stores: %s\n' "$*" >&2; }
fail() {
	say "$*"
	exit 1
}

# fingerprint: what the programs depend on, as one word.
fingerprint() {
	(cd hack/stores && cat go.mod go.sum azurite/* && go env GOOS GOARCH) | git hash-object --stdin | cut -c 1-16
}

# take PATH...: moves what is finished from the temporary folder to where it is looked for, the program itself last.
take() {
	local program=${*: -1} path
	"$temporary/$program" --version >/dev/null 2>&1 || "$temporary/$program" -help >/dev/null 2>&1 ||
		fail "$program is there but does not run"
	for path in "$@"; do
		rm -rf "${stores:?}/$path"
		mv "$temporary/$path" "$stores/$path"
	done
	say "$program is in place after $((SECONDS / 60)) min $((SECONDS % 60)) s"
}

# build NAME PACKAGE: compiles a program. A compiler that never collects garbage is a fifth faster.
build() {
	say "building $1 from source, once for this machine: one to three minutes"
	GOGC=off GOMEMLIMIT=5GiB CGO_ENABLED=0 go -C hack/stores build -trimpath -ldflags '-s -w' -o "$temporary/$1" "$2" >&2 ||
		fail "the build of $1 failed"
	take "$1"
}

# node_works: succeeds if there is a Node.js that can run Azurite.
node_works() {
	node -e "process.exit(parseInt(process.versions.node) >= $oldest_node ? 0 : 1)" >/dev/null 2>&1
}

# need_node PACKAGE...: has Debian's packages installed, unless Node.js, and npm if it is named, are there.
need_node() {
	works() { node_works && { [ $# -lt 2 ] || command -v npm >/dev/null; }; }
	if works "$@"; then return; fi
	if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
		say "installing Node.js by apt-get ($*)"
		export DEBIAN_FRONTEND=noninteractive
		{ apt-get -qq update && apt-get -qq install --yes --no-install-recommends "$@"; } >&2 || true # said below
	fi
	if works "$@"; then return; fi
	say "Azurite needs Node.js $oldest_node or later, and npm to be installed. Here are:" \
		"node $(node --version 2>/dev/null || echo '(none)'), npm $(npm --version 2>/dev/null || echo '(none)')."
	fail "Install them (Debian, Ubuntu: nodejs npm; macOS: brew install node) and try again."
}

# azurite: installs Azurite. Nothing that is downloaded may run meanwhile: none of the packages needs to.
azurite() {
	need_node nodejs npm
	say "installing Azurite by npm, once for this machine: half a minute, 190 MB"
	mkdir "$temporary/azurite"
	cp hack/stores/azurite/package.json hack/stores/azurite/package-lock.json "$temporary/azurite"
	cp hack/stores/azurite/azurite-blob "$temporary"
	npm --prefix "$temporary/azurite" ci --ignore-scripts --omit=dev --no-audit --no-fund --loglevel=error >&2 ||
		fail "npm cannot install Azurite"
	take azurite azurite-blob
}

cache=${XDG_CACHE_HOME:-$HOME/.cache}/bulkjob-operator/stores
stores=$cache/$(fingerprint)
mkdir -p "$stores"
# One run at a time; the second finds all done. Without flock (macOS) two runs only waste time, since the last step is a
# rename.
if command -v flock >/dev/null; then
	exec 9>"$cache/lock"
	flock --nonblock 9 || {
		say "waiting for another run to finish"
		flock 9
	}
fi
temporary=$(mktemp -d "$cache/building.XXXXXX")
trap 'rm -rf "$temporary"' EXIT

if [ $# -eq 0 ]; then set -- s3 gcs azure; fi
for store; do
	case $store in
	s3) [ -x "$stores/versitygw" ] || build versitygw github.com/versity/versitygw/cmd/versitygw ;;
	gcs) [ -x "$stores/fake-gcs-server" ] || build fake-gcs-server github.com/fsouza/fake-gcs-server ;;
	azure)
		need_node nodejs
		[ -x "$stores/azurite-blob" ] || azurite
		;;
	*) fail "there is no store $store: say s3, gcs or azure" ;;
	esac
done
printf '%s\n' "$stores"
