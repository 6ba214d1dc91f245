#!/usr/bin/env bash
# Finds HAProxy, installs it where it may, and prints the program's path as the last line on standard output. A test has it
# repeat uploads, as the proxies of service meshes do.
set -euo pipefail

say() { printf 'haproxy: %s\n' "$*" >&2; }

program() { command -v haproxy || PATH=/usr/sbin:/usr/local/sbin command -v haproxy; }

# install: takes Debian's package, and starts no service of it.
install() {
	local policy=/usr/sbin/policy-rc.d
	say "installing HAProxy by apt-get (no service is started)"
	if [ ! -e "$policy" ]; then
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq update >&2 && apt-get -qq install --yes --no-install-recommends haproxy >&2
}

if ! program; then
	if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
		say "haproxy is not on the PATH. Install it (Debian, Ubuntu: haproxy; macOS: brew install haproxy) and try again."
		exit 1
	fi
	install
	program
fi
