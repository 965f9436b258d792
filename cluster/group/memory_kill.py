"""What Ray says when it has killed a worker because a machine's memory ran out, in one line with what to lower."""

import re

# Of Ray's OutOfMemoryError, a page of text.
MACHINE = re.compile(r"\(IP: (?P<ip>[^,)]+).*?\) was (?P<used>\S+) used / (?P<limit>\S+) limit", re.DOTALL)
WORKER = re.compile(r"pid=(?P<pid>\d+), actual memory used=(?P<used>[\d.]+)GB")
SHARE = re.compile(r"exceeded threshold of \S+ \((?P<share>[\d.]+%)")
# Ray may kill several at once.
LISTED = 3
ADVICE = (
    "lower data.loader_workers, data.prefetch, or step.micro_batch (it changes no result) of a run, of which --dry-run shows the "
    "memory that each part needs, or --batch and --tile of a translation; or use more machines"
)


def memory_kill(text: str) -> str:
    """The line for such a text; what it does not say is left out."""
    machine, share = MACHINE.search(text), SHARE.search(text)
    largest = sorted(WORKER.finditer(text), key=lambda found: -float(found["used"]))[:LISTED]
    workers = [f"process {found['pid']} with {found['used']}GB" for found in largest]
    where = f" on {machine['ip']}, where {machine['used']} of {machine['limit']} were in use" if machine else ""
    limit = f" (Ray kills from {share['share']} on)" if share else ""
    killed = f"; killed: {', '.join(workers)}" if workers else ""
    return f"process killed by Ray for lack of memory{where}{limit}{killed}; {ADVICE}"
