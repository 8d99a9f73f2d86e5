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
if [ ${#root[@]} != 0 ] && [[ " ${missing[*]} " == *" prometheus "* ]]; then
    # Tests start their own. Debian's would listen on every interface from now on:
    # `systemctl unmask prometheus` for whoever wants it.
    "${root[@]}" mkdir -p /etc/systemd/system
    "${root[@]}" ln -sfn /dev/null /etc/systemd/system/prometheus.service
fi
install=(DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends)
if [ ${#root[@]} != 0 ] && "${root[@]}" apt-get update -qq \
    && "${root[@]}" env "${install[@]}" "${missing[@]}" >/dev/null; then
    exit 0
fi
echo "Not installed, so the tests that need them are skipped: ${missing[*]}" >&2
