"""A worker that Ray kills for memory is said to be that, whole."""

from types import SimpleNamespace

from ray.exceptions import OutOfMemoryError

from cluster.group.retry import ADVICE, describe, memory_kill

# As Ray 2.60 writes it, without its hints on settings.
SAID = """1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 192.0.2.2, ID: 7180b3260d4c3347c66e1870ce90a453802a4f495ae024a968283c5f) was 9.29GB used / 23.59GB limit (0.393971)
OOM kill reason: Memory usage 9658130432B exceeded threshold of 9547626496B (37.7% of 25325268992B limit)
Object store memory usage: [- objects spillable: 0
]
Ray killed 1 worker(s) based on the killing policy
Considered workers: [
Selected to kill: (Actor(1b1ba223569ecfe124d42e1701000000): job ID=01000000, lease ID=00000000, task name=A.__init__, required resources={}, pid=2215, actual memory used=1.04GB, worker ID=6b7ba78de9b3a4be02851e)
]
Top 10 memory users: PID	MEM(GB)	COMMAND
2215	1.04	ray::A.eat
Refer to the documentation on how to address the out of memory issue."""
LINE = (
    "process killed by Ray for lack of memory on 192.0.2.2, where 9.29GB of 23.59GB were in use (Ray kills from 37.7% on); killed: "
    f"process 2215 with 1.04GB; {ADVICE}"
)


def test_machine_amounts_and_advice_are_in_one_line() -> None:
    assert memory_kill(SAID) == LINE
    assert memory_kill("anything else") == f"process killed by Ray for lack of memory; {ADVICE}"


def test_the_rank_is_named_and_nothing_is_cut() -> None:
    # As Ray Train's WorkerGroupError has it.
    error = SimpleNamespace(worker_failures={1: OutOfMemoryError(SAID)})
    assert describe(error) == f"rank 1: {LINE}"  # type: ignore[arg-type]
