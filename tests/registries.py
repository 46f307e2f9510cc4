"""Images to test with: OCI layouts made by hand, good and hostile, and a registry that does what it is told."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from controller.model.image import Amount

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, text: str = "", **traits: Any
) -> tuple[tarfile.TarInfo, bytes]:
    """A member of a layer; `text`: what a file has in it, or where a link leads."""
    info, content = tarfile.TarInfo(name), b""
    info.type, info.mode = kind, 0o755
    if kind == tarfile.REGTYPE:
        content = text.encode()
        info.size = len(content)
    else:
        info.linkname = text
    for trait, value in traits.items():
        setattr(info, trait, value)
    return info, content


class Layout:
    """An OCI layout on disk, written blob by blob."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def image(
        self,
        *members: tuple[tarfile.TarInfo, bytes],
        tag: str = "1",
        config: Mapping[str, Any] | None = None,
        layer: str = LAYER,
        above: str = "",
    ) -> str:
        """→ the digest of its manifest. `above`: digest of an image whose layers are below its own."""
        below: dict[str, Any] = json.loads(self.blob(above).read_text()) if above else {"layers": []}
        known: list[str] = []
        if above:
            known = json.loads(self.blob(below["config"]["digest"]).read_text())["rootfs"]["diff_ids"]
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for info, content in members:
                archive.addfile(info, io.BytesIO(content))
        said = {
            "architecture": "amd64",
            "os": "linux",
            "config": config or {},
            "rootfs": {"type": "layers", "diff_ids": [*known, _digest(out.getvalue())]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._described(json.dumps(said).encode(), CONFIG),
            "layers": [*below["layers"], self._described(gzip.compress(out.getvalue(), mtime=0), layer)],
        }
        return self.tag(tag, self._described(json.dumps(manifest).encode(), MANIFEST))

    def index(self, tag: str, platforms: Mapping[str, str]) -> str:
        """One of several images by architecture → digest. → its digest."""
        entries = [
            {"mediaType": MANIFEST, "digest": digest, "size": self.blob(digest).stat().st_size,
             "platform": {"os": "linux", "architecture": architecture}}
            for architecture, digest in platforms.items()
        ]  # fmt: skip
        text = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
        return self.tag(tag, self._described(text.encode(), INDEX))

    def tag(self, tag: str, described: dict[str, Any]) -> str:
        file = self.path / "index.json"
        before = json.loads(file.read_text())["manifests"] if file.exists() else []
        name = "org.opencontainers.image.ref.name"
        kept = [each for each in before if each["annotations"][name] != tag]
        entries = [*kept, {**described, "annotations": {name: tag}}]
        file.write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
        return str(described["digest"])

    def blob(self, digest: str) -> Path:
        return self.path / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def layers(self, digest: str) -> list[str]:
        return [each["digest"] for each in json.loads(self.blob(digest).read_text())["layers"]]

    def _described(self, content: bytes, kind: str) -> dict[str, Any]:
        digest = _digest(content)
        self.blob(digest).write_bytes(content)
        return {"mediaType": kind, "digest": digest, "size": len(content)}


def quiet(_: Amount) -> None:
    return


class Registry:
    """Serves one layout under every name, by plain http on a loopback port (distribution-spec, pulling).

    `requests`: paths, in order. `stalls`: what is in the path of a request that is not answered for now. `instead`:
    digest → what is given out in its place. `password`: what user `masu` has to know; empty: nobody is asked.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout, self.requests = layout, list[str]()
        self.stalls, self.instead, self.password = "", dict[str, bytes](), ""
        self.ends = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _answering(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def reference(self, which: str) -> str:
        """`which`: ":tag" or "@digest"."""
        return f"docker://{self.name}/web{which}"

    def fetched(self, digest: str) -> int:
        """How often a blob was asked for."""
        return sum(path.endswith(f"/blobs/{digest}") for path in self.requests)

    def close(self) -> None:
        self.ends.set()
        self._server.shutdown()
        self._server.server_close()

    def content(self, path: str) -> tuple[bytes, str] | None:
        """What there is, and what it is called."""
        kind, which = path.rsplit("/", 2)[1:]
        digest = which
        if kind == "manifests" and not which.startswith("sha256:"):
            index = json.loads((self.layout.path / "index.json").read_text())["manifests"]
            digest = next((each["digest"] for each in index if which in each["annotations"].values()), "")
        if digest in self.instead:
            return self.instead[digest], digest
        file = self.layout.blob(digest)
        return (file.read_bytes(), digest) if digest and file.is_file() else None


def _answering(registry: Registry) -> type[BaseHTTPRequestHandler]:
    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            registry.requests.append(self.path)
            while registry.stalls and registry.stalls in self.path:
                if registry.ends.wait(0.02):
                    return
            known = f"Basic {base64.b64encode(f'masu:{registry.password}'.encode()).decode()}"
            if registry.password and self.headers.get("Authorization") != known:
                self._say(401, b"{}", {"WWW-Authenticate": 'Basic realm="masu"'})
            elif self.path.rstrip("/") == "/v2":
                self._say(200, b"{}", {})
            elif found := registry.content(self.path):
                content, digest = found
                kind = "application/octet-stream"
                if "/manifests/" in self.path:
                    kind = json.loads(content).get("mediaType", MANIFEST)
                self._say(200, content, {"Content-Type": kind, "Docker-Content-Digest": digest})
            else:
                self._say(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}', {})

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            return

        def _say(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    return Answer


@contextmanager
def serving(layout: Layout) -> Iterator[Registry]:
    registry = Registry(layout)
    try:
        yield registry
    finally:
        registry.close()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
