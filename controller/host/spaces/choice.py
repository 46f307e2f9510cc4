"""The mechanisms that there are, the better ones first."""

from __future__ import annotations

from controller.host.places import Places
from controller.host.spaces.directories import SpaceDirectories
from controller.host.spaces.images import LoopImages
from controller.host.spaces.quotas import ProjectQuotas
from controller.host.spaces.subvolumes import BtrfsSubvolumes


def spaces_in(places: Places) -> SpaceDirectories:
    quotas = ProjectQuotas(places.instance, places.projects)
    return SpaceDirectories(places, (quotas, BtrfsSubvolumes(), LoopImages()))
