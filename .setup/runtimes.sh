# shellcheck shell=bash
# crun, runc and criu that work on this kernel: the distribution's where they do, otherwise a newer Debian's in
# a private prefix, each with its own loader and libraries beside it. Sourced by install.sh.
# shellcheck disable=SC2154 # install.sh sets purpose and release

NEWER=forky # the Debian release they are taken from

make_runtimes() { # the stamp names the kernel: what works is asked again after a new one was booted
    local version built stamp
    version=$(sha256sum .setup/runtimes.sh | cut -c1-12)
    built=$PREFIX/runtimes-$version
    stamp="$version $(uname -r)"
    if [ "$(cat "$PREFIX/.runtimes" 2>/dev/null)" = "$stamp" ] && all_present; then
        return 0
    fi
    if [ -d "$built" ] || ! distribution_serves; then
        [ -d "$built" ] || build_runtimes "$built"
        use_runtimes "$built"
        probe "$PREFIX/bin/" || true
    fi
    [ -z "$broken" ] || say "$broken: masu doctor says what that means for this host"
    printf '%s\n' "$stamp" >"$PREFIX/.runtimes"
}

all_present() {
    for name in crun runc criu; do
        [ -x "$PREFIX/bin/$name" ] || command -v $name >/dev/null || return 1
    done
}

distribution_serves() { # Debian 12's criu fails on newer kernels, its crun on the hybrid layout
    broken=
    [ "$release" -ge 13 ] || return 1
    install_packages crun runc criu
    probe "" || say "$broken"
    [ -z "$broken" ]
}

# --- does it work here? -----------------------------------------------------------------------------------

probe() { # directory with a slash, or nothing for PATH; sets broken to what is wrong
    broken=
    local said
    for name in crun runc; do
        said=$(starts_container "$1$name" 2>&1) || broken="$1$name starts no container here (${said##*$'\n'})"
    done
    said=$("$1criu" check 2>&1) || broken="$1criu fails its check here (${said##*$'\n'})"
    said=$(checkpoints_a_socket "$1criu" 2>&1) || broken="$1criu makes no checkpoint here (${said##*$'\n'})"
    [ -z "$broken" ]
}

starts_container() { # program: runs /bin/true of the demo root file system, and leaves nothing behind
    local program=$1 bundle status=0
    bundle=$(mktemp -d)
    cat >"$bundle/config.json" <<-END
	{"ociVersion": "1.0.2", "hostname": "set-up",
	 "root": {"path": "$PREFIX/rootfs/busybox", "readonly": true},
	 "process": {"args": ["/bin/true"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}},
	 "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
	            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}],
	 "linux": {"cgroupsPath": "/masu-set-up-$$", "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "uts"}]}}
	END
    # crun refuses the hybrid layout unless it sees the cgroup2 mount alone; masu runs it in the same way.
    # shellcheck disable=SC2016
    timeout -k 1 20 unshare --mount sh -c '
        case $1 in *crun)
            set -- "$@" --cgroup-manager=disabled
            [ ! -d /sys/fs/cgroup/unified ] || mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup ;;
        esac
        bundle=$2; program=$1; shift 2
        exec "$program" --root "$bundle/state" "$@" run --bundle "$bundle" masu-set-up' \
        sh "$program" "$bundle" </dev/null || status=$?
    rm -rf "$bundle"
    return $status
}

checkpoints_a_socket() { # program: `criu check` is content with kernels on which it fails at the first socket
    local program=$1 images process status=0
    images=$(mktemp -d)
    setsid .venv/bin/python -c 'import os, socket, time
os.closerange(3, 1024)  # what the caller left open may be out of reach of a checkpoint
s = socket.socket(); time.sleep(60)' </dev/null >/dev/null 2>&1 &
    process=$!
    sleep 0.3 # until it has opened its socket
    timeout -k 1 20 "$program" dump --tree $process --images-dir "$images" --manage-cgroups=ignore \
        -o "$images/log" || status=$?
    kill -KILL $process 2>/dev/null || true
    wait $process 2>/dev/null || true
    [ $status = 0 ] || grep Error "$images/log" | grep -v RLIMIT_NOFILE | head -n 1
    rm -rf "$images"
    return $status
}

# --- the private prefix -----------------------------------------------------------------------------------

build_runtimes() { # path: where they will be
    local built=$1 new=$PREFIX/.new source
    install_packages mmdebstrap patchelf
    source=$(mirror)
    [ -n "$source" ] || die "no Debian mirror in apt's sources: install crun, runc and criu 4.2 by hand, on PATH"
    say "building crun, runc and criu in $PREFIX (half a minute)"
    rm -rf --one-file-system "$new"
    mkdir "$new"
    # shellcheck disable=SC2064
    trap "rm -rf --one-file-system '$new'" EXIT
    # What it mounts in the tree is gone with its mount namespace, also when it is killed.
    unshare --mount mmdebstrap --quiet --mode=root --variant=apt --include=criu,libcriu2,crun,runc \
        --aptopt='Acquire::Check-Valid-Until "false"' "$NEWER" "$new/tree" "$source" >"$new/log" 2>&1 ||
        die "could not unpack Debian $NEWER from this host's mirror: $(tail -n 1 "$new/log")"
    copy_programs "$new/tree" "$new/made" "$built"
    mv -T "$new/made" "$built"
    rm -rf --one-file-system "$new"
    trap - EXIT
}

mirror() { # prints the Debian mirror that apt uses here, if any
    # shellcheck disable=SC2016
    local ask=(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' "Codename: ${VERSION_CODENAME:-sid}")
    [ -n "$("${ask[@]}" | head -n 1)" ] || refresh_lists
    "${ask[@]}" | head -n 1
}

copy_programs() { # tree, directory to fill, its path later: programs, their libraries, their loader
    local tree=$1 made=$2 later=$3 loader
    mkdir -p "$made/bin" "$made/lib"
    for name in crun runc criu; do
        cp -L "$tree$(in_tree command -v $name)" "$made/bin/$name"
        copy_libraries "$(in_tree command -v $name)"
    done
    # crun opens CRIU's library only when it is asked for a checkpoint, so nothing lists it as needed.
    copy_libraries "$(in_tree 'ls /usr/lib/*/libcriu.so.2')"
    loader=$(basename "$made"/lib/ld-linux*)
    # A wrapper that calls the loader would not do: runc executes itself again.
    for name in crun runc criu; do
        patchelf --set-interpreter "$later/lib/$loader" --set-rpath "$later/lib" --force-rpath "$made/bin/$name"
    done
}

in_tree() { chroot "$tree" sh -c "$*"; }

copy_libraries() { # program or library in the tree
    case $1 in *.so.*) cp -L "$tree$1" "$made/lib/" ;; esac
    in_tree ldd "$1" | grep -o '/[^ ]*' | while read -r library; do
        cp -L "$tree$library" "$made/lib/"
    done
}

use_runtimes() { # path
    ln -sfn "$(basename "$1")/bin" "$PREFIX/.bin"
    if [ -d "$PREFIX/bin" ] && [ ! -L "$PREFIX/bin" ]; then # put there by hand
        mv -T "$PREFIX/bin" "$PREFIX/.new-bin"
    fi
    mv -T "$PREFIX/.bin" "$PREFIX/bin"
    rm -rf "${PREFIX:?}"/{lib,.new-bin}
    find "$PREFIX" -maxdepth 1 -name 'runtimes-*' ! -name "$(basename "$1")" -exec rm -rf {} +
}
