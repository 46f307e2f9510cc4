# shellcheck shell=bash
# A small root file system for the examples and tests: busybox, every applet a link. Sourced by install.sh.

ROOTFS_VERSION=3 # raise it when what is built below changes

make_rootfs() {
    local target=$PREFIX/rootfs/busybox new=$PREFIX/rootfs/.new
    [ ! -e "$target/etc/masu-demo-$ROOTFS_VERSION" ] || return 0
    if rootfs_is_used "$target"; then
        say "keeping the older $target: containers run from it; stop them and run this again to renew it"
        return 0
    fi
    say "building the demo root file system in $target"
    rm -rf "$new" "$target.old"
    fill_rootfs "$new"
    [ ! -e "$target" ] || mv -T "$target" "$target.old"
    mv -T "$new" "$target"
    rm -rf "$target.old"
}

rootfs_is_used() { # path: is it mounted, or a layer of what is mounted, in anybody's namespace?
    [ -d "$1" ] && grep -qsE "[ =:]$1[ :,/]" /proc/[0-9]*/mountinfo
}

fill_rootfs() { # path
    local new=$1
    mkdir -p "$new"/{bin,data,dev,etc,home,mnt,proc,root,run,sys,tmp,usr/bin,var/log,www}
    chmod 1777 "$new/tmp"
    chown 1000:1000 "$new/home"
    cp /bin/busybox "$new/bin/busybox"
    "$new/bin/busybox" --list | while read -r applet; do
        [ "$applet" = busybox ] || ln -s busybox "$new/bin/$applet"
    done
    cat >"$new/etc/passwd" <<-'END'
	root:x:0:0:root:/root:/bin/sh
	user:x:1000:1000:user:/home:/bin/sh
	nobody:x:65534:65534:nobody:/:/bin/sh
	END
    printf '%s\n' root:x:0: user:x:1000: nogroup:x:65534: >"$new/etc/group"
    printf '<h1>masu</h1>\n' >"$new/www/index.html"
    touch "$new"/etc/{hosts,hostname,resolv.conf,"masu-demo-$ROOTFS_VERSION"}
}
