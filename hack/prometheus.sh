#!/usr/bin/env bash
# Finds Prometheus and promtool, fetches them where it may, and prints their directory as the last line on standard output.
# Debian's package is unpacked into the user's cache and not installed, so that no service is ever started.
set -euo pipefail

cache=${XDG_CACHE_HOME:-$HOME/.cache}/bulkjob-operator/prometheus

say() { printf 'prometheus: %s\n' "$*" >&2; }

# programs: prints the first directory that holds both programs.
programs() {
	local candidate
	for candidate in "$(dirname "$(command -v promtool || echo none/promtool)")" "$cache/usr/bin"; do
		if [ -x "$candidate/promtool" ] && [ -x "$candidate/prometheus" ]; then
			printf '%s\n' "$candidate"
			return
		fi
	done
	return 1
}

# unpack: takes Debian's package, of which the two programs need nothing but the C library.
unpack() {
	local work
	say "fetching Prometheus by apt-get (some 20 MB; it is unpacked, no service is installed)"
	mkdir -p "$(dirname "$cache")"
	work=$(mktemp -d "$cache.XXXXXX")
	(
		cd "$work"
		apt-get -qq download prometheus >&2 || { apt-get -qq update >&2 && apt-get -qq download prometheus >&2; }
		dpkg-deb --extract prometheus_*.deb unpacked
	) && rm -rf "$cache" && mv "$work/unpacked" "$cache"
	local failed=$?
	rm -rf "$work"
	return "$failed"
}

if ! programs; then
	if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
		say "promtool and prometheus are not on the PATH."
		say "Install Prometheus 2.40 or later (Debian, Ubuntu: prometheus; macOS: brew install prometheus) and try again."
		exit 1
	fi
	unpack || {
		say "apt-get could not fetch Prometheus"
		exit 1
	}
	programs || {
		say "Debian's package has the programs elsewhere than where they are looked for"
		exit 1
	}
fi
