#!/usr/bin/env bash
# Installs what masu needs on Debian 12 or newer, as root: `install.sh run` or `install.sh test`.
# Says one line per thing it does, and nothing when there is nothing to do. Each part is built aside and
# put in place by a rename, so an interrupted run leaves nothing half made: run it again.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."

PREFIX=/opt/masu
PACKAGES=(busybox-static e2fsprogs git iproute2 nftables skopeo umoci util-linux)
TEST_PACKAGES=(btrfs-progs docker-registry iperf3 mmdebstrap qemu-system-x86 strace)
APT=(apt-get -qq -y -o DPkg::Lock::Timeout=120)
purpose=${1:-run}

say() { printf 'set-up: %s\n' "$*" >&2; }

die() { # 5 is masu's own exit code for "this host lacks something"
    say "$*"
    exit 5
}

require_host() {
    case $purpose in run | test) ;; *) die "usage: .setup/install.sh run|test" ;; esac
    [ "$(uname -s)" = Linux ] || die "masu runs on Linux only: use a Debian 12 or 13 machine, virtual or real"
    [ "$(id -u)" = 0 ] || die "run this as root (sudo make $purpose): masu makes cgroups and namespaces"
    command -v apt-get >/dev/null || die "no apt-get here: install Python 3.11, crun or runc, criu 4.2, nftables \
and iproute2 by hand, then: python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/masu doctor"
    # shellcheck disable=SC1091
    . /etc/os-release
    release=${VERSION_ID:-99} # testing and unstable have no number
    release=${release%%.*}
}

one_at_a_time() { # two set-ups on one host would build the same prefix
    mkdir -p "$PREFIX/rootfs"
    exec 9>"$PREFIX/.lock"
    flock -n 9 && return 0
    say "waiting for another set-up on this host to end"
    flock 9
}

missing_packages() { # names …: prints those that are not installed, on one line
    local installed
    # shellcheck disable=SC2016
    installed=" $(dpkg-query -W -f '${db:Status-Status}:${Package} ' "$@" 2>/dev/null || true)"
    for package in "$@"; do
        [[ $installed == *" installed:$package "* ]] || printf '%s ' "$package"
    done
}

refresh_lists() { # once; a source of somebody else's that fails is no reason to stop
    [ -z "${lists_are_fresh:-}" ] || return 0
    lists_are_fresh=yes
    "${APT[@]}" update >/dev/null 2>&1 || say "apt-get update failed in part: going on with what it has"
}

install_packages() { # names …: installs those that are missing
    local missing said
    read -ra missing <<<"$(missing_packages "$@")"
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]}"
    refresh_lists
    said=$(DEBIAN_FRONTEND=noninteractive "${APT[@]}" install --no-install-recommends "${missing[@]}" 2>&1) ||
        die "$said"$'\n'"set-up: apt-get could not install ${missing[*]}: see its message above, then run this again"
}

keep_stopped() { # package: its service is for tests alone, which run it themselves; not where somebody has it already
    [ -n "$(missing_packages "$1")" ] && [ ! -e "/etc/systemd/system/$1.service" ] || return 0
    mkdir -p /etc/systemd/system
    ln -sfn /dev/null "/etc/systemd/system/$1.service"
}

# shellcheck source=.setup/environment.sh
. .setup/environment.sh
# shellcheck source=.setup/rootfs.sh
. .setup/rootfs.sh
# shellcheck source=.setup/programs.sh
. .setup/programs.sh
# shellcheck source=.setup/runtimes.sh
. .setup/runtimes.sh

require_host
one_at_a_time
make_environment
install_packages "${PACKAGES[@]}"
make_rootfs
make_runtimes
if [ "$purpose" = test ]; then
    keep_stopped docker-registry
    install_packages "${TEST_PACKAGES[@]}"
    make_programs
fi
