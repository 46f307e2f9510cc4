"""OCI layouts on disk (image-spec, image-layout.md): read with every digest checked, and referred to by another."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable
from typing import Any, Final, TypeVar

from controller.errors import ImageRefused
from controller.host.text import failed
from controller.model.image import MOST_MANIFEST, Manifest, Reference, in_index, parse_manifest, tagged

T = TypeVar("T")
NAME: Final = "masu"
"""The tag of the one image in a layout of masu's own."""
MOST_NESTED: Final = 4
_BEGINNING: Final = '{"imageLayoutVersion": "1.0.0"}'


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def resolve(reference: Reference, machine: str) -> str:
    """The digest of the manifest that is meant. Raises ImageRefused, StepFailed."""
    digest = reference.digest
    if not digest:
        index = _parsed(reference.name, _read(f"{reference.name}/index.json"), json.loads)
        digest = _parsed(reference.name, index, lambda value: tagged(value, reference.tag))
    return platform(lambda each: blob(reference.name, each), reference.name, digest, machine)


def platform(read: Callable[[str], bytes], name: str, digest: str, machine: str) -> str:
    """The manifest for this machine, where `digest` is an index. `read`: what has a digest. Raises ImageRefused."""
    for _ in range(MOST_NESTED):
        value = _parsed(name, read(digest), json.loads)
        found = _parsed(name, value, lambda each: in_index(each, machine))
        if found is None:
            return digest
        digest = found
    raise ImageRefused(f"{name}: its indexes are nested too deep")


def manifest(layout: str, digest: str) -> Manifest:
    """Raises ImageRefused, StepFailed."""
    return manifest_in(layout, blob(layout, digest))


def manifest_in(name: str, text: bytes) -> Manifest:
    """Pure. Raises ImageRefused."""
    return _parsed(name, text, lambda text: parse_manifest(json.loads(text)))


def check_blobs(layout: str, found: Manifest) -> None:
    """Whoever unpacks it would wait for a writer. Raises ImageRefused, StepFailed."""
    for digest in (found.config, *(each for each, _ in found.layers)):
        path = blob_path(layout, digest)
        try:
            _check(path, os.stat(path))
        except OSError as error:
            raise failed(error, "reading", path) from error


def config(layout: str, digest: str) -> Any:
    """Raises ImageRefused, StepFailed."""
    return config_in(layout, blob(layout, digest))


def config_in(name: str, text: bytes) -> Any:
    """Pure. Raises ImageRefused."""
    return _parsed(name, text, json.loads)


def blob(layout: str, digest: str) -> bytes:
    """Small ones, whole. Raises ImageRefused where it is another than it is called, StepFailed where it is not."""
    content = _read(blob_path(layout, digest))
    if digest_of(content) != digest:
        raise ImageRefused(f"{layout}: {digest} is {digest_of(content)} in truth")
    return content


def refer(layout: str, blobs: str, digest: str) -> None:
    """Make a layout of one image whose blobs are in another directory. Raises OSError."""
    os.symlink(blobs, f"{layout}/blobs")
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": digest,
        "size": os.stat(f"{blobs}/sha256/{digest.removeprefix('sha256:')}").st_size,
        "annotations": {"org.opencontainers.image.ref.name": NAME},
    }
    texts = {
        "oci-layout": _BEGINNING,
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}),
    }
    for file, text in texts.items():
        with open(f"{layout}/{file}", "x", encoding="utf-8") as made:
            made.write(text)


def blob_path(layout: str, digest: str) -> str:
    """Pure."""
    return f"{layout}/blobs/sha256/{digest.removeprefix('sha256:')}"


def _read(path: str) -> bytes:
    """A layout need not be root's: what waits for a writer, or never ends, is not read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            _check(path, os.fstat(descriptor))
            content = file.read(MOST_MANIFEST + 1)
    except OSError as error:
        raise failed(error, "reading", path) from error
    if len(content) > MOST_MANIFEST:
        raise ImageRefused(f"{path} is larger than {MOST_MANIFEST} bytes")
    return content


def _check(path: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ImageRefused(f"{path} is not a regular file")


def _parsed(name: str, value: Any, parse: Callable[[Any], T]) -> T:
    try:
        return parse(value)
    except (ValueError, RecursionError) as error:
        raise ImageRefused(f"{name}: {error}") from error
