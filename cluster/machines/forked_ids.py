"""To be imported first in a process that forks others (processes/server.py): so that no two of its forks give out the same ids.

Ray draws the ids of its objects, tasks and actors from one generator in C++, which seeds itself from the system at its first use. A
class that `ray.remote` makes an actor of takes an id from it, and importing Ray Train makes some: the generator would begin
before the forks, and all of them go on alike. Two trials of a sweep would then store two functions under one id, and the second
be given the first one's.
"""

import os

import ray.actor


class _ActorClassID(ray.ActorClassID):
    """Ids from the system's own source."""

    @classmethod
    def from_random(cls) -> ray.ActorClassID:
        return ray.ActorClassID(os.urandom(cls.size()))


ray.actor.ActorClassID = _ActorClassID
