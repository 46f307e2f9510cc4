#!/bin/bash
# Runs inside the new root: Python packages, the demo rootfs, the initrd. Arguments: the kernel modules to boot with.
set -euo pipefail

for wheel in /opt/wheels/*.whl; do
    python3 -m installer --compile-bytecode 0 -- "$wheel"
done

rootfs=/opt/masu/rootfs/busybox
mkdir -p "$rootfs"/{bin,dev,etc,proc,root,run,sys,tmp,var,www}
cp /bin/busybox "$rootfs/bin/busybox"
for applet in $(busybox --list); do
    [ "$applet" = busybox ] || ln -s busybox "$rootfs/bin/$applet"
done
printf '%s\n' root:x:0:0::/root:/bin/sh nobody:x:65534:65534::/:/bin/sh user:x:1000:1000::/:/bin/sh >"$rootfs/etc/passwd"

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
rm -rf "$tree" /opt/wheels /opt/vm /var/lib/apt/lists /var/cache/apt
