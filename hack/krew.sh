#!/usr/bin/env bash
# Packs kubectl bulkjob for krew. For each platform of config/krew/bulkjob.yaml there is a program FOLDER/kubectl-bulkjob-OS-ARCH; in its
# place comes kubectl-bulkjob-OS-ARCH.tar.gz, which holds it and the LICENSE, and FOLDER/bulkjob.yaml gets the manifest, with the
# version, the place that the archives are downloaded from, and their digests filled in. The same programs give the same bytes.
#
# Usage: hack/krew.sh FOLDER VERSION BASE_URL
#        hack/krew.sh platforms BASE_URL       checks the URL, and lists the platforms
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export LC_ALL=C
readonly manifest=config/krew/bulkjob.yaml

fail() {
	printf 'krew: %s\n' "$*" >&2
	exit 1
}

# semantic: krew takes semantic versions with a v only; what git says of an untagged commit is none.
semantic() {
	if [[ $version =~ ^v?([0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?)$ ]]; then
		echo "v${BASH_REMATCH[1]}"
	else
		echo "v0.0.0-dev.g${version//[^0-9A-Za-z-]/-}"
	fi
}

# pack PLATFORM: puts an archive in the place of the program, which krew finds in it by the name that users type.
pack() {
	local program=kubectl-bulkjob file=$out/kubectl-bulkjob-$1
	if [[ $1 == windows-* ]]; then program+=.exe; fi
	[[ -f $file ]] || fail "there is no $file"
	install -m 755 "$file" "$folder/$program"
	tar --mtime=@0 --owner=0 --group=0 --numeric-owner --format=ustar -C "$folder" -cf - LICENSE "$program" | gzip -9n >"$file.tar.gz"
	rm "$file"
}

readonly base=${!#}
[[ $base =~ ^https://[A-Za-z0-9]([A-Za-z0-9._~:/%+-]*[A-Za-z0-9._~%+-])?$ ]] || fail "BASE_URL is the https URL of a folder, without a slash at its end: $base"
platforms=$(sed -n 's|^ *uri: BASE_URL/kubectl-bulkjob-\(.*\)\.tar\.gz$|\1|p' "$manifest")
[[ -n $platforms ]] || fail "there is no platform in $manifest"
if [[ $1 == platforms ]]; then
	echo "$platforms"
	exit
fi
readonly out=${1:?} version=${2:?}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
install -m 644 LICENSE "$folder/"

fill=(-e '/^#/d' -e "s|VERSION|$(semantic)|" -e "s|BASE_URL|$base|")
for platform in $platforms; do
	pack "$platform"
	digest=$(sha256sum <"$out/kubectl-bulkjob-$platform.tar.gz")
	placeholder=SHA256_${platform//-/_}
	fill+=(-e "s|: ${placeholder^^}\$|: ${digest%% *}|")
done
sed "${fill[@]}" "$manifest" >"$out/bulkjob.yaml"
if grep -E 'SHA256_|BASE_URL|: VERSION' "$out/bulkjob.yaml" >&2; then fail "that is left in $out/bulkjob.yaml"; fi
