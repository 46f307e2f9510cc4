#!/bin/bash
# Builds the virtual machine of tests/vm: a small Debian 13 with kernel, initrd, runtimes and Python, once per content.
#
#   .setup/vm-image.sh [CACHE]      prints CACHE/<digest>, a directory with vmlinuz, initrd, root.ext4 and kernel.config
#
# Needs root. The mirror is the one this host's apt uses; wheels come through the ordinary pip of $PYTHON.
set -euo pipefail

cache=${1:-/var/cache/masu/vm}
here=$(cd "$(dirname "$0")" && pwd)
suite=trixie
kernel=linux-image-cloud-amd64
packages=(
    python3-minimal python3 python3-installer crun runc criu busybox-static iproute2 nftables procps util-linux
    e2fsprogs iperf3 strace ca-certificates kmod cpio xz-utils
)
modules=(virtio_pci virtio_blk virtio_console virtio_rng quota_v2 ext4 overlay)
test_wheels=("pytest>=8.2" "pytest-timeout>=2.3")

say() { printf '%s\n' "$*" >&2; }

need_tools() {
    local missing=()
    command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
    command -v qemu-img >/dev/null || missing+=(qemu-utils)
    command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
    command -v mkfs.ext4 >/dev/null || missing+=(e2fsprogs)
    ((${#missing[@]} == 0)) && return
    [ "$(id -u)" = 0 ] || { say "vm-image: missing ${missing[*]}; install them or run this as root"; return 1; }
    say "vm-image: installing ${missing[*]}"
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

python_with_pip() {
    local each
    for each in "${PYTHON:-}" "$here/../.venv/bin/python" python3; do
        [ -n "$each" ] && "$each" -m pip --version >/dev/null 2>&1 && echo "$each" && return
    done
    say "vm-image: no Python with pip found; set PYTHON to one"
    return 1
}

requirements() { # the project's own, and what runs its tests
    "$python" - "$here/../pyproject.toml" <<'PY'
import pathlib, sys, tomllib
print(*tomllib.loads(pathlib.Path(sys.argv[1]).read_text())["project"]["dependencies"], sep="\n")
PY
    printf '%s\n' "${test_wheels[@]}"
}

mirror() { # the address of the host's own release, without its security and updates suites
    . /etc/os-release
    apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' 'Origin: Debian' |
        awk -v own="$VERSION_CODENAME" '$2 == own { print $1; exit }'
}

collect_wheels() { # for the guest's Python 3.13, whatever this host runs
    local platform=()
    local each
    for each in manylinux1 manylinux2010 manylinux2014 manylinux_2_17 manylinux_2_28 manylinux_2_34; do
        platform+=(--platform "${each}_x86_64")
    done
    requirements >"$1.txt"
    "$python" -m pip download -qq --disable-pip-version-check --only-binary=:all: "${platform[@]}" \
        --python-version 3.13 --implementation cp --dest "$1" --requirement "$1.txt" >&2
}

bootstrap() { # work directory
    mmdebstrap --variant=apt --include="$(IFS=,; echo "${packages[*]},$kernel")" \
        --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt=force-confold \
        --essential-hook='mkdir -p "$1/etc/initramfs-tools"; echo update_initramfs=no >"$1/etc/initramfs-tools/update-initramfs.conf"' \
        --customize-hook="copy-in $1/wheels /opt" \
        --customize-hook="copy-in $here/vm $here/rootfs.sh /opt" \
        --customize-hook="chroot \"\$1\" /bin/bash /opt/vm/inside.sh ${modules[*]}" \
        "$suite" "$1/root" "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror) $suite main" >&2
}

build() { # work directory
    say "vm-image: building a Debian $suite machine, about a minute"
    collect_wheels "$1/wheels"
    bootstrap "$1"
    mkdir "$1/image"
    mv "$1/root/boot/masu-initrd" "$1/image/initrd"
    cp "$1"/root/boot/vmlinuz-* "$1/image/vmlinuz"
    cp "$1"/root/boot/config-* "$1/image/kernel.config"
    rm -rf "$1"/root/boot/*
    # 3 GiB to write in; the file is sparse.
    truncate -s 3G "$1/image/root.ext4"
    mkfs.ext4 -q -F -E lazy_itable_init=0 -O quota,project -d "$1/root" "$1/image/root.ext4" >&2
    say "vm-image: done in ${SECONDS} s"
}

need_tools
python=$(python_with_pip)
digest=$({ cat "$0" "$here"/vm/* "$here/rootfs.sh"; requirements; } | sha256sum | cut -c1-16)
out=$cache/$digest
if [ ! -d "$out" ]; then
    [ "$(id -u)" = 0 ] || { say "vm-image: building needs root"; exit 1; }
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock 9
    if [ ! -d "$out" ]; then
        work=$(mktemp -d "$cache/build.XXXXXX")
        chmod 755 "$work" # apt drops to its own user in there
        trap 'rm -rf "$work"' EXIT
        build "$work"
        mv -T "$work/image" "$out"
        find "$cache" -mindepth 1 -maxdepth 1 -type d ! -path "$out" ! -path "$work" -mtime +14 -exec rm -rf {} +
    fi
fi
echo "$out"
