#!/usr/bin/env bash
# Finds Chromium, installs it where it may, and prints the program's path as the last line on standard output. The test of
# the endpoint's status page drives it without a window, with an empty profile of its own.
set -euo pipefail

say() { printf 'chromium: %s\n' "$*" >&2; }

# program: prints the path of the first browser found that is Chromium, by whatever name.
program() {
	local candidate
	for candidate in "${BULKJOB_CHROMIUM:-}" chromium chromium-browser google-chrome-stable google-chrome chromium-headless-shell \
		'/Applications/Chromium.app/Contents/MacOS/Chromium' '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome'; do
		[ -n "$candidate" ] && command -v "$candidate" && return
	done
	return 1
}

# install: takes Debian's package, and a font, without which there is no text to measure.
install() {
	say "installing Chromium by apt-get (some 125 MB)"
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq update >&2 && apt-get -qq install --yes --no-install-recommends chromium fonts-dejavu-core >&2
}

if ! program; then
	if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
		say "there is no chromium on the PATH, nor any other browser made of it."
		say "Install it (Debian: chromium; Ubuntu: google-chrome-stable; macOS: brew install chromium) or name it in BULKJOB_CHROMIUM, and try again."
		exit 1
	fi
	install
	program || {
		say "apt-get has installed Chromium, but not where it is looked for"
		exit 1
	}
fi
