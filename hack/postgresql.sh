#!/usr/bin/env bash
# Finds PostgreSQL's server programs (initdb, postgres), installs them where it may, and prints their directory as the
# last line on standard output. Tests and the demo start throw-away clusters from them; no service is ever started.
set -euo pipefail

say() { printf 'postgresql: %s\n' "$*" >&2; }

# programs: prints the directory that holds both programs; the newest version wins among the packaged ones.
programs() {
	local candidate
	for candidate in "$(dirname "$(command -v initdb || echo none/initdb)")" $(ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
		/opt/homebrew/opt/postgresql@*/bin 2>/dev/null | sort -rV); do
		if [ -x "$candidate/initdb" ] && [ -x "$candidate/postgres" ]; then
			printf '%s\n' "$candidate"
			return
		fi
	done
	return 1
}

# install: takes Debian's package, and keeps it from making and starting a cluster of its own.
install() {
	local config=/etc/postgresql-common/createcluster.conf
	say "installing PostgreSQL by apt-get (no cluster is made, no service started)"
	mkdir -p "$(dirname "$config")"
	[ -e "$config" ] || echo 'create_main_cluster = false' >"$config"
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq update >&2 && apt-get -qq install --yes --no-install-recommends postgresql >&2
}

if ! programs; then
	if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
		say "initdb and postgres are neither on the PATH nor in /usr/lib/postgresql/*/bin."
		say "Install PostgreSQL 13 or later (Debian, Ubuntu: postgresql; macOS: brew install postgresql@17) and try again."
		exit 1
	fi
	install
	programs || {
		say "apt-get has installed PostgreSQL, but not where it is looked for"
		exit 1
	}
fi
