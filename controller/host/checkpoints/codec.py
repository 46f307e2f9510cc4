"""What a chunk is called, and how it lies on disk: BLAKE3, zstd, and AES-256-GCM where there is a key.

Stored form: one byte for the kind, then the bytes. Every `unpack` checks that the bytes are those of the name.
The packages are imported by whoever makes a Codec: a daemon without checkpoints does not pay for them.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from controller.errors import CheckpointDamaged, HostLacks, NotPermitted, StepFailed
from controller.host.packages import needed, present
from controller.host.text import failed

if TYPE_CHECKING:
    from zstandard import ZstdCompressor, ZstdDecompressor

ID_SIZE: Final = 32
LEVEL: Final = 1
"""Of zstd: level 3 takes twice the time for a few per cent of typical memory."""
RAW, ZSTD, SEALED = 0, 1, 2
NONCE_SIZE: Final = 12
SMALLEST_KEY, LARGEST_KEY = 32, 4096
CONTEXT: Final = "masu 2026-11 checkpoint store: "


class Codec:
    """Safe for threads. Without a key, `key_id` is empty and names are plain BLAKE3."""

    def __init__(self, secret: bytes | None) -> None:
        self._blake3 = _package("blake3").blake3
        self._zstd = _package("zstandard")
        self._own = threading.local()
        self._secret = secret
        self.key_id = self._derive("key id")[:8].hex() if secret else ""
        self._naming = self._derive("names") if secret else None
        self._sealing = self._derive("contents") if secret else b""
        self._aes: Any = _aes() if secret else None

    def name(self, data: bytes) -> bytes:
        """With a key, nobody without it can tell whether something known is stored."""
        digest: bytes = self._blake3(data, key=self._naming).digest() if self._naming else self.digest(data)
        return digest

    def digest(self, data: bytes) -> bytes:
        digest: bytes = self._blake3(data).digest()
        return digest

    def running_digest(self) -> Any:
        """A digest to be fed in parts."""
        return self._blake3()

    def pack(self, data: bytes, name: bytes) -> bytes:
        squeezed = self._compressor().compress(data)
        small = len(squeezed) < len(data) - len(data) // 32
        stored = b"\x01" + squeezed if small else b"\x00" + data
        return self.seal(stored, name) if self._secret else stored

    def unpack(self, stored: bytes, name: bytes, size: int) -> bytes:
        """The `size` bytes that `name` stands for, or CheckpointDamaged."""
        plain = self.unseal(stored, name) if stored[:1] == b"\x02" else stored
        data = self._expand(plain, size)
        if len(data) != size or self.name(data) != name:
            raise CheckpointDamaged(f"chunk {name.hex()}: its bytes are not what was stored")
        return data

    def seal(self, data: bytes, name: bytes) -> bytes:
        """A key for each name, and a nonce for each writing: no nonce is met again with its key."""
        nonce = os.urandom(NONCE_SIZE)
        sealed: bytes = self._aes(self._key_for(name)).encrypt(nonce, data, name)
        return b"\x02" + nonce + sealed

    def unseal(self, stored: bytes, name: bytes) -> bytes:
        if self._aes is None:
            raise HostLacks("this checkpoint is encrypted, and no key file is given")
        nonce, sealed = stored[1 : 1 + NONCE_SIZE], stored[1 + NONCE_SIZE :]
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - there is one only with a key

        try:
            data: bytes = self._aes(self._key_for(name)).decrypt(nonce, sealed, name)
        except (InvalidTag, ValueError) as error:
            raise CheckpointDamaged(
                f"{name.hex()}: not what was sealed, or sealed with another key"
            ) from error
        return data

    def _expand(self, plain: bytes, size: int) -> bytes:
        if plain[:1] == b"\x00":
            return plain[1:]
        if plain[:1] != b"\x01":
            return b""
        try:
            data: bytes = self._decompressor().decompress(plain[1:], max_output_size=size)
        except self._zstd.ZstdError:
            return b""
        return data

    def _compressor(self) -> ZstdCompressor:
        if not hasattr(self._own, "compressor"):
            self._own.compressor = self._zstd.ZstdCompressor(level=LEVEL)
        compressor: ZstdCompressor = self._own.compressor
        return compressor

    def _decompressor(self) -> ZstdDecompressor:
        if not hasattr(self._own, "decompressor"):
            self._own.decompressor = self._zstd.ZstdDecompressor()
        decompressor: ZstdDecompressor = self._own.decompressor
        return decompressor

    def _key_for(self, name: bytes) -> bytes:
        key: bytes = self._blake3(name, key=self._sealing).digest()
        return key

    def _derive(self, purpose: str) -> bytes:
        derived: bytes = self._blake3(self._secret, derive_key_context=CONTEXT + purpose).digest()
        return derived


def read_key(path: str) -> bytes:
    """The secret in a key file: at least 32 bytes that only its owner can read. A newline at its end is no part."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise HostLacks(
            f"key file {path} is missing: put it back; or make one, which opens nothing that was sealed before:"
            f" (umask 077; openssl rand -hex 32 >{path})"
        ) from error
    except OSError as error:
        raise failed(error, "reading key file", path) from error
    try:
        seen = os.fstat(descriptor)
        if not stat.S_ISREG(seen.st_mode) or seen.st_mode & 0o077:
            raise NotPermitted(
                f"key file {path}: must be a file that only its owner can read: chmod 600 {path}"
            )
        secret = os.read(descriptor, LARGEST_KEY + 1).removesuffix(b"\n")
    finally:
        os.close(descriptor)
    if not SMALLEST_KEY <= len(secret) <= LARGEST_KEY:
        raise StepFailed(
            f"key file {path}: needs {SMALLEST_KEY} to {LARGEST_KEY} bytes, as of `openssl rand -hex 32`"
        )
    return secret


def lacking(*, sealed: bool) -> Iterator[HostLacks]:
    """Read-only. The packages that are not there, each as the error that it will be."""
    for name in ("blake3", "zstandard"):
        if not present(name):
            yield HostLacks(needed("checkpoints", name))
    if sealed and not present("cryptography"):
        yield HostLacks(needed("encrypted checkpoints", "cryptography"))


def _package(name: str) -> Any:
    import importlib  # noqa: PLC0415 - with the packages, which only checkpoints need

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise HostLacks(needed("checkpoints", name)) from error


def _aes() -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - 9 MiB, only with a key
    except ImportError as error:
        raise HostLacks(needed("encrypted checkpoints", "cryptography")) from error
    return AESGCM
