"""The Criu port for programs that may never need it: the driver is loaded by the first call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from controller.host.criu import CriuProgram
    from controller.host.oci import OciRuntime
    from controller.model.dump import CriuAbilities, Dumped, DumpOrder, Prospect, RestoreOrder
    from controller.model.launch import Init


class LazyCriu:
    """Every method may be called from any thread."""

    def __init__(self, runtime: OciRuntime) -> None:
        self._runtime = runtime

    def abilities(self) -> CriuAbilities:
        return self._program().abilities()

    def prospect(self, init: Init, group: str) -> Prospect:
        return self._program().prospect(init, group)

    def dump(self, order: DumpOrder, while_frozen: Callable[[], None]) -> Dumped:
        return self._program().dump(order, while_frozen)

    def pre_dump(self, order: DumpOrder) -> Dumped:
        return self._program().pre_dump(order)

    def restore(self, order: RestoreOrder) -> Init | None:
        return self._program().restore(order)

    def restored(self, name: str) -> Init | None:
        return self._program().restored(name)

    def mend(self, name: str, group: str) -> tuple[str, ...]:
        return self._program().mend(name, group)

    def _program(self) -> CriuProgram:
        from controller.host.criu import CriuProgram  # noqa: PLC0415

        return CriuProgram(self._runtime)
