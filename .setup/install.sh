#!/usr/bin/env bash
# Installs what masu needs on Debian 12 or 13, as root: `install.sh run` or `install.sh test`.
# Silent and quick when everything is there. Nothing is left half made: each part is built aside and renamed.
set -euo pipefail
cd "$(dirname "$0")/.."

PREFIX=/opt/masu
NEWER=forky # where runtimes come from that the distribution's own cannot replace
purpose=${1:-run}
here=$(pwd)

say() { printf 'set-up: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 5
}

require_host() {
    [ "$(uname -s)" = Linux ] || die "masu runs on Linux only"
    [ "$(id -u)" = 0 ] || die "run this as root: masu changes cgroups and namespaces"
    command -v apt-get >/dev/null || die "no apt-get here: install crun, criu, busybox-static, nftables and \
python3-venv by hand, put static busybox under $PREFIX/rootfs/busybox/bin, then: pip install . && masu run specs/"
    # shellcheck disable=SC1091
    . /etc/os-release
    release=${VERSION_ID:-99}
}

lists_are_fresh=
install_packages() { # names …: installs those that are missing
    local missing=()
    for package in "$@"; do
        dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    if [ -z "$lists_are_fresh" ]; then
        apt-get update -qq >/dev/null || say "apt-get update failed; trying with the lists there are"
        lists_are_fresh=yes
    fi
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        die "apt-get could not install ${missing[*]}: fix apt, then try again"
}

# --- Python -----------------------------------------------------------------------------------------------

find_python() {
    for python in python3 python3.13 python3.12 python3.11; do
        if command -v $python >/dev/null && $python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            return 0
        fi
    done
    die "no Python 3.11 or newer: apt-get install python3"
}

make_environment() { # run | test
    local extra="" stamp
    [ "$purpose" = test ] && extra="[dev]"
    stamp=.venv/.made-$(sha256sum pyproject.toml .setup/install.sh | sha256sum | cut -c1-12)
    if [ -e "$stamp-test" ] || { [ "$purpose" = run ] && [ -e "$stamp-run" ]; }; then
        return 0
    fi
    find_python
    $python -c 'import ensurepip, venv' 2>/dev/null || install_packages python3-venv
    say "making .venv with $($python --version)"
    [ -x .venv/bin/python ] || $python -m venv .venv
    .venv/bin/pip install -q --disable-pip-version-check -e ".$extra" ||
        die "pip could not install masu's Python packages: is the package index reachable?"
    .venv/bin/python -m compileall -q controller
    touch "$stamp-$purpose"
}

# --- OCI runtimes and CRIU --------------------------------------------------------------------------------

runtimes_work() { # a directory, or empty for PATH
    local bin=${1:+$1/}
    "${bin}crun" --version >/dev/null 2>&1 && "${bin}runc" --version >/dev/null 2>&1 &&
        "${bin}criu" check >/dev/null 2>&1
}

make_runtimes() {
    runtimes_work "$PREFIX/bin" && return 0
    if [ "${release%%.*}" -ge 13 ]; then
        install_packages crun runc criu
        runtimes_work "" && return 0
        say "the distribution's crun, runc or criu does not work on kernel $(uname -r)"
    fi
    install_packages mmdebstrap patchelf
    say "building crun, runc and criu in $PREFIX (half a minute)"
    local tree new=$PREFIX/.new-$$
    tree=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$tree' '$new'" EXIT
    mmdebstrap --quiet --variant=apt --include=criu,libcriu2,crun,runc \
        --aptopt='Acquire::Check-Valid-Until "false"' "$NEWER" "$tree" "$(mirror)" >/dev/null ||
        die "could not unpack Debian $NEWER from $(mirror): is the mirror reachable?"
    copy_programs "$tree" "$new"
    for part in lib bin; do
        rm -rf "${PREFIX:?}/$part"
        mv "$new/$part" "$PREFIX/$part"
    done
    rm -rf "$tree" "$new"
    trap - EXIT
    "$PREFIX/bin/crun" --version >/dev/null || die "crun does not run from $PREFIX: please report this host"
    "$PREFIX/bin/criu" check >/dev/null 2>&1 || say "criu does not pass its check here: checkpoints will be limited"
}

mirror() { # the Debian mirror this host already uses
    local found
    found=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
        awk '$1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /^https?:.*\/debian\/?$/) { print $i; exit } }')
    [ -n "$found" ] || found=$(cat /etc/apt/sources.list.d/*.sources 2>/dev/null |
        awk '$1 == "URIs:" && $2 ~ /\/debian\/?$/ { print $2; exit }')
    [ -n "$found" ] || die "no Debian mirror in this host's apt sources"
    printf '%s\n' "$found"
}

copy_programs() { # tree, new prefix: programs with the libraries and the loader that they need
    local tree=$1 new=$2 loader
    mkdir -p "$new/bin" "$new/lib"
    for name in criu crun runc; do
        cp -L "$tree$(chroot "$tree" sh -c "command -v $name")" "$new/bin/$name"
        chroot "$tree" sh -c "ldd \$(command -v $name)" | grep -o '/[^ ]*' | while read -r library; do
            cp -L -n "$tree$library" "$new/lib/"
        done
    done
    loader=$(find "$new/lib" -name 'ld-linux*' | head -n 1)
    for name in criu crun runc; do
        patchelf --set-interpreter "$PREFIX/lib/$(basename "$loader")" \
            --set-rpath "$PREFIX/lib" --force-rpath "$new/bin/$name"
    done
}

# --- demo root file system --------------------------------------------------------------------------------

make_rootfs() {
    local target=$PREFIX/rootfs/busybox new=$PREFIX/rootfs/.new-$$
    [ -e "$target/etc/masu-demo-2" ] && return 0
    install_packages busybox-static
    say "building the demo root file system in $target"
    rm -rf "$new"
    mkdir -p "$new"/{bin,dev,etc,home,mnt,proc,root,run,sys,tmp,usr/bin,var/log,www,data}
    chmod 1777 "$new/tmp"
    cp "$(command -v busybox || echo /bin/busybox)" "$new/bin/busybox"
    "$new/bin/busybox" --list | while read -r applet; do
        [ "$applet" = busybox ] || ln -s busybox "$new/bin/$applet"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' \
        >"$new/etc/passwd"
    printf 'root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n' >"$new/etc/group"
    printf '<h1>masu</h1>\n' >"$new/www/index.html"
    touch "$new/etc/hosts" "$new/etc/hostname" "$new/etc/resolv.conf" "$new/etc/masu-demo-2"
    rm -rf "$target"
    mv "$new" "$target"
}

require_host
mkdir -p "$PREFIX/rootfs"
make_environment
install_packages busybox-static iproute2 nftables util-linux git
make_runtimes
make_rootfs
if [ "$purpose" = test ]; then
    install_packages strace mmdebstrap e2fsprogs qemu-system-x86
fi
cd "$here"
