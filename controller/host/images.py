"""The Images port: skopeo fetches, umoci unpacks, and what comes of it is looked at before it has a name.

`<state>/images/<digest>/{rootfs,image.json,layers.json}`: made aside in `.<digest>.coming`, and renamed when it is
whole and on disk. What several have in common is there once (`image_shares`).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from controller.checkpoints.policy import DEFAULT_MIN_FREE
from controller.errors import NOT_UNDERSTOOD, HostLacks, ImageRefused, StepFailed
from controller.frozen import as_dict
from controller.host import image_layout
from controller.host.facts import find
from controller.host.image_layout import digest_of
from controller.host.image_shares import NAME as SHARED
from controller.host.image_shares import ImageShares
from controller.host.image_tree import text_in, tidy
from controller.host.mount_table import mentioned
from controller.host.pulling import Pulling, Watch
from controller.host.removal import remove_deep
from controller.host.syscalls import free_bytes, syncfs
from controller.host.text import failed, make_private, read_text, sync_directory, write_atomic
from controller.model.image import (
    MOST_MANIFEST,
    OCI,
    Amount,
    Image,
    Manifest,
    Reference,
    Source,
    image_of,
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
LAYERS: Final = "layers.json"
"""Digests of what came from a registry, the lowest first."""


class ImageStore:
    """Thread-safe. `machine`: uname(2)'s word for it. Two that want the same digest fetch it once."""

    def __init__(
        self, root: str, machine: str, *, stall_s: float = STALL_S, min_free: int = DEFAULT_MIN_FREE
    ) -> None:
        self._root, self._machine = root, machine
        self._stall_s, self._min_free = stall_s, min_free
        self._pulling = Pulling()
        self._shares = ImageShares(root)
        self._sharing = threading.Lock()
        """So that of two that come at once, the second finds what the first has."""
        self._images = _Turns()
        self._repositories = _Turns()

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
        with self._images.alone(digest):
            found = self.look(digest)
            if found:
                return found
            aside = f"{self._root}/.{digest.removeprefix('sha256:')}{COMING}"
            try:
                make_private(self._root)
                if os.path.isdir(f"{self._path(digest)}/rootfs"):
                    return self._describe(source, digest)
                _clear(aside)
                os.makedirs(f"{aside}/layout", 0o700)
                os.mkdir(f"{aside}/made", 0o700)
                image, layers = self._make(source, digest, aside, told)
                _write(f"{aside}/made/image.json", json.dumps(as_dict(image)))
                _write(f"{aside}/made/{LAYERS}", json.dumps(layers))
                with self._sharing:
                    offers = self._shares.share(
                        f"{aside}/made/rootfs", f"{aside}/shared", self._pulling.check
                    )
                    self._settle(aside, digest)
                    self._shares.offer(f"{self._path(digest)}/rootfs", offers)
                    self._shares.keep(_origin(source), f"{aside}/layout", layers)  # what was pruned meanwhile
            except OSError as error:
                raise failed(error, "unpacking an image in", aside) from error
            finally:
                with contextlib.suppress(OSError):
                    _clear(aside)
        return image

    def _settle(self, aside: str, digest: str) -> None:
        """It has its name from when it is whole, and on disk. Raises OSError."""
        syncfs(aside)
        rest = self._put_aside(digest)
        os.rename(f"{aside}/made", self._path(digest))
        sync_directory(self._root)
        _clear(rest)

    def remove(self, digest: str) -> None:
        path = self._path(digest)
        with self._images.alone(digest):
            if mentioned(f"{path.removeprefix(self._root)}/rootfs"):
                raise StepFailed(f"{path} is mounted somewhere still", path=path, errno=errno.EBUSY)
            try:
                _clear(self._put_aside(digest))
            except OSError as error:
                raise failed(error, "removing", path) from error
            self._prune()

    def sweep(self) -> None:
        try:
            found = os.listdir(self._root)
        except FileNotFoundError:
            return
        try:
            for each in found:
                if each.startswith(".") and each != SHARED:
                    _clear(f"{self._root}/{each}")
        except OSError as error:
            raise failed(error, "removing what is half done in", self._root) from error
        self._prune()

    def halt(self) -> None:
        self._pulling.halt()

    def _prune(self) -> None:
        """What cannot go now, can the next time."""
        with self._sharing, contextlib.suppress(OSError):
            self._shares.prune({layer for each in self.names() for layer in _layers(self._path(each))})

    def _path(self, digest: str) -> str:
        return f"{self._root}/{digest.removeprefix('sha256:')}"

    def _put_aside(self, digest: str) -> str:
        """→ where what was there is now, if anything was. Raises OSError."""
        doomed = f"{self._root}/.{digest.removeprefix('sha256:')}{GOING}"
        _clear(doomed)
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._path(digest), doomed)
        return doomed

    def _make(
        self, source: Source, digest: str, aside: str, told: Callable[[Amount], None]
    ) -> tuple[Image, list[str]]:
        """→ also the layers that came from a registry, which are in its layout. Raises OSError, too."""
        reference, layout, tree = parse_reference(source.reference), f"{aside}/layout", f"{aside}/made/rootfs"
        layers = list[str]()
        if reference.transport == OCI:
            manifest = image_layout.manifest(reference.name, digest)
            image_layout.check_blobs(reference.name, manifest)
            self._keep_free(manifest.size)
            image_layout.refer(layout, os.path.abspath(f"{reference.name}/blobs"), digest)
        else:
            manifest = self._copy(source, digest, layout, told)
            layers = [each for each, _ in manifest.layers]
        told(Amount("unpacking", 0, manifest.size))
        unpack = [_program("umoci"), "raw", "unpack", "--image", f"{layout}:{image_layout.NAME}", tree]
        try:
            self._pulling.run(unpack, UNPACK_S, lambda: self._keep_free(0))
            tidy(tree)
            return self._image(digest, tree, image_layout.config(layout, manifest.config)), layers
        except StepFailed as error:
            if not (error.errno or self._pulling.is_halted):
                self._shares.drop(_origin(source), layers)  # one may be damaged: fetch them the next time
            raise
        except (ImageRefused, ValueError) as error:
            self._shares.drop(_origin(source), layers)
            raise ImageRefused(f"{source.reference} ({digest}): {error}") from error

    def _describe(self, source: Source, digest: str) -> Image:
        """Write anew what lies beside a root, which is whole since it has its name: containers may run from it.

        Raises OSError, too.
        """
        reference, path = parse_reference(source.reference), self._path(digest)
        if reference.transport == OCI:
            config = image_layout.config(reference.name, image_layout.manifest(reference.name, digest).config)
        else:
            config = self._config(source, digest, self._listed(source, digest).config)
        try:
            image = self._image(digest, f"{path}/rootfs", config)
        except ValueError as error:
            raise ImageRefused(f"{source.reference} ({digest}): {error}") from error
        write_atomic(f"{path}/image.json", json.dumps(as_dict(image)), durable=True)
        return image

    def _image(self, digest: str, tree: str, config: Any) -> Image:
        """Raises ValueError."""
        users, groups = (text_in(tree, each) for each in ("etc/passwd", "etc/group"))
        return image_of(digest, f"{self._path(digest)}/rootfs", config, users, groups)

    def _copy(self, source: Source, digest: str, layout: str, told: Callable[[Amount], None]) -> Manifest:
        """From a registry to a layout. Another format than OCI's is turned into that, with the same layers."""
        wanted = self._listed(source, digest)
        with contextlib.ExitStack() as turn:
            if self._shares.missing(_origin(source), wanted.layers):
                told(Amount("waiting for its turn", 0, wanted.size))
                turn.enter_context(self._repositories.alone(_origin(source)))  # or two would fetch the same
            return self._copied(source, digest, layout, wanted, told)

    def _copied(
        self, source: Source, digest: str, layout: str, wanted: Manifest, told: Callable[[Amount], None]
    ) -> Manifest:
        """skopeo does not fetch what is in the layout."""
        seeded = self._shares.seed(_origin(source), layout, wanted.layers)
        self._keep_free(sum(size for each, size in wanted.layers if each not in seeded))
        name = f"docker://{_origin(source)}@{digest}"
        argv = [
            *_skopeo(),
            "copy",
            "--quiet",
            *_access(source, "src-"),
            name,
            f"oci:{layout}:{image_layout.NAME}",
        ]
        watch = Watch(layout, wanted.size, self._stall_s, told)

        def look() -> None:
            watch.look()
            self._keep_free(0)

        look()
        self._pulling.run(argv, FETCH_S, look)
        here = image_layout.resolve(Reference(OCI, layout, image_layout.NAME, ""), self._machine)
        manifest = image_layout.manifest(layout, here)
        if [each for each, _ in manifest.layers] != [each for each, _ in wanted.layers]:
            raise ImageRefused(f"{source.reference}: {digest} came with other layers than it names")
        self._shares.keep(_origin(source), layout, [each for each, _ in manifest.layers])
        return manifest

    def _listed(self, source: Source, digest: str) -> Manifest:
        raw = self._manifest(source, f"@{digest}", MANIFEST_S)
        return image_layout.manifest_in(f"{source.reference} ({digest})", raw)

    def _config(self, source: Source, digest: str, expected: str) -> Any:
        """From a registry, without its layers."""
        name = f"docker://{_origin(source)}@{digest}"
        argv = [*_skopeo(), "inspect", "--config", "--raw", *_access(source, ""), name]
        said = self._pulling.run(argv, MANIFEST_S)
        if digest_of(said) != expected:
            raise ImageRefused(f"{name}: the registry has given {digest_of(said)} for {expected}")
        return image_layout.config_in(name, said)

    def _manifest(self, source: Source, which: str, timeout_s: float) -> bytes:
        """As the registry has it: its digest is that of the very bytes."""
        name = f"docker://{_origin(source)}{which}"
        said = self._pulling.run([*_skopeo(), "inspect", "--raw", *_access(source, ""), name], timeout_s)
        if len(said) > MOST_MANIFEST:
            raise ImageRefused(f"{name}: its manifest is larger than {MOST_MANIFEST} bytes")
        if which.startswith("@") and digest_of(said) != which[1:]:
            raise ImageRefused(f"{name}: the registry has given {digest_of(said)}")
        return said

    def _keep_free(self, need: int) -> None:
        """What is kept only to be quicker goes first."""
        free = free_bytes(self._root)
        if free - need < self._min_free and self._shares.give_room():
            free = free_bytes(self._root)
        if free - need < self._min_free:
            raise StepFailed(
                f"no room for the image: {self._root} has {format_bytes(free)} free, {format_bytes(need)} are"
                f" needed, and {format_bytes(self._min_free)} shall stay free",
                path=self._root,
                errno=errno.ENOSPC,
            )


class _Turns:
    """One at a time, by name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: dict[str, threading.Lock] = {}

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[None]:
        with self._lock:
            lock = self._taken.setdefault(name, threading.Lock())
        with lock:
            yield


def _origin(source: Source) -> str:
    """REGISTRY/REPOSITORY."""
    return parse_reference(source.reference).name


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


def _layers(path: str) -> list[str]:
    """Of an image that is here, as far as that can be read: of an older masu's it is not known."""
    with contextlib.suppress(*NOT_UNDERSTOOD):
        return [str(each) for each in json.loads(read_text(f"{path}/{LAYERS}") or "[]")]
    return []


def _clear(path: str) -> None:
    """Raises OSError."""
    if os.path.lexists(path):
        remove_deep(path)
