# shellcheck shell=bash
# A Debian root file system with the programs that tests run in containers: fio, stress-ng, sysbench, redis, nginx.
# Sourced by install.sh.

PROGRAMS=(fio stress-ng sysbench redis-server redis-tools nginx-light python3 postgresql)

make_programs() {
    local source target=$PREFIX/rootfs/programs new=$PREFIX/rootfs/.programs stamp
    stamp=etc/masu-programs-$(sha256sum .setup/programs.sh | cut -c1-12)
    [ ! -e "$target/$stamp" ] || return 0
    if rootfs_is_used "$target"; then
        say "keeping the older $target: containers run from it; stop them and run this again to renew it"
        return 0
    fi
    say "building a root file system with ${PROGRAMS[*]} in $target (half a minute)"
    rm -rf --one-file-system "$new" "$target.old"
    source=$(mirror)
    [ -n "$source" ] || die "no Debian mirror in apt's sources: the tests need a root file system from one"
    local said
    said=$(unshare --mount mmdebstrap --mode=root --variant=essential --include="$(IFS=,; echo "${PROGRAMS[*]}")" \
        --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --format=directory \
        "${VERSION_CODENAME:-sid}" "$new" "$source" 2>&1) ||
        die "$said"$'\n'"set-up: could not build $target: see the message above, then run this again"
    rm -rf "$new"/var/lib/apt/lists/* "$new"/var/cache/apt/*
    touch "$new/$stamp"
    [ ! -e "$target" ] || mv -T "$target" "$target.old"
    mv -T "$new" "$target"
    rm -rf "$target.old"
}
