"""The directories of a store, its locks, and its manifests: `<root>/{lock,reading,packs,manifests}`.

One writer at a time (flock on `lock`, gone with its process); readers share `reading`, which a sweep needs alone.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Final

from controller.checkpoints import manifest
from controller.checkpoints.manifest import Body, Manifest
from controller.errors import CheckpointDamaged, HostLacks, StepFailed, StoreBusy
from controller.host.checkpoints.codec import Codec
from controller.host.checkpoints.packs import BAD, SUFFIX, TEMPORARY
from controller.host.text import failed, make_private, read_text, sync_directory
from controller.model.checkpoint import Checkpoint

JSON: Final = ".json"
IMPORTING: Final = "importing"
"""The one directory that an import unpacks to; there is one writer at a time."""
LARGEST_HEAD: Final = 1 << 20
POLL_S: Final = 0.05


class Depot:
    """Paths and durable small things; whoever calls knows which lock to hold."""

    def __init__(self, root: str, codec: Codec, patience_s: float) -> None:
        self.root, self.codec, self._patience_s = root, codec, patience_s
        self.packs, self.manifests = f"{root}/packs", f"{root}/manifests"

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Alone among writers; what an earlier one left half done is cleared away first."""
        self._make()
        with _locked(f"{self.root}/lock", fcntl.LOCK_EX, self._patience_s):
            self._clear_temporary()
            yield

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Nothing that is there now is swept away meanwhile."""
        if not os.path.isdir(self.root):
            yield
            return
        with _locked(f"{self.root}/reading", fcntl.LOCK_SH, self._patience_s):
            yield

    @contextlib.contextmanager
    def sweeping(self) -> Iterator[None]:
        """Without readers. Raises StoreBusy at once: a sweep can wait for another time."""
        with _locked(f"{self.root}/reading", fcntl.LOCK_EX, 0.0):
            yield

    def ids(self) -> list[str]:
        try:
            names = os.listdir(self.manifests)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise failed(error, "listing", self.manifests) from error
        return sorted(name.removesuffix(JSON) for name in names if name.endswith(JSON))

    def heads(self, container: str) -> tuple[Checkpoint, ...]:
        """Oldest first; of all containers for "", and those of which it is not known whose they are."""
        found = (self.head(identity) for identity in self.ids())
        return tuple(each for each in found if each and (not container or each.container in {container, ""}))

    def path(self, identity: str) -> str:
        return f"{self.manifests}/{identity}{JSON}"

    def head(self, identity: str) -> Checkpoint | None:
        """A quick look; None when it is gone. What is wrong with it is in `damage`."""
        path = self.path(identity)
        try:
            with open(path, "rb") as file:
                line = file.readline(LARGEST_HEAD).removesuffix(b"\n")
                size = os.fstat(file.fileno()).st_size
            found, _ = manifest.decode_head(line, size, self.codec.digest)
        except FileNotFoundError:
            return None
        except OSError as error:
            return Checkpoint(identity, None, damage=str(failed(error, "reading", path)))
        except CheckpointDamaged as error:
            return Checkpoint(identity, None, damage=f"{error} ({path})")
        wrong = f"this is the manifest of {found.id} ({path})" if found.id != identity else ""
        return Checkpoint(identity, None, damage=wrong) if wrong else found

    def chunks(self, identity: str) -> tuple[bytes, ...]:
        """What it needs; no key is necessary. Raises CheckpointDamaged."""
        return self._split(identity)[1]

    def manifest(self, identity: str) -> Manifest:
        """Raises CheckpointDamaged, StepFailed when there is none, and HostLacks when its key is missing."""
        found, chunks, line = self._split(identity)
        if found.key and self.codec.key_id not in {found.key, ""}:
            raise HostLacks(
                f"checkpoint {identity} is sealed with another key ({found.key}, not {self.codec.key_id})"
            )
        if found.key:
            line = self.codec.unseal(base64.b64decode(line), self.codec.name(manifest.bound_to(found)))
        return Manifest(found, chunks, manifest.decode_body(line))

    def publish(self, found: Checkpoint, chunks: list[bytes], body: Body, did: Callable[[str], None]) -> None:
        """The last thing that is written. OSErrors are the caller's to translate."""
        line = manifest.canonical(body.to_json())
        if found.key:
            line = base64.b64encode(self.codec.seal(line, self.codec.name(manifest.bound_to(found))))
        text = manifest.encode(found, chunks, line, self.codec.digest)
        temporary = self.path(found.id) + TEMPORARY
        with open(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_TRUNC, 0o600), "wb"
        ) as file:
            file.write(text)
            file.flush()
            did("manifest written")
            os.fsync(file.fileno())
        did("manifest synced")
        os.rename(temporary, self.path(found.id))
        did("manifest named")
        sync_directory(self.manifests)

    def _make(self) -> None:
        """Durably: what is published in a directory is worth as much as the directory's own name."""
        if os.path.isdir(self.packs) and os.path.isdir(self.manifests):
            return
        for each in (self.packs, self.manifests):
            make_private(each)
        for each in (self.root, os.path.dirname(self.root)):
            sync_directory(each)

    def _split(self, identity: str) -> tuple[Checkpoint, tuple[bytes, ...], bytes]:
        path = self.path(identity)
        try:
            with open(path, "rb") as file:
                text = file.read()
        except FileNotFoundError as error:
            raise StepFailed(f"there is no checkpoint {identity}", path=path, errno=errno.ENOENT) from error
        except OSError as error:
            raise failed(error, "reading", path) from error
        try:
            found, chunks, body = manifest.split(text, self.codec.digest)
        except (CheckpointDamaged, ValueError) as error:
            raise CheckpointDamaged(f"{identity}: {error} ({path})", path=path) from error
        if found.id != identity:
            raise CheckpointDamaged(f"{path} is the manifest of {found.id}", path=path)
        return found, chunks, body

    def _clear_temporary(self) -> None:
        """What has a temporary name belongs to a writer that is gone: there is only one, and it is this."""
        shutil.rmtree(f"{self.root}/{IMPORTING}", ignore_errors=True)
        for directory in (self.packs, self.manifests):
            for name in os.listdir(directory):
                pack = name.removesuffix(BAD)
                alone = (
                    name.endswith(BAD) and pack.endswith(SUFFIX) and not os.path.exists(f"{directory}/{pack}")
                )
                if name.endswith(TEMPORARY) or alone:
                    os.unlink(f"{directory}/{name}")


@contextlib.contextmanager
def _locked(path: str, kind: int, patience_s: float) -> Iterator[None]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise failed(error, "locking", path) from error
    try:
        _wait_for(descriptor, path, kind, time.monotonic() + patience_s)
        if kind == fcntl.LOCK_EX:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int, path: str, kind: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                holder = (read_text(path) or "").strip() or "another process"
                raise StoreBusy(
                    f"the checkpoint store is in use: {path} is locked by {holder}", path=path
                ) from error
            time.sleep(POLL_S)
        else:
            return
