#!/usr/bin/env bash
# Install the real servers, the browser and the independent DICOM readers that the slow tests talk to,
# where that is possible; the tests that miss one skip and say so.
set -euo pipefail

missing=()
want() { command -v "$1" >/dev/null || missing+=("$2"); }
want chromium chromium
want prometheus prometheus
want ip iproute2
want Orthanc orthanc
want dciodvfy dicom3tools
want dsrdump dcmtk
want dcm2niix dcm2niix
[ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] || missing+=(orthanc-dicomweb)
ldconfig -p | grep 'libpangoft2-1\.0\.so\.0' >/dev/null ||
    missing+=(libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0 fonts-dejavu-core)  # PDF reports
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
[ ${#missing[@]} -gt 0 ] || exit 0
if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "Not installed: ${missing[*]} (needs Debian or Ubuntu and root); their tests will be skipped."
    exit 0
fi
echo "Installing ${missing[*]} ..."
# a policy of 101 keeps packages from starting their services here
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy
    trap 'rm -f $policy' EXIT
fi
apt-get update -qq </dev/null
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
    </dev/null >/dev/null
