#!/usr/bin/env bash
# Install the Debian packages that some tests need and that are missing here: one a line, with the
# file that shows it is there. Where they cannot be installed, those tests skip themselves.
set -euo pipefail

missing=() root=()
while read -r package file; do
    compgen -G "$file" >/dev/null || missing+=("$package")
done <<'PACKAGES'
postgresql /usr/lib/postgresql/*/bin/initdb
docker-compose /usr/bin/docker-compose
prometheus /usr/bin/promtool
chromium /usr/bin/chromium
PACKAGES

[ ${#missing[@]} = 0 ] && exit 0
if [ "$(id -u)" = 0 ]; then
    root=(env)
elif sudo -n true 2>/dev/null; then
    root=(sudo -n)
fi
unit=/etc/systemd/system/prometheus.service masked=
if [ ${#root[@]} != 0 ] && [[ " ${missing[*]} " == *" prometheus "* && ! -e $unit && ! -L $unit ]]; then
    # Tests start their own. Debian's would listen on every interface from now on:
    # `systemctl unmask prometheus` for whoever wants it.
    "${root[@]}" mkdir -p "${unit%/*}"
    "${root[@]}" ln -s /dev/null "$unit"
    masked=1
fi
install=(DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends)
if [ ${#root[@]} != 0 ] && "${root[@]}" apt-get update -qq \
    && "${root[@]}" env "${install[@]}" "${missing[@]}" >/dev/null; then
    exit 0
fi
[ -z "$masked" ] || "${root[@]}" rm "$unit"
echo "Not installed, so the tests that need them are skipped: ${missing[*]}" >&2
