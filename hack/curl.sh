#!/usr/bin/env bash
# Finds curl, installs it where it may, and prints the program's path. Pages show the endpoint by curl, and a test types them.
set -euo pipefail

say() { printf 'curl: %s\n' "$*" >&2; }

command -v curl && exit
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
	say "there is no curl on the PATH. Install it and try again."
	exit 1
fi
say "installing curl by apt-get"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update >&2
apt-get -qq install --yes --no-install-recommends curl >&2
command -v curl
