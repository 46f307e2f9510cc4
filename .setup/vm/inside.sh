#!/bin/bash
# Runs inside the new root: Python packages, the demo rootfs, the initrd. Arguments: the kernel modules to boot with.
set -euo pipefail

for wheel in /opt/wheels/*.whl; do
    python3 -m installer --compile-bytecode 0 -- "$wheel"
done

# shellcheck disable=SC1091
. /opt/rootfs.sh
fill_rootfs /opt/masu/rootfs/busybox

install -m 755 /opt/vm/init /sbin/masu-vm-init
kernel=$(basename /lib/modules/*)
tree=$(mktemp -d)
mkdir -p "$tree"/{bin,dev,root,modules}
cp /bin/busybox "$tree/bin/"
install -m 755 /opt/vm/initrd-init "$tree/init"
count=100 # three digits: the shell's glob sorts them in the order of dependency
modprobe --show-depends --all --set-version "$kernel" "$@" | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' |
    while read -r module; do
        name=$(basename "$module")
        case $module in
        *.xz) xz -dc "$module" >"$tree/modules/$count-${name%.xz}" ;;
        *) cp "$module" "$tree/modules/$count-$name" ;;
        esac
        count=$((count + 1))
    done
(cd "$tree" && find . | cpio --quiet -o -H newc) >/boot/masu-initrd
rm -rf "$tree" /opt/wheels /opt/vm /opt/rootfs.sh /var/lib/apt/lists /var/cache/apt
