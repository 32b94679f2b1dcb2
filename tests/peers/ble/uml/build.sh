#!/usr/bin/env bash
# Builds the kernel of the Bluetooth rig: user-mode Linux with Bluetooth and /dev/vhci, from Debian's kernel source package.
#
#   build.sh FOLDER     FOLDER/linux is the kernel (6 MB); built again only when the package or uml.frag changes
#
# About six minutes of processor time. Nothing is installed, and no module is loaded.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
package=linux-source-6.1
mkdir -p "$1"
cd "$1"
version=$(apt-cache policy "$package" | sed -n 's/^ *Candidate: //p')
[ -n "${version#(none)}" ] || { echo "the package $package is not to be had: apt-get update?" >&2; exit 1; }
made="$version $(sha256sum < "$here/uml.frag")"
if [ -x linux ] && [ "$(cat made 2>/dev/null)" = "$made" ]; then exit 0; fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(
    cd "$work"
    apt-get download -qq "$package"
    dpkg-deb --fsys-tarfile "$package"_*.deb | tar xO "./usr/src/$package.tar.xz" | xz -dc -T0 | tar x
    cd "$package"
    make -s ARCH=um tinyconfig
    cat "$here/uml.frag" >> .config
    make -s ARCH=um olddefconfig
    for key in BT BT_LE BT_HCIVHCI HOSTFS TMPFS DEVTMPFS CRYPTO_USER_API_SKCIPHER UNIX98_PTYS; do
        grep -q "^CONFIG_$key=y" .config || { echo "the kernel's configuration lost CONFIG_$key" >&2; exit 1; }
    done
    make -s ARCH=um -j"$(nproc)" linux
)
cp "$work/$package/linux" linux.new
mv linux.new linux
echo "$made" > made
