"""The Images port: skopeo fetches, umoci unpacks, and what comes of it is looked at before it has a name.

`<state>/images/<digest>/{rootfs,image.json}`: made aside in `.<digest>.coming`, and renamed when it is whole and on
disk.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from controller.checkpoints.policy import DEFAULT_MIN_FREE
from controller.errors import NOT_UNDERSTOOD, HostLacks, ImageRefused, StepFailed
from controller.frozen import as_dict
from controller.host import image_layout
from controller.host.facts import find
from controller.host.image_layout import digest_of
from controller.host.image_tree import text_in, tidy
from controller.host.mount_table import mentioned
from controller.host.pulling import Pulling
from controller.host.removal import remove_deep
from controller.host.syscalls import free_bytes, syncfs
from controller.host.text import failed, make_private, read_text, sync_directory
from controller.model.image import (
    MOST_MANIFEST,
    OCI,
    Amount,
    Image,
    Manifest,
    Reference,
    Source,
    image_of,
    parse_manifest,
    parse_reference,
)
from controller.model.quantity import format_bytes

AUTH_FILE: Final = "/etc/masu/auth.json"
"""Credentials for whoever names none; as `skopeo login --authfile` writes it."""
POLICY: Final = "/etc/containers/policy.json"
"""What signatures are asked for (containers-policy.json(5)); where there is none, none are."""
STALL_S: Final = 60.0
"""Without a single new byte."""
MANIFEST_S: Final = 30.0
UNPACK_S: Final = 3600.0
FETCH_S: Final = 24 * 3600.0
COMING, GOING = ".coming", ".removed"


class ImageStore:
    """Thread-safe. `machine`: uname(2)'s word for it. Two that want the same digest fetch it once."""

    def __init__(
        self, root: str, machine: str, *, stall_s: float = STALL_S, min_free: int = DEFAULT_MIN_FREE
    ) -> None:
        self._root, self._machine = root, machine
        self._stall_s, self._min_free = stall_s, min_free
        self._pulling = Pulling()
        self._lock = threading.Lock()
        self._busy: dict[str, threading.Lock] = {}

    def names(self) -> frozenset[str]:
        try:
            found = os.listdir(self._root)
        except FileNotFoundError:
            return frozenset()
        return frozenset(f"sha256:{each}" for each in found if not each.startswith("."))

    def look(self, digest: str) -> Image | None:
        text = read_text(f"{self._path(digest)}/image.json")
        if text is None or not os.path.isdir(f"{self._path(digest)}/rootfs"):
            return None
        try:
            value = json.loads(text)
            lists = {key: tuple(value[key]) for key in ("entrypoint", "cmd")}
            env = tuple((name, each) for name, each in value["env"])
            return Image(**{**value, **lists, "env": env, "path": f"{self._path(digest)}/rootfs"})
        except NOT_UNDERSTOOD:
            return None

    def resolve(self, source: Source, timeout_s: float) -> str:
        reference = parse_reference(source.reference)
        if reference.transport == OCI:
            return image_layout.resolve(reference, self._machine)
        which = f"@{reference.digest}" if reference.digest else f":{reference.tag}"
        first = self._manifest(source, which, timeout_s)
        known = {digest_of(first): first}

        def read(digest: str) -> bytes:
            return known.get(digest) or self._manifest(source, f"@{digest}", timeout_s)

        return image_layout.platform(read, source.reference, digest_of(first), self._machine)

    def fetch(self, source: Source, digest: str, told: Callable[[Amount], None]) -> Image:
        with self._alone(digest):
            found = self.look(digest)
            if found:
                return found
            aside = f"{self._root}/.{digest.removeprefix('sha256:')}{COMING}"
            try:
                make_private(self._root)
                _clear(aside)
                os.makedirs(f"{aside}/layout", 0o700)
                os.mkdir(f"{aside}/made", 0o700)
                image = self._make(source, digest, aside, told)
                _write(f"{aside}/made/image.json", json.dumps(as_dict(image)))
                syncfs(aside)
                _clear(self._path(digest))  # which `look` has found to be damaged
                os.rename(f"{aside}/made", self._path(digest))
                sync_directory(self._root)
            except OSError as error:
                raise failed(error, "unpacking an image in", aside) from error
            finally:
                with contextlib.suppress(OSError):
                    _clear(aside)
        return image

    def remove(self, digest: str) -> None:
        path, doomed = self._path(digest), f"{self._root}/.{digest.removeprefix('sha256:')}{GOING}"
        with self._alone(digest):
            if mentioned(f"{path.removeprefix(self._root)}/rootfs"):
                raise StepFailed(f"{path} is mounted somewhere still", path=path, errno=errno.EBUSY)
            try:
                _clear(doomed)
                with contextlib.suppress(FileNotFoundError):
                    os.rename(path, doomed)
                _clear(doomed)
            except OSError as error:
                raise failed(error, "removing", path) from error

    def sweep(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            for each in os.listdir(self._root):
                if each.startswith("."):
                    try:
                        _clear(f"{self._root}/{each}")
                    except OSError as error:
                        raise failed(error, "removing", f"{self._root}/{each}") from error

    def halt(self) -> None:
        self._pulling.halt()

    def _path(self, digest: str) -> str:
        return f"{self._root}/{digest.removeprefix('sha256:')}"

    @contextlib.contextmanager
    def _alone(self, digest: str) -> Iterator[None]:
        with self._lock:
            lock = self._busy.setdefault(digest, threading.Lock())
        with lock:
            yield

    def _make(self, source: Source, digest: str, aside: str, told: Callable[[Amount], None]) -> Image:
        """Raises OSError, too."""
        reference, layout, tree = parse_reference(source.reference), f"{aside}/layout", f"{aside}/made/rootfs"
        if reference.transport == OCI:
            manifest = image_layout.manifest(reference.name, digest)
            self._keep_free(manifest.size)
            image_layout.refer(layout, os.path.abspath(f"{reference.name}/blobs"), digest)
        else:
            manifest = self._copy(source, digest, layout, told)
        told(Amount("unpacking", 0, manifest.size))
        unpack = [_program("umoci"), "raw", "unpack", "--image", f"{layout}:{image_layout.NAME}", tree]
        self._pulling.run(unpack, UNPACK_S, lambda: self._keep_free(0))
        try:
            tidy(tree)
            config = image_layout.config(layout, manifest.config)
            users, groups = (text_in(tree, each) for each in ("etc/passwd", "etc/group"))
            return image_of(digest, f"{self._path(digest)}/rootfs", config, users, groups)
        except (ImageRefused, ValueError) as error:
            raise ImageRefused(f"{source.reference} ({digest}): {error}") from error

    def _copy(self, source: Source, digest: str, layout: str, told: Callable[[Amount], None]) -> Manifest:
        """From a registry to a layout. Another format than OCI's is turned into that, with the same layers."""
        raw = self._manifest(source, f"@{digest}", MANIFEST_S)
        try:
            wanted = parse_manifest(json.loads(raw))
        except (ValueError, RecursionError) as error:
            raise ImageRefused(f"{source.reference} ({digest}): {error}") from error
        self._keep_free(wanted.size)
        name = f"docker://{parse_reference(source.reference).name}@{digest}"
        argv = [
            *_skopeo(),
            "copy",
            "--quiet",
            *_access(source, "src-"),
            name,
            f"oci:{layout}:{image_layout.NAME}",
        ]
        watch = _Watch(layout, wanted.size, self._stall_s, told)

        def look() -> None:
            watch.look()
            self._keep_free(0)

        look()
        self._pulling.run(argv, FETCH_S, look)
        here = image_layout.resolve(Reference(OCI, layout, image_layout.NAME, ""), self._machine)
        manifest = image_layout.manifest(layout, here)
        if [each for each, _ in manifest.layers] != [each for each, _ in wanted.layers]:
            raise ImageRefused(f"{source.reference}: {digest} came with other layers than it names")
        return manifest

    def _manifest(self, source: Source, which: str, timeout_s: float) -> bytes:
        """As the registry has it: its digest is that of the very bytes."""
        name = f"docker://{parse_reference(source.reference).name}{which}"
        said = self._pulling.run([*_skopeo(), "inspect", "--raw", *_access(source, ""), name], timeout_s)
        if len(said) > MOST_MANIFEST:
            raise ImageRefused(f"{name}: its manifest is larger than {MOST_MANIFEST} bytes")
        if which.startswith("@") and digest_of(said) != which[1:]:
            raise ImageRefused(f"{name}: the registry has given {digest_of(said)}")
        return said

    def _keep_free(self, need: int) -> None:
        free = free_bytes(self._root)
        if free - need < self._min_free:
            raise StepFailed(
                f"no room for the image: {self._root} has {format_bytes(free)} free, {format_bytes(need)} are"
                f" needed, and {format_bytes(self._min_free)} shall stay free",
                path=self._root,
                errno=errno.ENOSPC,
            )


class _Watch:
    """How much has come, and whether anything still does."""

    def __init__(self, layout: str, total: int, stall_s: float, told: Callable[[Amount], None]) -> None:
        self._layout, self._total, self._stall_s, self._told = layout, total, stall_s, told
        self._done, self._at = -1, time.monotonic()

    def look(self) -> None:
        """Raises StepFailed."""
        done, now = _size(self._layout), time.monotonic()
        if done != self._done:
            self._done, self._at = done, now
            self._told(Amount("fetching", done, self._total))
        elif now - self._at > self._stall_s:
            raise StepFailed(f"nothing has come for {self._stall_s:g} s: given up")


def _size(directory: str) -> int:
    """Bytes of all files in it; of one that is just renamed, perhaps none."""
    total, waiting = 0, [directory]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for each in entries:
                if each.is_dir(follow_symlinks=False):
                    waiting.append(each.path)
                else:
                    with contextlib.suppress(OSError):
                        total += each.stat(follow_symlinks=False).st_size
    return total


def _program(name: str) -> str:
    found = find(name)
    if found is None:
        raise HostLacks(f"{name} is not installed, and images need it: apt install {name}")
    return found


def _skopeo() -> list[str]:
    return [_program("skopeo"), *([] if os.path.exists(POLICY) else ["--insecure-policy"])]


def _access(source: Source, side: str) -> list[str]:
    """Credentials by the name of their file alone; plain http for a registry on this very host alone."""
    plain = [f"--{side}tls-verify=false"] if parse_reference(source.reference).is_loopback else []
    path = source.authfile or (AUTH_FILE if os.path.lexists(AUTH_FILE) else "")
    if not path:
        return [*plain, f"--{side}no-creds"]
    try:
        seen = os.stat(path)
    except OSError as error:
        raise failed(error, "reading", path) from error
    if seen.st_uid != 0 or stat.S_IMODE(seen.st_mode) & 0o077:
        raise StepFailed(f"{path}: credentials have to be root's alone: chown root, chmod 600", path=path)
    return [*plain, f"--{side}authfile" if side else "--authfile", path]


def _write(path: str, text: str) -> None:
    with open(path, "x", encoding="utf-8") as file:
        file.write(text)


def _clear(path: str) -> None:
    """Raises OSError."""
    if os.path.lexists(path):
        remove_deep(path)
